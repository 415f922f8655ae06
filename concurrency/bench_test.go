package concurrency_test

import (
	"testing"

	"github.com/keelson-go/keelson/concurrency"
)

// full returns a limiter with no room left.
func full(tb testing.TB) *concurrency.Limiter {
	l := newLimiter(tb, concurrency.Fixed(1))
	if _, err := l.TryAcquire(concurrency.Normal); err != nil {
		tb.Fatal(err)
	}
	return l
}

func calls(l *concurrency.Limiter) func() {
	return func() {
		if t, err := l.TryAcquire(concurrency.Normal); err == nil {
			t.Of("GET /users/{id}").Success()
		}
	}
}

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

func BenchmarkFixed(b *testing.B)    { both(b, calls(newLimiter(b, concurrency.Fixed(1024)))) }
func BenchmarkAdaptive(b *testing.B) { both(b, calls(newLimiter(b))) }
func BenchmarkRefused(b *testing.B)  { both(b, calls(full(b))) }

func TestAllocations(t *testing.T) {
	for name, l := range map[string]*concurrency.Limiter{
		"fixed": newLimiter(t, concurrency.Fixed(10)), "adaptive": newLimiter(t), "refused": full(t),
	} {
		f := calls(l)
		f() // the first call makes the kind
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations a call", name, n)
		}
	}
}
