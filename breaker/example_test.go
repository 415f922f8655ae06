package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/breaker"
)

func Example() {
	b, err := breaker.New("payment", breaker.ConsecutiveFailures(2), breaker.OpenTime(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	b.OnStateChange(func(c breaker.Change) { fmt.Println(c.From, "→", c.To) })
	for range 3 {
		err := b.Do(context.Background(), func(context.Context) error { return errors.New("no connection") })
		fmt.Println(err)
	}
	// Output:
	// no connection
	// closed → open
	// no connection
	// payment: circuit breaker is open
}
