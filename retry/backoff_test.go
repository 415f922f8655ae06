package retry_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/retry"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	half := retry.Backoff{Base: 10 * ms, Max: 65 * ms, Factor: 2}
	tests := []struct {
		backoff retry.Backoff
		retry   int
		random  float64
		want    time.Duration
	}{
		{half, 1, 0.5, 5 * ms},
		{half, 2, 0.5, 10 * ms},
		{half, 3, 0.5, 20 * ms},
		{half, 4, 0.5, 65 * ms / 2},
		{half, math.MaxInt, 0.5, 65 * ms / 2},
		{half, 1, 0, 0},
		{half, 0, 0.5, 5 * ms},
		{half, math.MinInt, 0.5, 5 * ms},
		{half, 9, 7, 65 * ms},
		{half, 9, -7, 0},
		{half, 9, math.NaN(), 0},
		{retry.Backoff{}, 1, 1, 25 * ms},
		{retry.Backoff{}, 6, 1, 800 * ms},
		{retry.Backoff{}, 7, 1, time.Second},
		{retry.Backoff{Max: 5 * ms}, 1, 1, 5 * ms},
		{retry.Backoff{Base: time.Minute}, 5, 1, time.Minute},
		{retry.Backoff{Factor: 1}, 100, 1, 25 * ms},
		{retry.Backoff{Base: 1, Max: math.MaxInt64}, 1000, 1, math.MaxInt64},
		{retry.Backoff{Base: math.MaxInt64}, 1, 1, math.MaxInt64},
	}
	for _, tt := range tests {
		if got := tt.backoff.Delay(tt.retry, tt.random); got != tt.want {
			t.Errorf("%+v.Delay(%d, %v) = %v, want %v", tt.backoff, tt.retry, tt.random, got, tt.want)
		}
	}
}

func TestDelayBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(p *rapid.T) {
		b := retry.Backoff{
			Base:   time.Duration(rapid.Int64Min(1).Draw(p, "base")),
			Factor: rapid.Float64Range(1, math.MaxFloat64).Draw(p, "factor"),
		}
		b.Max = time.Duration(rapid.Int64Min(int64(b.Base)).Draw(p, "max"))
		n := rapid.IntMax(math.MaxInt-1).Draw(p, "retry")
		random := rapid.Float64Range(0, 1).Draw(p, "random")
		d := b.Delay(n, random)
		if d < 0 || d > b.Max {
			p.Errorf("%v is not within 0 and %v", d, b.Max)
		}
		if limit := float64(b.Base) * math.Pow(b.Factor, float64(max(n, 1)-1)); float64(d) > limit {
			p.Errorf("%v is beyond %v", d, limit)
		}
		// A part in a billion may go by rounding, with factors next to 1.
		if more := b.Delay(max(n, 1)+1, random); more < d-d/1e9-1 {
			p.Errorf("retry %d waits %v, the next one %v", n, d, more)
		}
	})
}

// Even a Backoff that Check refuses waits neither for a negative time nor for ever.
func TestDelayOfNonsense(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(p *rapid.T) {
		b := retry.Backoff{
			Base:   time.Duration(rapid.Int64().Draw(p, "base")),
			Max:    time.Duration(rapid.Int64().Draw(p, "max")),
			Factor: rapid.Float64().Draw(p, "factor"),
		}
		d := b.Delay(rapid.Int().Draw(p, "retry"), rapid.Float64().Draw(p, "random"))
		if d < 0 || (b.Max != 0 && d > max(b.Max, 0)) {
			p.Errorf("%+v waits %v", b, d)
		}
	})
}
