package breaker

import (
	"context"
	"errors"
	"time"
)

// Permit is the leave to make one call, given by [Breaker.Allow]. Exactly one of
// its methods must be called, once, when the call is over. It is a small value;
// the zero Permit's methods do nothing. A permit that is never ended does no harm
// in the closed state, and in the half-open state keeps its place until the lease
// is over.
type Permit struct {
	b      *Breaker
	period *period
	start  time.Duration // 0 if the clock was not read
	id     uint64
	slot   int32
}

// Done ends the call with its error: nil is a success, one that wraps
// [context.Canceled] is as [Permit.Cancel], any other a failure if [IsFailure] says
// so and else a success.
func (p Permit) Done(err error) {
	if p.b == nil {
		return
	}
	var callerErr error
	if err != nil && errors.Is(err, context.Canceled) {
		callerErr = context.Canceled
	}
	p.end(p.b.judge(err, callerErr))
}

// Success ends the call as a success.
func (p Permit) Success() { p.end(success) }

// Failure ends the call as a failure.
func (p Permit) Failure() { p.end(failure) }

// Cancel ends the call as neither success nor failure, because the caller gave it
// up or never made it. A probe's place is free again.
func (p Permit) Cancel() { p.end(cancelled) }

func (p Permit) end(r result) {
	b := p.b
	if b == nil {
		return
	}
	b.count(r)
	var now time.Duration
	slow := false
	if b.timed {
		now = b.now()
		if limit := b.config.window.SlowCall; limit > 0 && r != cancelled && now-p.start >= limit {
			slow = true
			b.slows.Add(1)
		}
	}
	if b.current.Load() != p.period {
		return // the state has changed since the call began
	}
	if p.period.state == HalfOpen {
		b.endProbe(p, r, slow)
		return
	}
	b.endCall(p.period, r, now, slow)
}

func (b *Breaker) count(r result) {
	switch r {
	case success:
		b.successes.Add(1)
	case cancelled:
		b.cancelled.Add(1)
	case timeout:
		b.timeouts.Add(1)
		b.failures.Add(1)
	case failure:
		b.failures.Add(1)
	}
}
