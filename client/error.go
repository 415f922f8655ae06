package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
)

// ErrScheme says that a service was called by name over https. Which scheme an instance
// speaks is for its registration to say; call http://service/, which becomes
// https where the instance is registered with that.
var ErrScheme = errors.New("services are called by name over http; the registration decides about TLS")

// Kind says why a call got no answer.
type Kind int

// Kinds of failures.
const (
	NoInstance Kind = iota + 1 // no instance of the service is in rotation
	Refused                    // no connection could be opened: nothing was sent
	Broken                     // the connection broke before an answer
	Timeout                    // no answer in time
	Canceled                   // the caller's context was cancelled
)

// String returns the kind as metrics label it.
func (k Kind) String() string {
	switch k {
	case NoInstance:
		return "no_instance"
	case Refused:
		return "refused"
	case Broken:
		return "broken"
	case Timeout:
		return "timeout"
	case Canceled:
		return "canceled"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// retryable reports whether another instance may be tried: see the package
// documentation.
func (k Kind) retryable(req *http.Request) bool {
	switch k {
	case Refused:
		return true
	case Broken:
		return idempotent(req)
	}
	return false
}

func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

// Error is a call that got no answer. Unwrap leads to the last attempt's error,
// so errors.Is finds registry.ErrNoInstance, context.DeadlineExceeded and
// syscall.ECONNREFUSED.
type Error struct {
	Service  string
	Instance string // the last one tried
	Attempts int    // instances tried, 0 if there was none
	Kind     Kind
	Err      error
}

// Error names the service and what became of the last attempt.
func (e *Error) Error() string {
	if e.Attempts == 0 {
		return fmt.Sprintf("client: call %s: %v", e.Service, e.Err)
	}
	return fmt.Sprintf("client: call %s (attempt %d, instance %s): %v", e.Service, e.Attempts, e.Instance, e.Err)
}

// Unwrap returns the last attempt's error.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether no answer came in time; net/http asks for it.
func (e *Error) Timeout() bool { return e.Kind == Timeout }

func classify(ctx context.Context, err error) Kind {
	// Who gives up waiting may say so by the cause of the context's end.
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return Timeout
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return Canceled
	}
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	// A dial that took too long sent nothing either: another instance may do.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return Refused
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Timeout
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return Timeout
	}
	return Broken
}
