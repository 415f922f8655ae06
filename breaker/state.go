package breaker

import (
	"errors"
	"fmt"
	"time"
)

// State is what a breaker does with calls.
type State uint8

// The states; see the package comment.
const (
	Closed State = iota
	Open
	HalfOpen
)

var stateNames = [...]string{Closed: "closed", Open: "open", HalfOpen: "half-open"}

// String returns "closed", "open" or "half-open".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText writes the state as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("breaker: unknown state %.20q: use closed, open or half-open", text)
}

// ErrOpen says that the breaker did not let a call through; the error that wraps it
// is an [*OpenError].
var ErrOpen = errors.New("circuit breaker is open")

// ErrTimeout says that the breaker's [Timeout] ended a call.
var ErrTimeout = errors.New("call exceeded the breaker's timeout")

// OpenError is the error for a call that was not let through. It is shared between
// calls and must not be changed.
type OpenError struct {
	Name  string    // the breaker
	State State     // Open, or HalfOpen if all probes are under way
	Until time.Time // when the first probe is admitted; zero if half-open
}

// Error names the breaker.
func (e *OpenError) Error() string { return e.Name + ": " + ErrOpen.Error() }

// Unwrap returns [ErrOpen].
func (e *OpenError) Unwrap() error { return ErrOpen }

// RetryAfter returns the time from now until a call may be let through, 0 if that
// is soon: when the open time is over or a probe is under way.
func (e *OpenError) RetryAfter() time.Duration {
	if e.Until.IsZero() {
		return 0
	}
	return max(time.Until(e.Until), 0)
}

// Change is one change of a breaker's state.
type Change struct {
	Name     string // the breaker
	From, To State
	At       time.Time
}

// OnStateChange adds a listener. Listeners are called one after another, in the
// order of the changes, by the call that changed the state, before that call
// returns or, if another call is just telling listeners, by that one. No lock is
// held: a listener may use the breaker. It should be quick, as a call waits for it.
// What a listener panics with goes up to that call.
func (b *Breaker) OnStateChange(f func(Change)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners = append(b.listeners, f)
}

// tell calls the listeners for what is in the queue. Only one goroutine does so at
// a time, which keeps the order; it goes on until the queue is empty.
func (b *Breaker) tell() {
	for b.tellNext() {
	}
}

func (b *Breaker) tellNext() bool {
	b.mu.Lock()
	if b.telling || len(b.queue) == 0 {
		b.mu.Unlock()
		return false
	}
	change, listeners := b.queue[0], b.listeners
	b.queue = b.queue[1:]
	b.telling = true
	b.mu.Unlock()
	defer func() { // also if a listener panics
		b.mu.Lock()
		b.telling = false
		b.mu.Unlock()
	}()
	for _, f := range listeners {
		f(change)
	}
	return true
}

// State returns the state the breaker is in now. If the open time is over, that is
// HalfOpen.
func (b *Breaker) State() State { return b.period().state }

// period returns the current period, after ending an open one whose time is over.
func (b *Breaker) period() *period {
	p := b.current.Load()
	if p.state != Open || b.now() < p.until {
		return p
	}
	b.mu.Lock()
	p = b.halfOpenIfDue(b.now())
	b.mu.Unlock()
	b.tell()
	return p
}

// Metrics counts what happened since the breaker was made.
type Metrics struct {
	Requests  uint64 `json:"requests"`  // calls let through that have ended: the sum of the next three
	Successes uint64 `json:"successes"` // calls that ended well
	Failures  uint64 `json:"failures"`  // calls that failed, timeouts included
	Cancelled uint64 `json:"cancelled"` // calls given up by their callers
	Timeouts  uint64 `json:"timeouts"`  // failures because the time was over
	Slow      uint64 `json:"slow"`      // calls slower than the window's SlowCall, failed or not
	Rejected  uint64 `json:"rejected"`  // calls not let through
	Opens     uint64 `json:"opens"`     // how often the breaker opened

	StateChangedAt time.Time `json:"stateChangedAt"`    // when the state was entered; for a breaker that never opened, when it was made
	OpenedAt       time.Time `json:"openedAt,omitzero"` // when it last opened
}

// Metrics returns the counters. Each is exact; calls that end meanwhile may be in
// some and not yet in others.
func (b *Breaker) Metrics() Metrics { return b.Snapshot().Metrics }

// Snapshot is a breaker's state for people and dashboards.
type Snapshot struct {
	State        State   `json:"state"`
	FailureCount int64   `json:"failureCount"` // failures in a row; while open, as many as there were when it opened
	Metrics      Metrics `json:"metrics"`
}

// Snapshot returns the state and the counters.
func (b *Breaker) Snapshot() Snapshot {
	p := b.period()
	m := Metrics{
		Successes:      b.successes.Load(),
		Failures:       b.failures.Load(),
		Cancelled:      b.cancelled.Load(),
		Timeouts:       b.timeouts.Load(),
		Slow:           b.slows.Load(),
		Rejected:       b.rejected.Load(),
		StateChangedAt: p.since,
	}
	m.Requests = m.Successes + m.Failures + m.Cancelled
	b.mu.Lock()
	m.Opens, m.OpenedAt = b.opens, b.openedAt
	b.mu.Unlock()
	return Snapshot{State: p.state, FailureCount: p.failures.Load(), Metrics: m}
}
