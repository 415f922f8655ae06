package resilience

import (
	"context"
	"testing"
	"time"

	avast "github.com/avast/retry-go/v5"
	"github.com/cenkalti/backoff/v5"
	"github.com/eapache/go-resiliency/retrier"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	goretry "github.com/slok/goresilience/retry"

	"github.com/keelson-go/keelson/retry"
)

// retries tries three times in all, after 25 ms to 1 s.
var retries = []struct {
	name string
	make func() guarded
}{
	{"keelson", func() guarded {
		return func(ctx context.Context, f func(context.Context) error) error {
			return retry.Do(ctx, retry.Policy{}, f)
		}
	}},
	{"keelson-budget", func() guarded {
		b, err := retry.NewBudget(retry.BudgetOptions{})
		if err != nil {
			panic(err)
		}
		return func(ctx context.Context, f func(context.Context) error) error {
			return retry.Do(ctx, retry.Policy{Budget: b}, f)
		}
	}},
	{"failsafe-go", func() guarded {
		x := failsafe.With(retrypolicy.NewBuilder[any]().WithMaxAttempts(attempts).WithBackoff(baseDelay, maxDelay).Build())
		return func(ctx context.Context, f func(context.Context) error) error {
			return x.WithContext(ctx).Run(func() error { return f(ctx) })
		}
	}},
	{"failsafe-go-budget", func() guarded {
		x := failsafe.With(retrypolicy.NewBuilder[any]().WithMaxAttempts(attempts).WithBackoff(baseDelay, maxDelay).
			WithBudget(budget.New()).Build())
		return func(ctx context.Context, f func(context.Context) error) error {
			return x.WithContext(ctx).Run(func() error { return f(ctx) })
		}
	}},
	{"cenkalti-backoff", func() guarded {
		return func(ctx context.Context, f func(context.Context) error) error {
			_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, f(ctx) }, backoff.WithMaxTries(attempts))
			return err
		}
	}},
	{"avast", func() guarded {
		r := avast.New(avast.Attempts(attempts), avast.Delay(baseDelay), avast.MaxDelay(maxDelay))
		return func(ctx context.Context, f func(context.Context) error) error {
			return r.Do(func() error { return f(ctx) })
		}
	}},
	{"eapache", func() guarded {
		return retrier.New(retrier.LimitedExponentialBackoff(attempts-1, baseDelay, maxDelay), nil).RunCtx
	}},
	{"goresilience", func() guarded {
		r := goretry.New(goretry.Config{Times: attempts - 1, WaitBase: baseDelay})
		return func(ctx context.Context, f func(context.Context) error) error { return r.Run(ctx, f) }
	}},
}

// BenchmarkRetryNone is the price of a retry policy when nothing fails, which is
// nearly always.
func BenchmarkRetryNone(b *testing.B) {
	for _, r := range retries {
		b.Run(r.name, func(b *testing.B) {
			do, ctx := r.make(), context.Background()
			both(b, func() {
				if err := do(ctx, succeeds); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkRetryNoneDeadline is the same for a caller with a deadline.
func BenchmarkRetryNoneDeadline(b *testing.B) {
	for _, r := range retries {
		b.Run(r.name, func(b *testing.B) {
			do := r.make()
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
