package breaker

import (
	"fmt"
	"math"
	"time"
)

// Option changes one of a breaker's defaults.
type Option func(*config)

type config struct {
	consecutive    int64
	window         Window
	openTime       time.Duration
	growth         float64
	maxOpenTime    time.Duration
	jitter         float64
	probes         int
	probeSuccesses int
	probeLease     time.Duration
	timeout        time.Duration
	isFailure      func(error) bool
}

// ConsecutiveFailures opens the breaker after n failures in a row; the default is
// 5. 0 switches the rule off, which needs a [SlidingWindow].
func ConsecutiveFailures(n int) Option { return func(c *config) { c.consecutive = int64(n) } }

// Window describes a sliding window over the last calls, and how bad they may be.
type Window struct {
	Calls int           // look at so many last calls, 1 to 100,000; or:
	Time  time.Duration // look at the calls of so much last time, 10 ms to 1 h, in steps of a tenth

	MinCalls    int           // judge only if there are so many calls; the default is 10, or Calls if that is less
	FailureRate float64       // open if this share of the calls failed, above 0 and up to 1; 0 = do not look
	SlowRate    float64       // open if this share of the calls was slow, above 0 and up to 1; 0 = do not look
	SlowCall    time.Duration // a call that took so long is slow; needed with SlowRate
}

// SlidingWindow also opens the breaker when the calls in the window fail too often
// or are too slow. It is added to the rule of [ConsecutiveFailures]. With a
// SlowRate a slow probe counts as a failed one.
func SlidingWindow(w Window) Option { return func(c *config) { c.window = w } }

// OpenTime sets for how long calls are refused before the first probe; the default
// is 30 s.
func OpenTime(d time.Duration) Option { return func(c *config) { c.openTime = d } }

// OpenGrowth multiplies the open time by factor, 1 or more, each time a probe
// fails, up to limit. It starts anew once the breaker has closed. The default is
// no growth.
func OpenGrowth(factor float64, limit time.Duration) Option {
	return func(c *config) { c.growth, c.maxOpenTime = factor, limit }
}

// OpenJitter makes each open time longer or shorter at random, by up to this share
// of it, 0 to 1, so that many breakers do not probe at the same moment. The default is
// 0.
func OpenJitter(share float64) Option { return func(c *config) { c.jitter = share } }

// Probes sets how many calls may be under way at once when half-open, 1 to 1000;
// the default is 1.
func Probes(n int) Option { return func(c *config) { c.probes = n } }

// ProbeSuccesses sets how many probes must succeed until the breaker closes, 1 or
// more; the default is 1.
func ProbeSuccesses(n int) Option { return func(c *config) { c.probeSuccesses = n } }

// ProbeLease sets after what time a probe that has not ended loses its place to
// the next call; the default is 30 s. The lost probe's result counts no more.
func ProbeLease(d time.Duration) Option { return func(c *config) { c.probeLease = d } }

// Timeout limits each call by [Breaker.Do] to d: its context ends then. It has no
// effect on [Breaker.Allow]. The default, 0, is no limit but the caller's own.
func Timeout(d time.Duration) Option { return func(c *config) { c.timeout = d } }

// IsFailure sets which errors are failures; those for which f returns false count
// as a success (a 404 shows that the other side works). f is not asked for nil, nor
// when the caller has cancelled. The default is every error.
func IsFailure(f func(err error) bool) Option { return func(c *config) { c.isFailure = f } }

func newConfig(opts []Option) (config, error) {
	c := config{
		consecutive:    5,
		openTime:       30 * time.Second,
		growth:         1,
		maxOpenTime:    30 * time.Second,
		probes:         1,
		probeSuccesses: 1,
		probeLease:     30 * time.Second,
		isFailure:      func(error) bool { return true },
	}
	for _, opt := range opts {
		opt(&c)
	}
	if c.growth == 1 {
		c.maxOpenTime = c.openTime
	}
	hasWindow := c.window != Window{}
	switch {
	case c.consecutive < 0:
		return c, fmt.Errorf("ConsecutiveFailures is %d: give 1 or more, or 0 to switch the rule off", c.consecutive)
	case c.consecutive == 0 && !hasWindow:
		return c, fmt.Errorf("ConsecutiveFailures is 0 and there is no SlidingWindow, so it would never open: give one of them")
	case c.openTime <= 0:
		return c, fmt.Errorf("OpenTime is %v: give more than 0", c.openTime)
	case !(c.growth >= 1):
		return c, fmt.Errorf("OpenGrowth's factor is %v: give 1 or more", c.growth)
	case c.maxOpenTime < c.openTime:
		return c, fmt.Errorf("OpenGrowth's limit is %v: give at least the OpenTime, %v", c.maxOpenTime, c.openTime)
	case !(c.jitter >= 0 && c.jitter <= 1):
		return c, fmt.Errorf("OpenJitter is %v: give 0 to 1", c.jitter)
	case c.probes < 1 || c.probes > 1000:
		return c, fmt.Errorf("Probes is %d: give 1 to 1000", c.probes)
	case c.probeSuccesses < 1:
		return c, fmt.Errorf("ProbeSuccesses is %d: give 1 or more", c.probeSuccesses)
	case c.probeLease <= 0:
		return c, fmt.Errorf("ProbeLease is %v: give more than 0", c.probeLease)
	case c.timeout < 0:
		return c, fmt.Errorf("Timeout is %v: give more than 0, or 0 for none", c.timeout)
	case c.isFailure == nil:
		return c, fmt.Errorf("IsFailure is nil: give a function, or leave it out")
	}
	c.probeLease = min(c.probeLease, math.MaxInt64/4) // now plus it must not overflow
	if hasWindow {
		return c, c.window.normalize()
	}
	return c, nil
}

func (w *Window) normalize() error {
	if w.MinCalls == 0 {
		w.MinCalls = 10
		if w.Calls > 0 {
			w.MinCalls = min(w.MinCalls, w.Calls)
		}
	}
	isRate := func(r float64) bool { return r >= 0 && r <= 1 }
	switch {
	case (w.Calls == 0) == (w.Time == 0):
		return fmt.Errorf("SlidingWindow has Calls %d and Time %v: give one of them", w.Calls, w.Time)
	case w.Calls < 0 || w.Calls > 100_000:
		return fmt.Errorf("SlidingWindow's Calls is %d: give 1 to 100000", w.Calls)
	case w.Time != 0 && (w.Time < 10*time.Millisecond || w.Time > time.Hour):
		return fmt.Errorf("SlidingWindow's Time is %v: give 10ms to 1h", w.Time)
	case w.MinCalls < 1 || (w.Calls > 0 && w.MinCalls > w.Calls):
		return fmt.Errorf("SlidingWindow's MinCalls is %d: give 1 or more, and not more than Calls", w.MinCalls)
	case !isRate(w.FailureRate) || !isRate(w.SlowRate):
		return fmt.Errorf("SlidingWindow's FailureRate is %v, SlowRate is %v: give 0 to 1", w.FailureRate, w.SlowRate)
	case w.FailureRate == 0 && w.SlowRate == 0:
		return fmt.Errorf("SlidingWindow has no FailureRate and no SlowRate: give one of them")
	case w.SlowCall < 0 || (w.SlowRate > 0) != (w.SlowCall > 0):
		return fmt.Errorf("SlidingWindow's SlowRate is %v, SlowCall is %v: give both or none", w.SlowRate, w.SlowCall)
	}
	return nil
}
