package deadline_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/deadline"
)

func Example() {
	arrived := http.Header{"Request-Timeout": {"2000"}}
	left, ok := deadline.Caller(arrived.Values)
	if !ok {
		left = time.Minute // whatever suits the service
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	if err := deadline.Check(ctx); err != nil {
		fmt.Println(err)
		return
	}
	next := http.Header{}
	deadline.Inject(ctx, next.Set)
	fmt.Println(left, next.Get(deadline.Header))
	// Output: 2s 1900
}

func ExampleFromMessage() {
	ctx, cancel := context.WithDeadline(context.Background(), time.Date(2026, 11, 22, 21, 4, 5, 250e6, time.UTC))
	defer cancel()
	attributes := map[string]string{}
	deadline.ToMessage(ctx, func(name, value string) { attributes[name] = value })
	fmt.Println(attributes)
	// Output: map[deadline:2026-11-22T21:04:05.250Z]
}
