package retry

import (
	"errors"
	"fmt"
	"time"
)

// The other defaults of [Policy]. Most of what a retry can cure, the second one
// cures; further ones mostly add load. A caller that is asked to wait for more than
// 10 s has better things to do than to hold on to what it has in hand.
const (
	DefaultMaxAttempts = 3
	DefaultMaxAfter    = 10 * time.Second
)

// Policy says whether, when and how often to try again. A zero field is its
// default, so the zero Policy is a good one but for its Budget, which many calls
// have to share. A Policy is not changed by use: one may serve all calls.
type Policy struct {
	// MaxAttempts is how often fn is called in all, 1 or more; the default is 3.
	MaxAttempts int
	// Backoff is the wait before each retry.
	Backoff Backoff
	// MaxAfter is the longest wait that an error may ask for (see [After]); if it
	// asks for more there is no retry. The default is 10 s.
	MaxAfter time.Duration
	// AttemptTimeout limits each call of fn; its context ends then. 0 is no limit.
	AttemptTimeout time.Duration
	// TotalTimeout limits all of it, waits included. 0 is no limit but the caller's.
	TotalTimeout time.Duration
	// Budget limits the retries of all calls that share it. nil is no limit.
	Budget *Budget
	// RetryIf says which errors are worth another try. It is not asked about those
	// of [Permanent], nor when the caller's context has ended. The default is every
	// error but an [*Error] and an [ErrBudget]: where retries were made already,
	// retries of retries would multiply the load.
	RetryIf func(err error) bool
	// OnRetry is told of each retry before the wait for it, by the caller's
	// goroutine.
	OnRetry func(Event)
}

// Event is one retry that is going to be made.
type Event struct {
	Attempt int           // the try that failed, from 1
	Err     error         // why it failed
	Delay   time.Duration // the wait before the next try
}

// Check returns an error that names the field that is wrong and what it may be. Do
// checks too.
func (p Policy) Check() error {
	// Each call comes through here, nearly always with nothing below 0.
	if int64(p.MaxAttempts)|int64(p.MaxAfter|p.AttemptTimeout|p.TotalTimeout) >= 0 && p.Backoff == (Backoff{}) {
		return nil
	}
	return p.explain()
}

func (p Policy) explain() error {
	err := p.Backoff.check()
	switch {
	case p.MaxAttempts < 0:
		err = fmt.Errorf("MaxAttempts is %d: give 1 or more, or 0 for %d", p.MaxAttempts, DefaultMaxAttempts)
	case p.MaxAfter < 0:
		err = fmt.Errorf("MaxAfter is %v: give more than 0, or 0 for %v", p.MaxAfter, DefaultMaxAfter)
	case p.AttemptTimeout < 0:
		err = fmt.Errorf("AttemptTimeout is %v: give more than 0, or 0 for none", p.AttemptTimeout)
	case p.TotalTimeout < 0:
		err = fmt.Errorf("TotalTimeout is %v: give more than 0, or 0 for none", p.TotalTimeout)
	}
	if err != nil {
		return fmt.Errorf("retry: Policy.%w", err)
	}
	return nil
}

// attempts returns MaxAttempts or its default.
func (p *Policy) attempts() int {
	if p.MaxAttempts == 0 {
		return DefaultMaxAttempts
	}
	return p.MaxAttempts
}

// wants reports whether err, which is not permanent, is worth another try.
func (p *Policy) wants(err error) bool {
	if p.RetryIf != nil {
		return p.RetryIf(err)
	}
	_, gaveUp := errors.AsType[*Error](err)
	return !gaveUp && !errors.Is(err, ErrBudget)
}

// wait returns how long to wait before the retry after err, and whether err asks
// for more than MaxAfter.
func (p *Policy) wait(err error, retry int, random float64) (d time.Duration, tooLong bool) {
	d = p.Backoff.Delay(retry, random)
	after := askedFor(err)
	limit := p.MaxAfter
	if limit == 0 {
		limit = DefaultMaxAfter
	}
	if after > limit {
		return after, true
	}
	// The two are added: all who were told the same moment would else come in it.
	if d += after; d < 0 {
		return after, true // only if MaxAfter is hundreds of years
	}
	return d, false
}
