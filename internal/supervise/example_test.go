//go:build linux || darwin

package supervise_test

import (
	"context"
	"fmt"
	"os"

	"github.com/keelson-go/keelson/internal/supervise"
)

func Example() {
	s, err := supervise.New(supervise.Config{
		Children: []supervise.Child{{
			Name:     "user-service",
			Instance: "user-service-1",
			Command:  []string{"sh", "-c", "echo serving on $PORT; exec sleep 60"},
			Env:      append(os.Environ(), "PORT=3001"),
			Healthy:  func(context.Context) error { return nil }, // usually asks the service's /readyz
		}},
		OnState: func(st supervise.Status) { fmt.Println(st.Instance, st.State) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	err = s.Run(ctx, stop) // stops as soon as all are healthy
	fmt.Println("error:", err)
	// Output:
	// user-service-1 building
	// user-service-1 starting
	// user-service-1 healthy
	// user-service-1 stopping
	// user-service-1 stopped
	// error: <nil>
}
