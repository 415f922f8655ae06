package outlier

import (
	"errors"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// Config says when an instance is an outlier, and what happens to it then. A field that
// is zero has its default; a rule whose field is negative is off.
type Config struct {
	// Consecutive failures in a row eject an instance, up to 32; the default is 5. That
	// is as many as Envoy takes: one instance that fails one call in ten by chance comes
	// to it once in 100,000 calls, a dead one within five. Less than three are never
	// enough: that may be chance even where hardly any call fails.
	Consecutive int

	// FailureRate is the share of failed calls, up to 1, from which on an instance is
	// ejected; the default is 0.3. It can be far below the 0.85 of Envoy and gRPC,
	// because it also has to be twice that of other instances.
	FailureRate float64

	// MinCalls is how many calls FailureRate and SlowFactor need, 1 to 1,000,000; the
	// default is 20, among which less than the FailureRate is hardly chance.
	MinCalls int

	// Interval is how long calls count in full, 10 ms to 1 h; the default is 10 s. In
	// the next one they count half, and so on, so that rare calls are not forgotten
	// before there are MinCalls.
	Interval time.Duration

	// SlowFactor is how many times as long as at the median of the instances calls
	// must take, above 1, until an instance is ejected; the default is 5. Less is what
	// the latency-aware pickers are for. It also has to be 5 ms more, since below that
	// a pause of the garbage collector makes the difference.
	SlowFactor float64

	// EjectTime is for how long an instance is ejected at first, 10 ms or more; the
	// default is 5 s. It doubles each time the instance is ejected again soon after it
	// came back. It can be shorter than the 30 s of Envoy and gRPC, because an
	// instance that comes back has to prove itself on single calls.
	EjectTime time.Duration

	// MaxEjectTime is the longest time, EjectTime to a year; the default is a minute, or
	// EjectTime if that is longer: what is dead for good costs one call a minute.
	MaxEjectTime time.Duration

	// MaxEjected is the share of the instances that may be out at the same time, up to
	// 1; the default is 0.5. It is rounded down, but one of two or more may always go,
	// and the last one never. When more are bad the service is, and sending everything
	// to the rest would break that, too.
	MaxEjected float64

	// SlowStart is the time in which the share of an instance that has come back grows
	// to the whole; see [balance.Endpoint.SlowStart]. The default is
	// [balance.DefaultSlowStart], the most a year. Negative: it has its whole share at
	// once.
	SlowStart time.Duration
}

// Check returns an error that names the first field that is out of range and says what
// it may be.
func (c Config) Check() error {
	_, err := c.complete()
	return err
}

// complete fills in the defaults.
func (c Config) complete() (Config, error) {
	given := c
	orDefault(&c.Consecutive, 5)
	orDefault(&c.FailureRate, 0.3)
	orDefault(&c.MinCalls, 20)
	orDefault(&c.Interval, 10*time.Second)
	orDefault(&c.SlowFactor, 5)
	orDefault(&c.EjectTime, 5*time.Second)
	orDefault(&c.MaxEjectTime, max(time.Minute, c.EjectTime))
	orDefault(&c.MaxEjected, 0.5)
	orDefault(&c.SlowStart, balance.DefaultSlowStart)
	const year = 365 * 24 * time.Hour // so that no sum of times overflows
	switch {
	case c.Consecutive > 32: // as many as a member remembers
		return c, fmt.Errorf("outlier: Consecutive is %d: use 1 to 32, or a negative number to switch the rule off", given.Consecutive)
	case !(c.FailureRate <= 1): // NaN too
		return c, fmt.Errorf("outlier: FailureRate is %v: use more than 0 and up to 1, or a negative number to switch the rule off", given.FailureRate)
	case c.MinCalls < 1 || c.MinCalls > 1_000_000:
		return c, fmt.Errorf("outlier: MinCalls is %d: use 1 to 1,000,000", given.MinCalls)
	case c.Interval < 10*time.Millisecond || c.Interval > time.Hour:
		return c, fmt.Errorf("outlier: Interval is %v: use 10ms to 1h", given.Interval)
	case c.SlowFactor >= 0 && !(c.SlowFactor > 1) || c.SlowFactor != c.SlowFactor:
		return c, fmt.Errorf("outlier: SlowFactor is %v: use more than 1, or a negative number to switch the rule off", given.SlowFactor)
	case c.EjectTime < 10*time.Millisecond:
		return c, fmt.Errorf("outlier: EjectTime is %v: use 10ms or more", given.EjectTime)
	case c.EjectTime > year:
		return c, fmt.Errorf("outlier: EjectTime is %v: use up to a year", given.EjectTime)
	case c.MaxEjectTime < c.EjectTime || c.MaxEjectTime > year:
		return c, fmt.Errorf("outlier: MaxEjectTime is %v: use EjectTime, which is %v, to a year", given.MaxEjectTime, c.EjectTime)
	case c.SlowStart > year:
		return c, fmt.Errorf("outlier: SlowStart is %v: use up to a year, or a negative time to switch it off", given.SlowStart)
	case !(c.MaxEjected >= 0 && c.MaxEjected <= 1):
		return c, fmt.Errorf("outlier: MaxEjected is %v: use more than 0 and up to 1", given.MaxEjected)
	case c.Consecutive < 0 && c.FailureRate < 0 && c.SlowFactor < 0:
		return c, errors.New("outlier: Consecutive, FailureRate and SlowFactor are all off: leave one on, or use no detector")
	}
	return c, nil
}

func orDefault[T int | float64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// allowed returns how many of n instances may be out at the same time.
func (c *Config) allowed(n int) int {
	return min(max(int(c.MaxEjected*float64(n)), 1), max(n-1, 0))
}
