package lifecycle_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/lifecycle"
)

func Example() {
	ctx, forced, stop := lifecycle.Signals(context.Background())
	defer stop()

	g := lifecycle.New(lifecycle.StopTimeout(5*time.Second), lifecycle.ForceOn(forced))
	g.Add("database", func(ctx context.Context, ready func()) error {
		fmt.Println("database is open")
		ready()
		<-ctx.Done()
		fmt.Println("database is closed")
		return nil
	})
	g.Add("http", func(ctx context.Context, ready func()) error {
		fmt.Println("http serves")
		ready()
		<-ctx.Done()
		fmt.Println("http is closed")
		return nil
	})
	g.OnStop("deregister", time.Second, func(context.Context) error {
		fmt.Println("out of rotation")
		return nil
	})
	g.Add("job", func(_ context.Context, ready func()) error {
		ready()
		return fmt.Errorf("disk full") // in place of a SIGTERM, so that the example ends
	})
	fmt.Println("Run:", g.Run(ctx))
	// Output:
	// database is open
	// http serves
	// out of rotation
	// http is closed
	// database is closed
	// Run: job: disk full
}
