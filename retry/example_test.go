package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/retry"
)

func Example() {
	budget, err := retry.NewBudget(retry.BudgetOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	policy := retry.Policy{
		Backoff: retry.Backoff{Base: time.Millisecond},
		Budget:  budget,
		OnRetry: func(e retry.Event) { fmt.Printf("try %d: %v\n", e.Attempt, e.Err) },
	}
	tries := 0
	err = retry.Do(context.Background(), policy, func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("connection reset")
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// try 1: connection reset
	// try 2: connection reset
	// <nil>
}

func ExampleDo_givingUp() {
	errFull := errors.New("disk is full")
	err := retry.Do(context.Background(), retry.Policy{Backoff: retry.Backoff{Base: 1, Max: 1}}, func(context.Context) error {
		return errFull
	})
	fmt.Println(err)
	fmt.Println(errors.Is(err, retry.ErrAttempts), errors.Is(err, errFull))
	// Output:
	// all tries failed (tries: 3): disk is full
	// true true
}
