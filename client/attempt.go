package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/deadline"
)

// attempt is one try, from its request to the end of its answer's body, which it wraps.
type attempt struct {
	up     *upstream
	ep     *balance.Endpoint
	req    *http.Request // of the call, or a hedge's copy
	hedge  bool
	cancel context.CancelCauseFunc // nil: it has no context of its own

	started time.Time
	took    time.Duration // until the answer's head
	fate    fate
	stream  bool // the answer goes on until somebody ends it
	told    bool // the detector knows of it already
	ended   atomic.Bool

	source io.ReadCloser // the answer's body
	out    http.Request
	url    url.URL
}

// send makes one try. If cancel is given, it ends ctx, and is called when the try and
// its answer's body are over. A hedge is given its copy of the request, any other try nil.
func (c *call) send(ctx context.Context, cancel context.CancelCauseFunc, ep *balance.Endpoint, hedge *http.Request) outcome {
	var a *attempt
	if hedge != nil || c.firstUsed { // a hedge runs beside the call, and must not touch it
		a = new(attempt)
	} else {
		a, c.firstUsed = &c.first, true
	}
	if a.req = hedge; hedge == nil {
		a.req = c.req
	}
	a.up, a.ep, a.hedge, a.started = c.up, ep, hedge != nil, time.Now()
	var timer *time.Timer
	if limit := c.patience(a.started); limit > 0 {
		if cancel == nil {
			ctx, cancel = context.WithCancelCause(ctx)
		}
		late := cancel
		timer = time.AfterFunc(limit, func() { late(errLate) })
	}
	a.cancel = cancel
	a.address(ctx, a.req)
	if !a.hedge { // a hedged request has none
		a.out.Body = c.body.lend(a.out.Body)
	}
	c.up.attempts.Add(1)
	ep.Begin()
	returned := false
	defer func() {
		if !returned { // a panic goes up
			a.took = time.Since(a.started)
			a.end(neutral)
		}
	}()
	resp, err := c.carry(&a.out, ep)
	returned = true
	a.took = time.Since(a.started)
	if timer != nil && !timer.Stop() && err == nil {
		// The answer came as its time was over, and nobody could read it to its end.
		_ = resp.Body.Close()
		err = errLate
	}
	if err != nil {
		return c.unanswered(ctx, a, err)
	}
	return c.answered(a, resp)
}

// carry takes a request to an instance.
func (c *call) carry(out *http.Request, ep *balance.Endpoint) (*http.Response, error) {
	grpc := isGRPC(out)
	if c.local != nil && !grpc && out.Header["Upgrade"] == nil {
		if rt := c.local(ep.ID); rt != nil {
			resp, err := rt.RoundTrip(out)
			if !errors.Is(err, http.ErrSkipAltProtocol) {
				return resp, err
			}
			// Not for the instance of that id in this process.
		}
	}
	if grpc && out.URL.Scheme == "http" {
		return c.grpc.RoundTrip(out)
	}
	return c.carrier.RoundTrip(out)
}

// unanswered ends a try that got no answer.
func (c *call) unanswered(ctx context.Context, a *attempt, err error) outcome {
	o := outcome{err: err, ep: a.ep}
	word := ""
	switch caller, cause := a.req.Context(), context.Cause(ctx); {
	case errors.Is(cause, errLost): // whatever its caller does since
		o.kind, o.fate, word = Canceled, lost, "lost"
	case caller.Err() == nil && errors.Is(cause, errLate), errors.Is(err, errLate):
		// Whatever the carrier says: it may know of a cancelled context only.
		o.kind, o.fate, o.err = Timeout, late, errLate
	default:
		o.kind = classify(caller, err)
		// The carrier's own timeouts (of a TLS handshake, say) are not the caller's.
		o.fate = fateOfError(o.kind, caller.Err() == nil, a.took, c.up.answers.usual())
	}
	if word == "" {
		word = o.kind.String()
	}
	c.metrics.Observe(c.up.name, a.req.Method, 0, word, a.took)
	a.fate = o.fate
	if usual := c.up.answers.usual(); !a.hedge && o.fate == overdue && usual > 0 {
		// It took longer than usual; by how much, nobody knows.
		c.up.answers.record(usual)
	}
	a.end(o.fate.means().detector)
	return o
}

// answered takes the head of an answer. The try ends with its body.
func (c *call) answered(a *attempt, resp *http.Response) outcome {
	c.metrics.Observe(c.up.name, a.req.Method, resp.StatusCode, "", a.took)
	a.fate = fateOfAnswer(resp.StatusCode, resp.Header)
	if resp.StatusCode == http.StatusGatewayTimeout && a.outlasted() {
		// It gave up when the time was over that it was told. That is the caller's word,
		// and no sign that another instance would do better, or that this one is sick.
		a.fate = impatient
	}
	c.up.losers.answered(a.ep.ID)
	if a.fate == answered && !a.hedge {
		c.up.answers.record(a.took)
	}
	resp.Request = c.req
	if resp.Body == nil { // against the rules, but easily done by a base in a test
		resp.Body = http.NoBody
	}
	if resp.Body == http.NoBody {
		a.end(a.fate.means().detector)
	} else {
		if a.stream = endless(resp); a.stream && a.fate == answered && c.up.detector != nil {
			c.up.detector.Report(a.ep, a.took, false) // its end may be hours away
			a.told = true
		}
		a.source = resp.Body
		resp.Body = a
		if rw, ok := a.source.(io.ReadWriteCloser); ok { // 101 Switching Protocols: both ways
			resp.Body = &tunnel{a, rw}
		}
	}
	return outcome{resp: resp, fate: a.fate, ep: a.ep}
}

// outlasted reports whether the try took as long as the instance was told it may.
func (a *attempt) outlasted() bool {
	told, ok := deadline.Caller(a.out.Header.Values)
	return ok && a.took >= told
}

// endless reports whether an answer's body ends only when somebody has had enough.
func endless(resp *http.Response) bool {
	kind := resp.Header.Get("Content-Type")
	return resp.StatusCode == http.StatusSwitchingProtocols ||
		strings.HasPrefix(kind, "text/event-stream") || strings.HasPrefix(kind, "application/grpc")
}

// end tells everybody how the try went, once: v is the detector's view.
func (a *attempt) end(v verdict) {
	if !a.ended.CompareAndSwap(false, true) {
		return
	}
	again := false
	if a.fate == lost && !a.hedge {
		// It took at least so long; nothing else is known, unless it goes on like this.
		var failing bool
		if again, failing = a.up.losers.lost(a.ep.ID, time.Now()); failing {
			v = bad
		}
	}
	if failed := v == bad && a.fate != overdue || a.fate.means().balancer == bad; !failed && a.fate == lost && (again || a.hedge) {
		// A hedge was given no time to show what it can do. And what loses again and again
		// is silent, however short the time is that it is given.
		a.ep.Abandon()
	} else {
		a.ep.End(a.took, failed)
	}
	if d := a.up.detector; d != nil && (v == bad || v == good && !a.told) {
		d.Report(a.ep, a.took, v == bad)
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
}

// Read reads the answer's body, and ends the try with it.
func (a *attempt) Read(p []byte) (int, error) {
	n, err := a.source.Read(p)
	if err != nil {
		a.end(a.verdictOfBody(err))
	}
	return n, err
}

// verdictOfBody judges the end of a body. One that breaks off is as bad as no answer,
// unless the caller broke it off; so is one that did not come in time, unless it is a
// stream, which has no time.
func (a *attempt) verdictOfBody(err error) verdict {
	switch {
	case errors.Is(err, io.EOF):
	case errors.Is(err, context.DeadlineExceeded):
		if !a.stream && time.Since(a.started) >= a.up.answers.usual() {
			return bad
		}
	case errors.Is(err, context.Canceled):
	default:
		return bad
	}
	return a.fate.means().detector
}

// Close ends the try.
func (a *attempt) Close() error {
	a.end(a.fate.means().detector)
	return a.source.Close()
}

// tunnel is a body that can be written to as well.
type tunnel struct {
	*attempt
	w io.Writer
}

func (t *tunnel) Write(p []byte) (int, error) { return t.w.Write(p) }

const (
	// A discarded answer is read to its end if that is near, so that its connection can
	// be used again: problem documents are smaller than this.
	drainBytes = 4 << 10
	// More time than this is not spent on it: a new connection costs less.
	drainTime = 10 * time.Millisecond
)

// discard gets rid of an answer nobody wants; nil is none.
func discard(resp *http.Response) {
	if resp == nil || resp.Body == http.NoBody {
		return
	}
	if resp.ContentLength <= drainBytes {
		// The body may stall: closing it ends the reading.
		timer := time.AfterFunc(drainTime, func() { _ = resp.Body.Close() })
		_, _ = io.CopyN(io.Discard, resp.Body, drainBytes+1)
		timer.Stop()
	}
	_ = resp.Body.Close()
}
