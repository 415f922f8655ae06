package resilience

import (
	"context"
	"testing"
	"time"

	avast "github.com/avast/retry-go/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	fscb "github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/slok/goresilience"
	gobulkhead "github.com/slok/goresilience/bulkhead"
	"github.com/slok/goresilience/circuitbreaker"
	goretry "github.com/slok/goresilience/retry"
	"github.com/sony/gobreaker/v2"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/resilience"
	"github.com/keelson-go/keelson/retry"
)

// chains guard a call with a breaker, a limit of 200 calls at once and three tries,
// within a budget where there is one.
var chains = []struct {
	name string
	make func() guarded
}{
	{"keelson", func() guarded {
		b, err := breaker.New("users")
		if err != nil {
			panic(err)
		}
		l, err := concurrency.New(concurrency.Fixed(200))
		if err != nil {
			panic(err)
		}
		budget, err := retry.NewBudget(retry.BudgetOptions{})
		if err != nil {
			panic(err)
		}
		c := &resilience.Chain{Breaker: b, Limiter: l, Retry: &retry.Policy{Budget: budget}}
		return c.Do
	}},
	{"failsafe-go", func() guarded {
		x := failsafe.With[any](
			retrypolicy.NewBuilder[any]().WithMaxAttempts(attempts).WithBackoff(baseDelay, maxDelay).WithBudget(budget.New()).Build(),
			fscb.NewBuilder[any]().WithFailureThreshold(5).Build(),
			bulkhead.New[any](200))
		return func(ctx context.Context, f func(context.Context) error) error {
			return x.WithContext(ctx).Run(func() error { return f(ctx) })
		}
	}},
	{"goresilience", func() guarded { // its limit is one of workers
		r := goresilience.RunnerChain(
			goretry.NewMiddleware(goretry.Config{Times: attempts - 1, WaitBase: baseDelay}),
			circuitbreaker.NewMiddleware(circuitbreaker.Config{}),
			gobulkhead.NewMiddleware(gobulkhead.Config{Workers: 200}))
		return func(ctx context.Context, f func(context.Context) error) error { return r.Run(ctx, f) }
	}},
	{"gobreaker+avast", func() guarded {
		b := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{})
		r := avast.New(avast.Attempts(attempts), avast.Delay(baseDelay), avast.MaxDelay(maxDelay))
		places := make(chan struct{}, 200)
		return func(ctx context.Context, f func(context.Context) error) error {
			places <- struct{}{}
			defer func() { <-places }()
			return r.Do(func() error {
				_, err := b.Execute(func() (struct{}, error) { return struct{}{}, f(ctx) })
				return err
			})
		}
	}},
}

// BenchmarkChain is the price of a call that succeeds, for a caller without a deadline
// and for one with it; the deadline itself is part of the price.
func BenchmarkChain(b *testing.B) {
	for _, c := range chains {
		b.Run(c.name, func(b *testing.B) {
			do, ctx := c.make(), context.Background()
			both(b, func() {
				if err := do(ctx, succeeds); err != nil {
					b.Error(err)
				}
			})
		})
		b.Run(c.name+"/deadline", func(b *testing.B) {
			do := c.make()
			both(b, func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				if err := do(ctx, succeeds); err != nil {
					b.Error(err)
				}
				cancel()
			})
		})
	}
}
