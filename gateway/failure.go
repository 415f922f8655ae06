package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/retry"
)

// classify says what the client is told of a call that got no answer. No text of
// err is in it: it may name internal addresses.
func (x *exchange) classify(err error) *problem.Problem {
	if p := x.reqBody.fault(); p != nil {
		return p
	}
	if x.gateway.deps.Classify != nil {
		if p := x.gateway.deps.Classify(err); p != nil {
			return p
		}
	}
	p := x.explain(err)
	if errors.Is(err, retry.ErrBudget) {
		p.Detail += " It was not tried again: too many calls to " + x.Service + " need that at the moment."
	}
	return p
}

func (x *exchange) explain(err error) *problem.Problem {
	switch {
	case errors.Is(err, registry.ErrNoInstance):
		return problem.New(http.StatusServiceUnavailable, problem.CodeNoHealthyInstance,
			"No instance of "+x.Service+" can take requests right now.")
	case errors.Is(err, breaker.ErrOpen):
		return problem.New(http.StatusServiceUnavailable, problem.CodeCircuitOpen,
			"Too many calls to "+x.Service+" failed, so none are made for a while; Retry-After says when to come back.")
	case errors.Is(err, concurrency.ErrLimit):
		return problem.New(http.StatusServiceUnavailable, problem.CodeOverloaded,
			"More calls to "+x.Service+" are under way than it can take; Retry-After says when to come back.")
	}
	// The outermost error that knows decides: a client.Error tells a connection
	// that could not be opened in time from an answer that did not come in time.
	if t, ok := errors.AsType[timeouter](err); errors.Is(err, context.DeadlineExceeded) || ok && t.Timeout() {
		if x.over() {
			return deadlineOver()
		}
		return upstreamTimeout(x.Service)
	}
	return problem.New(http.StatusBadGateway, problem.CodeUpstreamFailed, x.Service+" broke the connection or refused it.")
}

// timeouter is an error that knows whether it is a timeout, as net.Error and
// client.Error do.
type timeouter interface {
	error
	Timeout() bool
}

func upstreamTimeout(service string) *problem.Problem {
	return problem.New(http.StatusGatewayTimeout, problem.CodeUpstreamTimeout, service+" did not answer in time.")
}

func deadlineOver() *problem.Problem {
	return problem.New(http.StatusGatewayTimeout, problem.CodeDeadline,
		"The time the request gave for an answer is over; give more, by Request-Timeout in milliseconds (gRPC: grpc-timeout).")
}

// refusal is an error that knows when a call may be made again, as those of breakers
// and limiters do.
type refusal interface {
	error
	RetryAfter() time.Duration
}

// retryAfter is when the client may come back, in whole seconds: 1 if err does not
// say more.
func retryAfter(err error) string {
	var wait time.Duration
	if r, ok := errors.AsType[refusal](err); ok {
		wait = r.RetryAfter()
	}
	return strconv.FormatInt(max(int64((wait+time.Second-1)/time.Second), 1), 10)
}
