package concurrency

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Option changes one of a limiter's defaults.
type Option func(*config)

type config struct {
	fixed     int
	isFixed   bool
	adaptive  AdaptiveOptions
	isChanged bool // adaptive was given

	queued    bool
	queueSize int
	queueWait time.Duration
}

// Fixed sets a limit of n calls, 1 to 1,000,000, that stays as it is: for what
// has a known number of places, such as a pool of connections.
func Fixed(n int) Option { return func(c *config) { c.fixed, c.isFixed = n, true } }

// AdaptiveOptions change what [Adaptive] does. A zero field is its default.
type AdaptiveOptions struct {
	// Initial is the limit as long as nothing speaks of overload, and again when
	// nothing does any more; by default it is Max. A lower one protects from the
	// first call on, and refuses bursts that would have done no harm.
	Initial int
	// Min is the least the limit may become. The default is 10, or two for each
	// CPU if that is more: with fewer at once the load is no problem, whatever
	// the latency says, and not even the CPUs would be busy.
	Min int
	// Max is the most that may be under way in any case. The default is 10,000:
	// what their stacks and buffers take, some 32 KB each, a small machine can
	// spare.
	Max int
	// Delay is by how much calls may take longer than they do in quiet times
	// before that counts at all; the default is 50 ms. The limit keeps latency at
	// up to twice (the usual and Delay). Less refuses bursts that would be over in
	// a moment; more lets callers with little patience wait in vain.
	Delay time.Duration
}

// The largest limit that can be set: far more than one process can serve, and
// little enough for the arithmetic.
const most = 1_000_000

// Adaptive sets a limit that finds its size by itself; it is the default. See the
// package comment for how.
func Adaptive(o AdaptiveOptions) Option {
	return func(c *config) { c.adaptive, c.isChanged = o, true }
}

// Queue lets up to n calls, 1 to 1,000,000, wait in [Limiter.Acquire] for room,
// each for no longer than wait. Those of higher priority come first; if the queue
// is full they take the place of the last one of lower priority. Waiting costs
// latency, and hides overload from who calls: keep both small. There is none by
// default.
func Queue(n int, wait time.Duration) Option {
	return func(c *config) { c.queued, c.queueSize, c.queueWait = true, n, wait }
}

func newConfig(opts []Option) (config, error) {
	var c config
	for _, opt := range opts {
		opt(&c)
	}
	switch {
	case c.isFixed && c.isChanged:
		return c, errors.New("both Fixed and Adaptive are given: give one of them")
	case c.isFixed && (c.fixed < 1 || c.fixed > most):
		return c, fmt.Errorf("Fixed is %d: give 1 to %d", c.fixed, most)
	case c.queued && (c.queueSize < 1 || c.queueSize > most):
		return c, fmt.Errorf("Queue's n is %d: give 1 to %d, or leave it out", c.queueSize, most)
	case c.queued && c.queueWait <= 0:
		return c, fmt.Errorf("Queue's wait is %v: give more than 0", c.queueWait)
	}
	return c, c.adaptive.normalize()
}

func (o *AdaptiveOptions) normalize() error {
	if o.Max == 0 {
		o.Max = max(10_000, o.Min, o.Initial)
	}
	if o.Min == 0 {
		o.Min = min(max(10, 2*runtime.GOMAXPROCS(0)), o.Max)
		if o.Initial > 0 {
			o.Min = min(o.Min, o.Initial)
		}
	}
	if o.Initial == 0 {
		o.Initial = o.Max
	}
	if o.Delay == 0 {
		o.Delay = 50 * time.Millisecond
	}
	switch {
	case o.Max < 2 || o.Max > most:
		return fmt.Errorf("Adaptive's Max is %d: give 2 to %d", o.Max, most)
	case o.Min < 2 || o.Min > o.Max:
		return fmt.Errorf("Adaptive's Min is %d: give 2 to Max, %d", o.Min, o.Max)
	case o.Initial < o.Min || o.Initial > o.Max:
		return fmt.Errorf("Adaptive's Initial is %d: give Min, %d, to Max, %d", o.Initial, o.Min, o.Max)
	case o.Delay < 0 || o.Delay > time.Hour:
		return fmt.Errorf("Adaptive's Delay is %v: give more than 0, and up to 1h", o.Delay)
	}
	return nil
}
