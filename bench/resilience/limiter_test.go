package resilience

import (
	"context"
	"testing"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/platinummonkey/go-concurrency-limits/limit"
	"github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"

	"github.com/keelson-go/keelson/concurrency"
)

// limiters admit up to 200 calls at once; the adaptive ones decide how many of them.
// Each function takes a place and gives it back, with the latency as a sample if it
// is adaptive.
var limiters = []struct {
	name string
	make func() func() bool
}{
	{"keelson-fixed", func() func() bool { return keelsonLimiter(concurrency.Fixed(200)) }},
	{"keelson-adaptive", func() func() bool { return keelsonLimiter(concurrency.Adaptive(concurrency.AdaptiveOptions{})) }},
	{"channel", func() func() bool {
		c := make(chan struct{}, 200)
		return func() bool {
			select {
			case c <- struct{}{}:
				<-c
				return true
			default:
				return false
			}
		}
	}},
	{"failsafe-go-bulkhead", func() func() bool {
		l := bulkhead.New[any](200)
		return func() bool {
			if !l.TryAcquirePermit() {
				return false
			}
			l.ReleasePermit()
			return true
		}
	}},
	{"failsafe-go-adaptive", func() func() bool {
		l := adaptivelimiter.NewWithDefaults[any]()
		return func() bool {
			p, ok := l.TryAcquirePermit()
			if ok {
				p.Record()
			}
			return ok
		}
	}},
	{"concurrency-limits-gradient2", func() func() bool {
		return platinum(limit.NewGradient2Limit("users", 20, 200, 20, nil, 0.2, 600, limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance))
	}},
	{"concurrency-limits-vegas", func() func() bool {
		return platinum(limit.NewDefaultVegasLimit("users", limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance), nil)
	}},
}

func keelsonLimiter(opts ...concurrency.Option) func() bool {
	l, err := concurrency.New(opts...)
	if err != nil {
		panic(err)
	}
	return func() bool {
		token, err := l.TryAcquire(concurrency.Normal)
		if err != nil {
			return false
		}
		token.Success()
		return true
	}
}

func platinum(l core.Limit, err error) func() bool {
	if err != nil {
		panic(err)
	}
	d, err := limiter.NewDefaultLimiter(l, 1e9, 1e9, 1e5, 100, strategy.NewSimpleStrategy(20),
		limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	return func() bool {
		listener, ok := d.Acquire(ctx)
		if ok {
			listener.OnSuccess()
		}
		return ok
	}
}

// BenchmarkLimiter is the price of a call that is admitted.
func BenchmarkLimiter(b *testing.B) {
	for _, l := range limiters {
		b.Run(l.name, func(b *testing.B) {
			take := l.make()
			both(b, func() {
				if !take() {
					b.Error("refused")
				}
			})
		})
	}
}
