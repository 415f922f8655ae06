package breaker_test

import (
	"context"
	"testing"
	"time"

	"github.com/keelson-go/keelson/breaker"
)

// both runs f alone and in parallel.
func both(b *testing.B, f func()) {
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

func viaDo(br *breaker.Breaker) func() {
	ctx := context.Background()
	return func() { _ = br.Do(ctx, succeeds) }
}

func viaValue(br *breaker.Breaker) func() {
	ctx := context.Background()
	return func() {
		_, _ = breaker.Do(ctx, br, func(context.Context) (int, error) { return 1, nil })
	}
}

func viaPermit(br *breaker.Breaker) func() {
	return func() {
		if p, err := br.Allow(); err == nil {
			p.Success()
		}
	}
}

func BenchmarkClosedDo(b *testing.B)     { both(b, viaDo(newBreaker(b))) }
func BenchmarkClosedValue(b *testing.B)  { both(b, viaValue(newBreaker(b))) }
func BenchmarkClosedPermit(b *testing.B) { both(b, viaPermit(newBreaker(b))) }

func BenchmarkClosedCountWindow(b *testing.B) {
	both(b, viaDo(newBreaker(b, breaker.SlidingWindow(breaker.Window{Calls: 100, FailureRate: 0.5}))))
}

func BenchmarkClosedTimeWindowSlow(b *testing.B) {
	both(b, viaDo(newBreaker(b, breaker.SlidingWindow(breaker.Window{Time: 10 * time.Second, FailureRate: 0.5, SlowRate: 0.5, SlowCall: time.Second}))))
}

func BenchmarkClosedTimeout(b *testing.B) {
	both(b, viaDo(newBreaker(b, breaker.Timeout(time.Minute))))
}

func BenchmarkOpenDo(b *testing.B) {
	br := newBreaker(b, breaker.OpenTime(time.Hour))
	trip(b, br)
	both(b, viaDo(br))
}

func BenchmarkOpenPermit(b *testing.B) {
	br := newBreaker(b, breaker.OpenTime(time.Hour))
	trip(b, br)
	both(b, viaPermit(br))
}

func TestAllocations(t *testing.T) {
	window := breaker.SlidingWindow(breaker.Window{Time: 10 * time.Second, FailureRate: 0.5, SlowRate: 0.5, SlowCall: time.Second})
	open := newBreaker(t, breaker.OpenTime(time.Hour))
	trip(t, open)
	for name, f := range map[string]func(){
		"closed, Do":     viaDo(newBreaker(t)),
		"closed, value":  viaValue(newBreaker(t)),
		"closed, permit": viaPermit(newBreaker(t)),
		"closed, window": viaDo(newBreaker(t, window)),
		"open, Do":       viaDo(open),
		"open, permit":   viaPermit(open),
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations a call", name, n)
		}
	}
}
