package concurrency

import "time"

// A Token is the leave to make one call, given by [Limiter.TryAcquire] and
// [Limiter.Acquire]. Exactly one of Success, Overloaded, Abandoned and Ignore
// must be called, once, when the call is over: one more lets a call too many
// begin, none leaves the place taken for ever. It is a small value; the zero
// Token's methods do nothing. Under a [Fixed] limit all four are the same.
type Token struct {
	l     *Limiter
	kind  *kind
	start time.Duration // when the call began; 0 under a fixed limit
}

// Of returns the token of the same call with the kind of work that it was, such
// as the route: its latency is then compared with that of its like, so that a
// slow route called more often does not look like overload. It may be told as
// late as the end:
//
//	defer func() { token.Of(r.Pattern).Success() }()
//
// The first 256 kinds have a history of their own; all others share one.
func (t Token) Of(kind string) Token {
	if t.l != nil && t.l.adaptive != nil {
		t.kind = t.l.adaptive.kinds.get(kind)
	}
	return t
}

// Success ends a call that ran to its end, well or not, and takes its latency as
// a sample.
func (t Token) Success() { t.end(finished) }

// Overloaded ends a call that failed for lack of capacity: what it called
// dropped it or timed out. It is evidence that the limit is too high.
func (t Token) Overloaded() { t.end(overloaded) }

// Abandoned ends a call whose caller gave up waiting. How long it would have
// taken is not known, only that it was longer than this: it is a sample if that
// is long for its kind, and none if not.
func (t Token) Abandoned() { t.end(abandoned) }

// Ignore ends a call whose latency says nothing about the load: a stream, one
// that was never made.
func (t Token) Ignore() { t.end(ignored) }

// outcome is how a call ended.
type outcome uint8

const (
	finished outcome = iota
	overloaded
	abandoned
	ignored
)

func (t Token) end(how outcome) {
	l := t.l
	if l == nil {
		return
	}
	inFlight := l.inFlight.Add(-1)
	if l.adaptive != nil && how != ignored {
		l.observe(t, how, inFlight)
	}
	if l.queue.waiting() > 0 {
		l.admitWaiting()
	}
}
