package resilience_test

import (
	"context"
	"testing"
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/resilience"
	"github.com/keelson-go/keelson/retry"
)

// whole returns a chain that has everything but a Timeout.
func whole(t testing.TB, limit concurrency.Option, opts ...breaker.Option) *resilience.Chain {
	return &resilience.Chain{
		Breaker: newBreaker(t, opts...),
		Limiter: newLimiter(t, limit),
		Retry:   &retry.Policy{Budget: newBudget(t, retry.BudgetOptions{})},
	}
}

func fixed(t testing.TB) *resilience.Chain { return whole(t, concurrency.Fixed(1000)) }

func adaptive(t testing.TB) *resilience.Chain {
	return whole(t, concurrency.Adaptive(concurrency.AdaptiveOptions{}))
}

func withDeadline(c *resilience.Chain) *resilience.Chain {
	c.Timeout = time.Minute
	return c
}

func opened(t testing.TB) *resilience.Chain {
	c := whole(t, concurrency.Fixed(1000), breaker.OpenTime(time.Hour), breaker.ConsecutiveFailures(1))
	_ = c.Do(context.Background(), fails)
	return c
}

func via(c *resilience.Chain) func() {
	ctx := context.Background()
	return func() { _ = c.Do(ctx, succeeds) }
}

func bench(b *testing.B, c *resilience.Chain) {
	f := via(c)
	b.Run("single", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f()
			}
		})
	})
}

func BenchmarkChain(b *testing.B)                 { bench(b, fixed(b)) }
func BenchmarkChainAdaptive(b *testing.B)         { bench(b, adaptive(b)) }
func BenchmarkChainDeadline(b *testing.B)         { bench(b, withDeadline(fixed(b))) }
func BenchmarkChainDeadlineAdaptive(b *testing.B) { bench(b, withDeadline(adaptive(b))) }

// BenchmarkContextWithTimeout is the part of the two above that is the context's.
func BenchmarkContextWithTimeout(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_ = succeeds(ctx)
		cancel()
	}
}

func BenchmarkChainOpen(b *testing.B) { bench(b, opened(b)) }

func TestAllocations(t *testing.T) {
	value := adaptive(t)
	for name, tt := range map[string]struct {
		f    func()
		most float64
	}{
		"fixed":              {via(fixed(t)), 0},
		"adaptive":           {via(adaptive(t)), 0},
		"fixed, deadline":    {via(withDeadline(fixed(t))), 8},
		"adaptive, deadline": {via(withDeadline(adaptive(t))), 8},
		"open":               {via(opened(t)), 2},
		"value": {func() {
			_, _ = resilience.DoValue(context.Background(), value, func(context.Context) (int, error) { return 1, nil })
		}, 0},
	} {
		if n := testing.AllocsPerRun(100, tt.f); n > tt.most {
			t.Errorf("%s: %v allocations a call, want at most %v", name, n, tt.most)
		}
	}
}
