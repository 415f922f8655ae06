package embedded_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
)

// An engine for this process alone, in memory.
func Example() {
	ctx := context.Background()
	server, err := embedded.Start(ctx, embedded.Config{})
	if err != nil {
		log.Fatal(err)
	}
	e, err := server.Connect(ctx, "my-service")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("healthy:", e.Check(ctx) == nil)

	e.Close() // before the server it talks to
	stop, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := server.Stop(stop); err != nil {
		log.Fatal(err)
	}
	// Output: healthy: true
}

// An engine that other processes of this machine reach: they get the URL and
// the credentials by their environment.
func ExampleStart() {
	ctx := context.Background()
	server, err := embedded.Start(ctx, embedded.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Stop(ctx)

	// In the other process:
	e, err := engine.Connect(ctx, engine.Config{URL: server.URL(), Credentials: server.Credentials()})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	fmt.Println("kept in:", e.Storage())
	// Output: kept in: Memory
}
