package resilience

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	fscb "github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/go-kratos/aegis/circuitbreaker/sre"
	mercari "github.com/mercari/go-circuitbreaker"
	"github.com/slok/goresilience/circuitbreaker"
	"github.com/sony/gobreaker/v2"
	gozero "github.com/zeromicro/go-zero/core/breaker"

	"github.com/keelson-go/keelson/breaker"
)

var errBroken = errors.New("broken")

// guarded calls f through a breaker.
type guarded func(ctx context.Context, f func(context.Context) error) error

// breakers opens after 5 failures in a row, or by 50 % of at least 20 calls where that
// can't be told, and stays open for a minute. go-zero's and aegis' never open: they
// refuse calls with a probability that grows with the failures.
var breakers = []struct {
	name string
	make func() guarded
}{
	{"keelson", func() guarded {
		b, err := breaker.New("users", breaker.OpenTime(time.Minute))
		if err != nil {
			panic(err)
		}
		return b.Do
	}},
	{"keelson-window", func() guarded { // as package client has it
		b, err := breaker.New("users", breaker.OpenTime(time.Minute), breaker.ConsecutiveFailures(0),
			breaker.SlidingWindow(breaker.Window{Calls: 100, MinCalls: 20, FailureRate: 0.5}))
		if err != nil {
			panic(err)
		}
		return b.Do
	}},
	{"gobreaker", func() guarded {
		b := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{Timeout: time.Minute})
		return func(ctx context.Context, f func(context.Context) error) error {
			_, err := b.Execute(func() (struct{}, error) { return struct{}{}, f(ctx) })
			return err
		}
	}},
	{"failsafe-go", func() guarded {
		b := fscb.NewBuilder[any]().WithFailureThreshold(5).WithDelay(time.Minute).Build()
		x := failsafe.With(b)
		return func(ctx context.Context, f func(context.Context) error) error {
			return x.WithContext(ctx).Run(func() error { return f(ctx) })
		}
	}},
	{"failsafe-go-permit", func() guarded {
		b := fscb.NewBuilder[any]().WithFailureThreshold(5).WithDelay(time.Minute).Build()
		return func(ctx context.Context, f func(context.Context) error) error {
			if !b.TryAcquirePermit() {
				return fscb.ErrOpen
			}
			err := f(ctx)
			b.RecordError(err)
			return err
		}
	}},
	{"mercari", func() guarded {
		b := mercari.New(mercari.WithTripFunc(mercari.NewTripFuncConsecutiveFailures(5)), mercari.WithOpenTimeout(time.Minute))
		return func(ctx context.Context, f func(context.Context) error) error {
			_, err := b.Do(ctx, func() (any, error) { return nil, f(ctx) })
			return err
		}
	}},
	{"go-zero", func() guarded {
		b := gozero.NewBreaker()
		return func(ctx context.Context, f func(context.Context) error) error {
			return b.DoCtx(ctx, func() error { return f(ctx) })
		}
	}},
	{"kratos-aegis", func() guarded {
		b := sre.NewBreaker()
		return func(ctx context.Context, f func(context.Context) error) error {
			if err := b.Allow(); err != nil {
				b.MarkFailed()
				return err
			}
			err := f(ctx)
			if err != nil {
				b.MarkFailed()
			} else {
				b.MarkSuccess()
			}
			return err
		}
	}},
	{"goresilience", func() guarded {
		b := circuitbreaker.New(circuitbreaker.Config{WaitDurationInOpenState: time.Minute})
		return func(ctx context.Context, f func(context.Context) error) error { return b.Run(ctx, f) }
	}},
}

func succeeds(context.Context) error { return nil }
func fails(context.Context) error    { return errBroken }

// both runs f alone and in parallel. cpu-ns/op is the process's CPU time.
func both(b *testing.B, f func()) {
	b.Run("single", func(b *testing.B) {
		b.ReportAllocs()
		before := cpu()
		for b.Loop() {
			f()
		}
		b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		before := cpu()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f()
			}
		})
		b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
	})
}

// BenchmarkBreakerClosed is the price of a call that succeeds.
func BenchmarkBreakerClosed(b *testing.B) {
	for _, br := range breakers {
		b.Run(br.name, func(b *testing.B) {
			do, ctx := br.make(), context.Background()
			both(b, func() {
				if err := do(ctx, succeeds); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkBreakerOpen is the price of a call that is refused.
func BenchmarkBreakerOpen(b *testing.B) {
	for _, br := range breakers {
		b.Run(br.name, func(b *testing.B) {
			do, ctx := br.make(), context.Background()
			for range 10_000 {
				_ = do(ctx, fails)
			}
			if err := do(ctx, fails); err == nil {
				b.Fatal("the breaker does not refuse")
			}
			both(b, func() { _ = do(ctx, fails) })
		})
	}
}
