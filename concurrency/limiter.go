package concurrency

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// A Limiter bounds how many calls are under way at once. Use [New] to make one.
// It is safe for concurrent use. A nil Limiter admits everything.
type Limiter struct {
	epoch    time.Time // times below are relative to it
	adaptive *adaptive // nil if the limit is fixed
	queue    *queue    // nil if nobody waits
	refusals [priorities]LimitError

	limit atomic.Int64
	// A call begins if fewer than this are under way, by its priority.
	room [priorities]atomic.Int64

	// What every call writes has cache lines of its own, so that it does not slow
	// down reading the fields above.
	_        [64]byte
	inFlight atomic.Int64
	admitted [priorities]atomic.Uint64
	_        [64]byte
	rejected [priorities]atomic.Uint64
	_        [64]byte
}

// New returns a limiter, by default one with an [Adaptive] limit and no [Queue].
// The error says which option is wrong and what it may be.
func New(opts ...Option) (*Limiter, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("concurrency: %w", err)
	}
	l := &Limiter{epoch: time.Now()}
	for p := Low; p <= Critical; p++ {
		l.refusals[p.index()].Priority = p
	}
	if c.queueSize > 0 {
		l.queue = newQueue(c.queueSize, c.queueWait)
	}
	if c.fixed > 0 {
		l.setLimit(c.fixed)
		return l, nil
	}
	l.adaptive = newAdaptive(c.adaptive)
	l.setLimit(c.adaptive.Initial)
	return l, nil
}

// setLimit also sets what of the limit each priority may use. Low gives way when
// three quarters are in use, Normal at nine tenths: enough left for those above
// to have a share of their own, not so much that it is missed in quiet times. A
// limit too small to be divided is for all.
func (l *Limiter) setLimit(n int) {
	limit := int64(n)
	l.limit.Store(limit)
	l.room[Low.index()].Store(limit - limit/4)
	l.room[Normal.index()].Store(limit - limit/10)
	l.room[Critical.index()].Store(limit)
}

// now returns the time since epoch.
func (l *Limiter) now() time.Duration { return time.Since(l.epoch) }

// TryAcquire asks to begin a call, and never waits. If there is room, the token
// must be told how the call ended, once. If not, the error is a [*LimitError]. It
// passes by who waits in [Limiter.Acquire].
func (l *Limiter) TryAcquire(p Priority) (Token, error) {
	if l == nil {
		return Token{}, nil
	}
	if !l.take(p.index()) {
		return Token{}, l.refuse(p.index())
	}
	return l.begin(), nil
}

// Acquire is TryAcquire, but with a [Queue] it may wait for room. If ctx has
// ended, before or while it waited, the error wraps ctx's and the call must not
// begin: nobody waits for it any more.
func (l *Limiter) Acquire(ctx context.Context, p Priority) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, fmt.Errorf("concurrency: not begun: %w", err)
	}
	if l == nil {
		return Token{}, nil
	}
	i := p.index()
	if l.queue.waiting() == 0 && l.take(i) {
		return l.begin(), nil
	}
	if l.queue == nil {
		return Token{}, l.refuse(i)
	}
	return l.await(ctx, i)
}

// take counts a call in if there is room for its priority.
func (l *Limiter) take(priority int) bool {
	for {
		n := l.inFlight.Load()
		if n >= l.room[priority].Load() {
			return false
		}
		if l.inFlight.CompareAndSwap(n, n+1) {
			l.admitted[priority].Add(1)
			return true
		}
	}
}

// begin makes the token of a call that was counted in.
func (l *Limiter) begin() Token {
	t := Token{l: l}
	if l.adaptive != nil {
		t.start = l.start()
	}
	return t
}

// refuse counts a refusal.
func (l *Limiter) refuse(priority int) error {
	l.rejected[priority].Add(1)
	if l.adaptive != nil {
		l.hurry()
	}
	return &l.refusals[priority]
}

// Snapshot is what a limiter does at a moment.
type Snapshot struct {
	// Limit is how many calls may be under way now. Of them the last tenth is for
	// Critical calls, and the last quarter not for Low ones.
	Limit    int `json:"limit"`
	InFlight int `json:"inFlight"`
	Queued   int `json:"queued"`
	// Admitted and Rejected are the calls since the start.
	Admitted Counts `json:"admitted"`
	Rejected Counts `json:"rejected"`
}

// Counts are numbers of calls by their priority.
type Counts struct {
	Low      uint64 `json:"low"`
	Normal   uint64 `json:"normal"`
	Critical uint64 `json:"critical"`
}

// Total returns the number of calls of all priorities.
func (c Counts) Total() uint64 { return c.Low + c.Normal + c.Critical }

// Snapshot returns what the limiter does now. Its numbers are read one after
// another, so calls that begin or end meanwhile may be in some and not in others.
// Of a nil Limiter all are 0.
func (l *Limiter) Snapshot() Snapshot {
	if l == nil {
		return Snapshot{}
	}
	return Snapshot{
		Limit:    int(l.limit.Load()),
		InFlight: int(l.inFlight.Load()),
		Queued:   l.queue.waiting(),
		Admitted: counts(&l.admitted),
		Rejected: counts(&l.rejected),
	}
}

func counts(of *[priorities]atomic.Uint64) Counts {
	return Counts{
		Low:      of[Low.index()].Load(),
		Normal:   of[Normal.index()].Load(),
		Critical: of[Critical.index()].Load(),
	}
}
