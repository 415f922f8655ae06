package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/resilience"
	"github.com/keelson-go/keelson/retry"
)

func Example() {
	b, err := breaker.New("rates-api", breaker.ConsecutiveFailures(4))
	if err != nil {
		fmt.Println(err)
		return
	}
	limiter, err := concurrency.New(concurrency.Fixed(20)) // as many as the contract allows
	if err != nil {
		fmt.Println(err)
		return
	}
	budget, err := retry.NewBudget(retry.BudgetOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	chain := resilience.Chain{
		Breaker: b,
		Limiter: limiter,
		Retry:   &retry.Policy{Budget: budget, Backoff: retry.Backoff{Base: time.Millisecond}},
		Timeout: 10 * time.Second,
	}

	tries := 0
	rate, err := resilience.DoValue(context.Background(), &chain, func(context.Context) (float64, error) {
		if tries++; tries < 2 {
			return 0, errors.New("connection reset")
		}
		return 1.08, nil
	})
	fmt.Println(rate, err)

	for range 2 {
		err = chain.Do(context.Background(), func(context.Context) error { return errors.New("no route to host") })
		fmt.Println(err)
	}
	fmt.Println(errors.Is(err, breaker.ErrOpen))
	// Output:
	// 1.08 <nil>
	// all tries failed (tries: 3): no route to host
	// rates-api: circuit breaker is open (tries: 1): no route to host
	// true
}
