package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

// ErrInvalidLimit says that a [Limit] cannot be used; the error that wraps it
// names the field and what it may be.
var ErrInvalidLimit = errors.New("invalid rate limit")

// The bounds of a Limit.
const (
	maxRequests = 1_000_000_000
	maxWindow   = 366 * 24 * time.Hour
	maxDebt     = 1 << 61 // nanoseconds; leaves room to add to a Unix time
)

// Limit is a rate and how much of it may be used at once.
type Limit struct {
	Requests int           // how many requests in a Window, 1 to 1e9
	Window   time.Duration // 1 ms to 366 days
	Burst    int           // how many at once after a quiet time, 1 to 1e9; 0 means Requests
	Name     string        // the policy's name in headers: letters, digits, '-', '_', '.', at most 64; empty means "default"
}

// Validate returns nil if the limit can be used, or an error that wraps
// [ErrInvalidLimit] and names the field and the values it may have.
func (l Limit) Validate() error {
	switch {
	case l.Requests < 1 || l.Requests > maxRequests:
		return fmt.Errorf("%w: Requests is %d: give 1 to %d", ErrInvalidLimit, l.Requests, maxRequests)
	case l.Window < time.Millisecond || l.Window > maxWindow:
		return fmt.Errorf("%w: Window is %v: give 1ms to %v", ErrInvalidLimit, l.Window, maxWindow)
	case l.Burst < 0 || l.Burst > maxRequests:
		return fmt.Errorf("%w: Burst is %d: give 1 to %d, or 0 for the same as Requests", ErrInvalidLimit, l.Burst, maxRequests)
	case !debtFits(l.burst(), l.interval()):
		return fmt.Errorf("%w: Burst is %d, which takes centuries to refill: give at most %d", ErrInvalidLimit, l.Burst, maxDebt/l.interval())
	case len(l.Name) > 64 || strings.ContainsFunc(l.Name, notInName):
		return fmt.Errorf("%w: Name is %.80q: give at most 64 letters, digits, '-', '_' and '.'", ErrInvalidLimit, l.Name)
	}
	return nil
}

func notInName(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		return false
	}
	return true
}

// burst is Burst with its default.
func (l Limit) burst() int {
	if l.Burst == 0 {
		return l.Requests
	}
	return l.Burst
}

// interval is the time one request stands for, in nanoseconds. It is rounded up,
// so that the rate is never exceeded, by as little as that may be.
func (l Limit) interval() int64 {
	return (int64(l.Window) + int64(l.Requests) - 1) / int64(l.Requests)
}

// debtFits tells whether the debt of a whole burst can be counted.
func debtFits(burst int, interval int64) bool {
	hi, lo := bits.Mul64(uint64(burst), uint64(interval))
	return hi == 0 && lo <= maxDebt
}

// Decision is the answer for one request, or for n at once.
type Decision struct {
	Allowed    bool
	Remaining  int           // how many requests would be admitted at once after this one
	Reset      time.Duration // until the whole Burst is available again, if no more are made
	RetryAfter time.Duration // until the refused request would be admitted; 0 if Allowed, or if it never will be (n > Burst)
	Limit      Limit         // the limit that was applied, with Burst filled in
}

// GCRA decides about n requests at the time now, in nanoseconds since any fixed
// moment (not later than 200 years ago), of a client whose state is tat: what the
// call before returned, 0 for a new client. It returns the state to keep, which is
// tat itself if the requests are refused or n is 0. A state not after now is the
// same as none and need not be kept.
//
// n = 0 asks without taking anything; a negative n is the same. More than Burst
// requests at once are never admitted. A tat further ahead than the limit can
// put it (the limit was lowered, the clock set back) counts as one just used up.
// A limit it can't count with (Requests or Window below 1, Burst below 0, or a
// Burst that takes centuries to refill) admits nothing. It checks no more than
// that: see [Limit.Validate].
func GCRA(l Limit, tat, now int64, n int) (int64, Decision) {
	if l.Requests < 1 || l.Window < 1 || l.Burst < 0 {
		return tat, Decision{Limit: l}
	}
	l.Burst = l.burst()
	interval := l.interval()
	if !debtFits(l.Burst, interval) {
		return tat, Decision{Limit: l}
	}
	return gcra(l, interval, tat, now, n)
}

// gcra is GCRA for a valid limit with Burst filled in, and its interval.
func gcra(l Limit, interval, tat, now int64, n int) (int64, Decision) {
	capacity := int64(l.Burst) * interval
	debt := min(max(tat-now, 0), capacity)
	d := Decision{Allowed: true, Limit: l}
	switch {
	case n <= 0:
	case n > l.Burst:
		d.Allowed = false
	default:
		cost := int64(n) * interval
		if wait := debt + cost - capacity; wait > 0 {
			d.Allowed, d.RetryAfter = false, time.Duration(wait)
			break
		}
		debt += cost
		tat = now + debt
	}
	d.Remaining = int((capacity - debt) / interval)
	d.Reset = time.Duration(debt)
	return tat, d
}

// seconds rounds up to whole seconds, so that a client that waits so long has
// waited long enough.
func seconds(d time.Duration) int64 {
	return int64(math.Ceil(d.Seconds()))
}
