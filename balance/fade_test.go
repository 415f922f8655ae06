package balance

import (
	"math"
	"testing"
	"time"
)

func TestFade(t *testing.T) {
	t.Parallel()
	for _, latency := range []float64{1, 12_345, 1e6, 1.99e9} {
		f := func(age time.Duration) float64 {
			return float64(fade(math.Float32bits(float32(latency)), int64(age)/tick))
		}
		for age := -time.Second; age < 3*time.Minute; age += 97 * time.Millisecond {
			want := latency * math.Exp2(-float64(max(age, 0))/float64(halfLife))
			got := f(age)
			if got < want*0.93 || got > want*1.07 {
				t.Fatalf("%g after %v fades to %g, want %g", latency, age, got, want)
			}
			if next := f(age + time.Millisecond); next > got {
				t.Fatalf("%g rises at %v: %g, then %g", latency, age, got, next)
			}
		}
		for age, want := range map[time.Duration]float64{
			-time.Hour: latency, 0: latency, 2 * halfLife: latency / 4,
		} {
			if got := f(age); math.Abs(got-want) > want*2e-2 {
				t.Errorf("%g after %v fades to %g, want %g", latency, age, got, want)
			}
		}
	}
	for _, age := range []int64{1 << 30, 1 << 32} {
		short, long := fade(math.Float32bits(1e6), age), fade(math.Float32bits(1e9), age)
		if short <= 0 || long <= short || long >= 1 {
			t.Errorf("after %d ticks 1 ms fades to %g and 1 s to %g; want next to nothing, in that order", age, short, long)
		}
	}
	for _, age := range []int64{-1, 0, 1, 1 << 32} {
		if got := fade(0, age); got != 0 {
			t.Errorf("nothing fades to %g", got)
		}
	}
}

// The plain average: what share of failures, or of slow calls, makes it how great.
func TestMean(t *testing.T) {
	t.Parallel()
	const ms = float64(time.Millisecond)
	for name, tc := range map[string]struct {
		every       int // one call of so many is
		slow        float64
		failed      bool
		since       time.Duration
		least, most float64
	}{
		"all alike":             {1, 5 * ms, false, time.Millisecond, 5 * ms, 5 * ms},
		"one of 100 slow":       {100, 55 * ms, false, time.Millisecond, 5.2 * ms, 6.2 * ms},
		"one of 30 fails":       {30, 5 * ms, true, time.Millisecond, 8 * ms, 12 * ms},
		"one of ten fails":      {10, 5 * ms, true, time.Millisecond, 1000 * ms, float64(maxPenalty)},
		"all fail":              {1, 5 * ms, true, time.Millisecond, float64(maxPenalty), float64(maxPenalty)},
		"rare calls count more": {2, 15 * ms, false, time.Minute, 11 * ms, 12 * ms}, // half of the last, a quarter of that before ...
	} {
		mean := 0.0
		for i := 1; i <= 12_000; i++ {
			latency, failed := 5*ms, false
			if i%tc.every == 0 {
				latency, failed = tc.slow, tc.failed
			}
			mean = include(mean, latency, tc.since, failed)
		}
		if mean < tc.least*.99 || mean > tc.most*1.01 {
			t.Errorf("%s: mean %.2f ms, want %.2f to %.2f", name, mean/ms, tc.least/ms, tc.most/ms)
		}
	}
	if got := include(0, 3, 0, true); got != float64(unknownLatency) {
		t.Errorf("a failure, and nothing known: %g", got)
	}
	if got := include(0, 0, 0, false); got == 0 {
		t.Error("a call that took no time leaves the mean unknown")
	}
}
