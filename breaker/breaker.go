package breaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker guards the calls to one dependency. Use [New] to make one.
type Breaker struct {
	name   string
	config config
	epoch  time.Time // times below are relative to it
	timed  bool      // whether a call in the closed state needs the clock

	current atomic.Pointer[period]

	mu        sync.Mutex // guards changes of current, the probes of a half-open period, and:
	reopened  int        // probes failed since the breaker was last closed
	opens     uint64
	openedAt  time.Time
	queue     []Change // not yet told to the listeners
	telling   bool
	listeners []func(Change)

	// The counters are written by every call and have cache lines of their own, so
	// that they do not slow down reading the fields above.
	_                                                         [64]byte
	successes, failures, timeouts, cancelled, rejected, slows atomic.Uint64
	_                                                         [64]byte
}

// period is the time from one change of state to the next. A permit knows the
// period it was given in, so that a late result is recognised.
type period struct {
	state    State
	since    time.Time
	failures atomic.Int64 // in a row; carried over into open and half-open to be shown

	window *window // closed, with a SlidingWindow

	until   time.Duration // open: when the first probe is admitted
	refusal *OpenError    // open and half-open; one for all, so that refusing does not allocate

	probes    []probe // half-open
	succeeded int
}

// probe is a place for a call in the half-open state. A free place has expired.
type probe struct {
	id      uint64 // changes with each permit
	expires time.Duration
}

// New returns a closed breaker. name is used in errors and listeners. The error
// says which option is wrong and what it may be.
func New(name string, opts ...Option) (*Breaker, error) {
	if name == "" {
		return nil, errors.New("breaker: the name is empty: give the name of what is called")
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("breaker %q: %w", name, err)
	}
	b := &Breaker{name: name, config: c, epoch: time.Now()}
	b.timed = c.window.Time > 0 || c.window.SlowCall > 0
	b.current.Store(b.closedPeriod())
	return b, nil
}

// Name returns the name the breaker was made with.
func (b *Breaker) Name() string { return b.name }

// now returns the time since epoch, never 0.
func (b *Breaker) now() time.Duration { return time.Since(b.epoch) | 1 }

// Do calls fn, if the breaker admits it, and takes its result into account. It
// returns what fn returns; an [*OpenError] if fn was not called; ctx's error if it
// had ended before; or, if the breaker's [Timeout] ended the call, an error that
// wraps both [ErrTimeout] and what fn returned.
//
// fn runs in the caller's goroutine and gets ctx, with the Timeout as its deadline
// if there is one. Do returns when fn does: fn must heed its context. If fn panics
// or calls runtime.Goexit, that is a failure and goes on up.
func (b *Breaker) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	permit, err := b.Allow()
	if err != nil {
		return err
	}
	return b.run(ctx, permit, fn)
}

// run makes an admitted call. It is apart from Do so that a refusal does not pay
// for the deferred function.
func (b *Breaker) run(ctx context.Context, permit Permit, fn func(ctx context.Context) error) (err error) {
	returned := false
	defer func() {
		if !returned { // panic or Goexit, in fn or in IsFailure
			permit.Failure()
		}
	}()
	if b.config.timeout > 0 {
		err = b.limited(ctx, fn)
	} else {
		err = fn(ctx)
	}
	result := b.judge(err, ctx.Err())
	returned = true
	permit.end(result)
	return err
}

// limited calls fn with the breaker's timeout.
func (b *Breaker) limited(ctx context.Context, fn func(ctx context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, b.config.timeout)
	defer cancel()
	err := fn(within)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w of %v: %w", b.name, ErrTimeout, b.config.timeout, err)
	}
	return err
}

// result is how a call ended.
type result uint8

const (
	success result = iota
	failure
	timeout // a failure too
	cancelled
)

// judge says what a call's error means. callerErr is the error of the caller's
// context after the call.
func (b *Breaker) judge(err, callerErr error) result {
	switch {
	case err == nil:
		return success
	case errors.Is(callerErr, context.Canceled):
		return cancelled
	case !b.config.isFailure(err):
		return success
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ErrTimeout):
		return timeout
	}
	return failure
}

// Allow asks to make one call, for callers that cannot use [Breaker.Do]. If it is
// admitted, the permit must be told how the call ended, once. If not, the error is
// an [*OpenError].
func (b *Breaker) Allow() (Permit, error) {
	p := b.current.Load()
	if p.state == Closed {
		permit := Permit{b: b, period: p}
		if b.timed {
			permit.start = b.now()
		}
		return permit, nil
	}
	now := b.now()
	if p.state == Open && now < p.until {
		b.rejected.Add(1)
		return Permit{}, p.refusal
	}
	return b.allowProbe(now)
}

// allowProbe admits a call if the breaker is half-open and a place is free.
func (b *Breaker) allowProbe(now time.Duration) (Permit, error) {
	b.mu.Lock()
	p := b.halfOpenIfDue(now)
	permit, admitted := Permit{b: b, period: p, start: now}, p.state == Closed
	for i := range p.probes { // none unless half-open
		if slot := &p.probes[i]; slot.expires <= now {
			slot.id++
			slot.expires = now + b.config.probeLease
			permit.slot, permit.id = int32(i), slot.id
			admitted = true
			break
		}
	}
	b.mu.Unlock()
	b.tell()
	if !admitted {
		b.rejected.Add(1)
		return Permit{}, p.refusal
	}
	return permit, nil
}

// halfOpenIfDue ends the open state if its time is over, and returns the period
// that then is. b.mu must be held.
func (b *Breaker) halfOpenIfDue(now time.Duration) *period {
	p := b.current.Load()
	if p.state != Open || now < p.until {
		return p
	}
	next := &period{
		state:   HalfOpen,
		refusal: &OpenError{Name: b.name, State: HalfOpen},
		probes:  make([]probe, b.config.probes),
	}
	next.failures.Store(p.failures.Load())
	b.enter(next)
	return next
}

// endProbe takes the result of a probe into account, unless its place has gone to
// another call.
func (b *Breaker) endProbe(permit Permit, r result, slow bool) {
	b.mu.Lock()
	p := permit.period
	if b.current.Load() == p && p.probes[permit.slot].id == permit.id {
		slot := &p.probes[permit.slot]
		slot.id++ // a permit counts once
		slot.expires = 0
		switch {
		case r == cancelled:
		case r != success || slow:
			p.failures.Add(1)
			b.reopened++
			b.open(p)
		default:
			if p.succeeded++; p.succeeded >= b.config.probeSuccesses {
				b.reopened = 0
				b.enter(b.closedPeriod())
			}
		}
	}
	b.mu.Unlock()
	b.tell()
}

// endCall takes the result of a call of the closed state into account.
func (b *Breaker) endCall(p *period, r result, now time.Duration, slow bool) {
	if r == cancelled {
		return
	}
	trip := false
	if r != success {
		n := p.failures.Add(1)
		trip = b.config.consecutive > 0 && n >= b.config.consecutive
	} else if p.failures.Load() != 0 {
		p.failures.Store(0)
	}
	if p.window != nil && p.window.record(now, r != success, slow) {
		trip = true
	}
	if !trip {
		return
	}
	b.mu.Lock()
	if b.current.Load() == p {
		b.open(p)
	}
	b.mu.Unlock()
	b.tell()
}

// open starts an open period after p. b.mu must be held.
func (b *Breaker) open(p *period) {
	d := float64(b.config.openTime) * math.Pow(b.config.growth, float64(b.reopened))
	d = min(d, float64(b.config.maxOpenTime))
	d += d * b.config.jitter * (2*rand.Float64() - 1)
	length := time.Duration(min(max(d, 1), float64(math.MaxInt64/4)))

	wall := time.Now()
	next := &period{
		state:   Open,
		until:   b.now() + length,
		refusal: &OpenError{Name: b.name, State: Open, Until: wall.Add(length)},
	}
	next.failures.Store(p.failures.Load())
	b.opens++
	b.openedAt = wall
	b.enter(next)
}

func (b *Breaker) closedPeriod() *period {
	p := &period{state: Closed, since: time.Now()}
	if b.config.window != (Window{}) {
		p.window = newWindow(b.config.window, b.now())
	}
	return p
}

// enter makes next the current period. b.mu must be held, and the caller must call
// tell once it has released it.
func (b *Breaker) enter(next *period) {
	next.since = time.Now()
	b.queue = append(b.queue, Change{Name: b.name, From: b.current.Load().state, To: next.state, At: next.since})
	b.current.Store(next)
}
