package retry

import (
	"fmt"
	"math"
	"time"
)

// The defaults of [Backoff]. 25 ms is a few times what a call in one data centre
// takes, so the first retry is not in the same moment as what failed; doubling
// gives the other side room; and after 1 s a person waiting does not come back
// sooner for having waited longer.
const (
	DefaultBase   = 25 * time.Millisecond
	DefaultMax    = time.Second
	DefaultFactor = 2
)

// Backoff says how long to wait before a retry: any time from 0 to a limit that
// grows with each retry ("full jitter"). Many callers that failed in the same
// moment so come back spread out evenly, not together. A zero field is its
// default.
type Backoff struct {
	Base   time.Duration // the limit before the first retry; the default is 25 ms
	Max    time.Duration // the limit never grows beyond it; the default is 1 s, or Base if that is more
	Factor float64       // the limit grows by it with each retry, 1 or more; the default is 2
}

// Delay returns how long to wait before a retry, 1 being the first one: random of
// the way, 0 to 1, from 0 to min(Max, Base·Factor^(retry-1)). It does not overflow,
// whatever it is given, and is safe for concurrent use.
func (b Backoff) Delay(retry int, random float64) time.Duration {
	b = b.withDefaults()
	limit := min(float64(b.Base)*math.Pow(b.Factor, float64(max(retry, 1)-1)), float64(b.Max))
	if !(random > 0) {
		return 0
	}
	// What is no number is not less; and as a float64 the longest Duration is one
	// more than fits in it.
	if d := min(random, 1) * limit; d < float64(b.Max) {
		return max(time.Duration(d), 0)
	}
	return max(b.Max, 0)
}

func (b Backoff) withDefaults() Backoff {
	if b.Base == 0 {
		b.Base = DefaultBase
		if b.Max > 0 {
			b.Base = min(b.Base, b.Max)
		}
	}
	if b.Max == 0 {
		b.Max = max(DefaultMax, b.Base)
	}
	if b.Factor == 0 {
		b.Factor = DefaultFactor
	}
	return b
}

func (b Backoff) check() error {
	switch {
	case b.Base < 0:
		return fmt.Errorf("Backoff.Base is %v: give more than 0, or 0 for %v", b.Base, DefaultBase)
	case b.Max < 0 || (b.Max > 0 && b.Max < b.Base):
		return fmt.Errorf("Backoff.Max is %v: give at least the Base, %v, or 0 for %v", b.Max, b.Base, DefaultMax)
	case b.Factor != 0 && !(b.Factor >= 1 && b.Factor <= math.MaxFloat64):
		return fmt.Errorf("Backoff.Factor is %v: give 1 or more, or 0 for %d", b.Factor, DefaultFactor)
	}
	return nil
}
