package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/retry"
)

// ErrScheme says that a service was called by name over https. Which scheme an instance
// speaks is for its registration to say; call http://service/, which becomes
// https where the instance is registered with that.
var ErrScheme = errors.New("services are called by name over http; the registration decides about TLS")

// What ends a try that was not ended by its caller.
var (
	errLate = fmt.Errorf("no answer within the time for one try: %w", context.DeadlineExceeded)
	errLost = fmt.Errorf("another try has answered first: %w", context.Canceled)
)

// Kind says why a call got no answer.
type Kind int

// Kinds of failures.
const (
	NoInstance Kind = iota + 1 // no instance of the service is in rotation
	Refused                    // no connection could be opened: nothing was sent
	Broken                     // the connection broke before an answer
	Timeout                    // no answer in time
	Canceled                   // the caller's context was cancelled
	Open                       // the service's breaker is open: nothing was sent
	Limited                    // too many calls to the service are under way: nothing was sent
	Answered                   // it was answered, with a status that is worth a retry; only retry.Policy's RetryIf and OnRetry see it
)

var kindNames = [...]string{
	NoInstance: "no_instance", Refused: "refused", Broken: "broken", Timeout: "timeout",
	Canceled: "canceled", Open: "circuit_open", Limited: "limited", Answered: "answered",
}

// String returns the kind as metrics label it.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Error is a call that got no answer. Unwrap leads to the last try's error, so
// errors.Is finds registry.ErrNoInstance, context.DeadlineExceeded,
// syscall.ECONNREFUSED, breaker.ErrOpen, concurrency.ErrLimit and deadline.ErrOver. If
// there would have been one more try, had the budget allowed it, it finds
// retry.ErrBudget too.
type Error struct {
	Service  string
	Instance string // the last one tried
	Attempts int    // how often the request was sent, 0 if it was not
	Kind     Kind
	Status   int // of the answer, if the Kind is Answered
	Err      error
}

// Error names the service and what became of the last try.
func (e *Error) Error() string {
	if e.Attempts == 0 {
		return fmt.Sprintf("client: call %s: %v", e.Service, e.Err)
	}
	return fmt.Sprintf("client: call %s (attempt %d, instance %s): %v", e.Service, e.Attempts, e.Instance, e.Err)
}

// Unwrap returns the last try's error.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether no answer came in time; net/http asks for it.
func (e *Error) Timeout() bool { return e.Kind == Timeout }

// RetryAfter returns in how long a call may be let through, if the breaker or the limit
// refused this one; otherwise, or if that may be at once, 0.
func (e *Error) RetryAfter() time.Duration {
	type waits interface {
		error
		RetryAfter() time.Duration
	}
	if w, ok := errors.AsType[waits](e.Err); ok {
		return w.RetryAfter()
	}
	return 0
}

// overBudget marks err as the end of a call that the budget gave no other try.
func overBudget(err error) error { return fmt.Errorf("%w (%w)", err, retry.ErrBudget) }

// statusError is what the policy's hooks see of an answer.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("answered %d %s", int(e), http.StatusText(int(e)))
}

// classify says why there was no answer. ctx is the caller's.
func classify(ctx context.Context, err error) Kind {
	// Who gives up waiting may say so by the cause of the context's end.
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return Timeout
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return Canceled
	}
	if at, ok := ctx.Deadline(); ctx.Err() != nil || ok && time.Until(at) <= 0 {
		return Timeout
	}
	// A dial that took too long sent nothing either: another instance may do. Its error is
	// a DeadlineExceeded, too.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" || errors.Is(err, syscall.ECONNREFUSED) {
		return Refused
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return Timeout
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return Timeout
	}
	return Broken
}
