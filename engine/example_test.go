package engine_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/keelson-go/keelson/engine"
)

// Connect tells at once, and in terms one can act on, what is wrong.
func ExampleConnect() {
	e, err := engine.Connect(context.Background(), engine.Config{
		URL:         "nats://127.0.0.1:1", // nobody listens there
		Credentials: "service:secret",
	})
	switch {
	case errors.Is(err, engine.ErrUnreachable):
		fmt.Println("is the engine running?")
	case errors.Is(err, engine.ErrCredentials):
		fmt.Println("are the credentials right?")
	case err != nil:
		fmt.Println(err)
	default:
		defer e.Close()
		e.OnState(func(connected bool, err error) { fmt.Println("connected:", connected, err) })
	}
	// Output: is the engine running?
}
