package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/retry"
)

// call is one request with all its tries. Only its own goroutine changes it, and
// only while no race is on.
type call struct {
	*Transport
	up         *upstream
	req        *http.Request
	body       *body // nil: none
	key        string
	idempotent bool
	hedgeable  bool
	ends       time.Time // by the TotalTimeout; zero: it does not

	attempts int // sent
	tried    []*balance.Endpoint
	room     [DefaultAttempts]*balance.Endpoint // for tried

	// The first try is allocated together with its call.
	first     attempt
	firstUsed bool

	end outcome // of the last try so far; its answer is open
}

// outcome is how a try ended: with an answer or with an error.
type outcome struct {
	resp *http.Response
	err  error
	kind Kind // of err
	fate fate
	ep   *balance.Endpoint
}

// call sends a request to the service, if breaker and limit let it.
func (t *Transport) call(up *upstream, req *http.Request) (*http.Response, error) {
	up.requests.Add(1)
	body := newBody(req)
	defer body.settle()
	permit, token, err := up.admit(req.Context())
	if err != nil {
		return nil, err
	}
	c := &call{
		Transport: t, up: up, req: req, body: body, key: keyFrom(req.Context()),
		idempotent: idempotent(req),
	}
	c.hedgeable = c.key == "" && hedgeable(req) // a key means one instance
	c.tried = c.room[:0]
	if t.retry.TotalTimeout > 0 {
		c.ends = time.Now().Add(t.retry.TotalTimeout)
	}
	settled := false
	defer func() {
		if !settled { // a panic goes up
			drop(c.end.resp)
			up.settle(permit, token, abandoned, nil)
		}
	}()
	up.budget.Deposit()
	c.run()
	settled = true
	up.settle(permit, token, c.end.fate, c.end.err)
	if c.end.err != nil {
		return nil, c.failure(c.end)
	}
	return c.end.resp, nil
}

// admit asks the breaker and the limiter for one call.
func (u *upstream) admit(ctx context.Context) (breaker.Permit, concurrency.Token, error) {
	var permit breaker.Permit
	if u.breaker != nil {
		var err error
		if permit, err = u.breaker.Allow(); err != nil {
			return permit, concurrency.Token{}, &Error{Service: u.name, Kind: Open, Err: err}
		}
	}
	token, err := u.limiter.Acquire(ctx, concurrency.PriorityFrom(ctx))
	if err != nil {
		permit.Cancel()
		if !errors.Is(err, concurrency.ErrLimit) { // the caller's time ended in the queue
			return permit, token, &Error{Service: u.name, Kind: classify(ctx, err), Err: err}
		}
		u.limited.Add(1)
		return permit, token, &Error{Service: u.name, Kind: Limited, Err: err}
	}
	return permit, token, nil
}

// run makes tries until one of them is the last, whose end is the call's.
func (c *call) run() {
	ep, _ := c.next()
	if ep == nil { // the last instance went while the call began
		err := noInstance(c.up.name)
		c.end = outcome{err: err, kind: err.Kind, fate: abandoned}
		return
	}
	for {
		c.end = c.try(ep)
		next, wait, ok := c.plan(&c.end)
		if !ok {
			return
		}
		c.up.retries[c.end.fate].Add(1)
		discard(c.end.resp)
		c.end.resp = nil
		if !c.sleep(wait) {
			err := context.Cause(c.req.Context())
			c.end = outcome{err: err, kind: classify(c.req.Context(), err), fate: gone, ep: ep}
			return
		}
		ep = next
	}
}

// plan decides whether there is another try after o, where, and after what wait. The
// budget is asked last: what it gives is gone.
func (c *call) plan(o *outcome) (next *balance.Endpoint, wait time.Duration, ok bool) {
	p := &c.retry
	if !mayRepeat(o.fate, c.idempotent, c.attempts, p.MaxAttempts) || c.req.Context().Err() != nil || !c.body.rewindable(c.req) {
		return nil, 0, false
	}
	now := time.Now()
	m := moment{fate: o.fate, attempts: c.attempts, idempotent: c.idempotent, left: c.left(now), random: rand.Float64()}
	if o.resp != nil {
		m.pushback = pushbackOf(o.resp.Header, now)
	}
	if next, m.other = c.next(); next == nil {
		return nil, 0, false
	}
	if wait, ok = again(p, m); !ok || !c.wanted(o) {
		return nil, 0, false
	}
	if !m.free() && !c.up.budget.Withdraw() {
		if o.err != nil {
			o.err = overBudget(o.err)
		}
		return nil, 0, false
	}
	if !c.body.rewind(c.req) {
		return nil, 0, false
	}
	if p.OnRetry != nil {
		p.OnRetry(retry.Event{Attempt: c.attempts, Err: c.failure(*o), Delay: wait})
	}
	return next, wait, true
}

// wanted asks the user's RetryIf.
func (c *call) wanted(o *outcome) bool {
	return c.retry.RetryIf == nil || c.retry.RetryIf(c.failure(*o))
}

// failure is the error that tells of o.
func (c *call) failure(o outcome) *Error {
	e := &Error{Service: c.up.name, Attempts: c.attempts, Kind: o.kind, Err: o.err}
	if o.ep != nil {
		e.Instance = o.ep.ID
	}
	if o.resp != nil {
		e.Kind, e.Status, e.Err = Answered, o.resp.StatusCode, statusError(o.resp.StatusCode)
	}
	return e
}

// next picks the instance for the next try, and reports whether it is one that was not
// tried: one in rotation, or else any other, which may have recovered. If all were
// tried, it is one that was not the last.
func (c *call) next() (ep *balance.Endpoint, other bool) {
	set := c.discover.Endpoints(c.up.name)
	rotation := c.up.rotation(set)
	if rotation.Len() == 0 {
		rotation = set
	}
	if ep = balance.PickKeyExcept(c.up.picker, rotation, c.key, c.tried); ep != nil || len(c.tried) == 0 {
		return ep, true
	}
	// The picker itself may keep things about the sets it is given: it sees one only.
	if ep = balance.PickExcept(balance.LeastConnections(), set, c.tried); ep != nil {
		return ep, true
	}
	if ep = balance.PickKeyExcept(c.up.picker, rotation, c.key, c.tried[len(c.tried)-1:]); ep != nil {
		return ep, false
	}
	return c.up.picker.Pick(rotation), false
}

// try sends the request to one instance, and perhaps to another one as well.
func (c *call) try(ep *balance.Endpoint) outcome {
	c.attempts++
	c.tried = append(c.tried, ep)
	if c.hedgeable && c.attempts < c.retry.MaxAttempts {
		if after := c.hedgeAfter(c.up); after > 0 {
			return c.race(ep, after)
		}
	}
	return c.send(c.req.Context(), nil, ep, nil)
}

// left returns how long the caller, or the TotalTimeout, still waits.
func (c *call) left(now time.Time) time.Duration {
	left := unbounded
	if at, ok := c.req.Context().Deadline(); ok {
		left = at.Sub(now)
	}
	if !c.ends.IsZero() {
		left = min(left, c.ends.Sub(now))
	}
	return left
}

// patience is how long one try may take until its answer's head; 0 is for ever. The
// caller's own time is its context's business.
func (c *call) patience(now time.Time) time.Duration {
	limit := c.retry.AttemptTimeout
	if !c.ends.IsZero() {
		left := max(c.ends.Sub(now), 1)
		if limit == 0 || left < limit {
			limit = left
		}
	}
	return limit
}

// sleep waits, and reports whether the caller does so too.
func (c *call) sleep(d time.Duration) bool {
	ctx := c.req.Context()
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
