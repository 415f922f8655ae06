package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/problem"
)

// errGaveUp is why a call to an upstream was ended by the gateway. A transport
// that asks for the cause of the context's end finds a deadline.
var errGaveUp = fmt.Errorf("gateway: gave up waiting: %w", context.DeadlineExceeded)

// errClientsTime is why a call was ended by what the client did: the time that it gave,
// or its body that did not come. To a transport that is a caller who has left, and says
// nothing about the service: else anybody could have a healthy one taken for broken, by
// less time than its slowest route needs.
var errClientsTime = fmt.Errorf("gateway: the client's own time is over: %w", context.Canceled)

// States of a call.
const (
	waiting int32 = iota // for the first byte of the answer
	answered
	upstreamSlow // the route's Timeout is over
	callerSlow   // the client stopped sending its body
	outOfTime    // the caller's own deadline is over
)

// call is the wait for an upstream's answer. Its timer ends the call's context
// unless the answer comes first; from then on nothing bounds it.
type call struct {
	cancel  context.CancelCauseFunc
	upgrade bool       // to WebSocket, as the client asked
	mu      sync.Mutex // held while the state changes
	state   atomic.Int32
	timer   *time.Timer
	timeout time.Duration
	until   time.Time   // when the wait is over, zero if that is not known yet
	unhook  func() bool // from the draining, of a stream
	x       *exchange
}

// errDraining is why a stream was ended by [Gateway.Drain].
var errDraining = errors.New("gateway: draining, streams are ended")

// endOn ends the call, which has become a stream, when draining ends.
func (c *call) endOn(draining context.Context) {
	c.unhook = context.AfterFunc(draining, func() { c.cancel(errDraining) })
}

// settle is called when the call is over.
func (c *call) settle() {
	if c.unhook != nil {
		c.unhook()
	}
}

// timedTransport starts and stops the timer around the real transport.
type timedTransport struct{ next http.RoundTripper }

func (t timedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req)
	c := &x.call
	c.begin(x)
	res, err := t.next.RoundTrip(req)
	won := c.end()
	if err != nil {
		return nil, err
	}
	if !won {
		// The context is over, and the body would not come.
		_ = res.Body.Close()
		return nil, errGaveUp
	}
	// Some transports don't say.
	res.Request = req
	return res, nil
}

func (c *call) begin(x *exchange) {
	c.x = x
	c.timeout = x.Route.Timeout
	if x.isGRPC() {
		// Its first answer may be long in coming; it has a timeout of its own.
		c.timeout = 0
	}
	if left, ok := x.timeLeft(); ok {
		c.until = time.Now().Add(left)
	}
	if left := c.left(); left > 0 {
		c.timer = time.AfterFunc(left, c.expire)
	}
}

// left is how long to wait from now; 0 means for ever.
func (c *call) left() time.Duration {
	if c.x.Deadline.IsZero() {
		return c.timeout
	}
	left := max(time.Until(c.x.Deadline), 1)
	if c.timeout > 0 {
		left = min(left, c.timeout)
	}
	return left
}

// progress says that some more of the request's body went out.
func (c *call) progress() {
	if c.timer != nil && c.state.Load() == waiting {
		c.timer.Reset(c.left())
	}
}

func (c *call) expire() {
	why := upstreamSlow
	switch {
	case c.x.over():
		why = outOfTime
	case c.x.reqBody.reading.Load():
		why = callerSlow
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.CompareAndSwap(waiting, why) {
		return
	}
	if why == upstreamSlow {
		c.cancel(errGaveUp)
	} else {
		c.cancel(errClientsTime)
	}
	// The transport waits for its reading of the client's body to end.
	c.x.reqBody.interrupt()
}

// end stops the timer. It reports whether the answer came before its end.
func (c *call) end() bool {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.CompareAndSwap(waiting, answered)
}

// verdict is the answer for a call that the gateway ended, or nil.
func (c *call) verdict() *problem.Problem {
	switch c.state.Load() {
	case upstreamSlow:
		return problem.New(http.StatusGatewayTimeout, problem.CodeUpstreamTimeout,
			fmt.Sprintf("%s did not begin to answer within %v.", c.x.Service, c.timeout))
	case callerSlow:
		return problem.New(http.StatusRequestTimeout, problem.CodeRequestTimeout, "The rest of the request did not come in time.")
	case outOfTime:
		return deadlineOver()
	}
	return nil
}
