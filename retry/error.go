package retry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Why there was no further try, for errors.Is. The error that wraps one of them is
// an [*Error] and also wraps what the last try returned.
var (
	// ErrAttempts says that all tries of [Policy.MaxAttempts] failed.
	ErrAttempts = errors.New("all tries failed")
	// ErrBudget says that the [Budget] refused a retry.
	ErrBudget = errors.New("retry budget is used up")
	// ErrTime says that the deadline is over or would be before the next try, or
	// that the other side asks for a longer wait than [Policy.MaxAfter].
	ErrTime = errors.New("no time for another try")
)

// Error is why there was no further try, although what the last one returned was
// worth a retry. errors.Is and errors.As find both Reason and Err in it.
type Error struct {
	Attempts int   // tries made
	Reason   error // ErrAttempts, ErrBudget, ErrTime, or the context's error
	Err      error // what the last try returned
}

// Error tells the reason, the number of tries and the last error.
func (e *Error) Error() string {
	return fmt.Sprintf("%v (tries: %d): %v", e.Reason, e.Attempts, e.Err)
}

// Unwrap returns Reason and Err.
func (e *Error) Unwrap() []error { return []error{e.Reason, e.Err} }

// errOver is the reason when the time is really over, not only too short.
var errOver = fmt.Errorf("%w: %w", ErrTime, context.DeadlineExceeded)

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err as not worth another try, whatever [Policy.RetryIf] says. Its
// text stays, and it wraps err. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

func isPermanent(err error) bool {
	_, is := errors.AsType[*permanentError](err)
	return is
}

type afterError struct {
	error
	after time.Duration
}

func (e *afterError) Unwrap() error             { return e.error }
func (e *afterError) RetryAfter() time.Duration { return e.after }

// After marks err as worth a retry only d (below 0 is 0) after fn has returned it;
// whether at all is still up to the [Policy]. Its text stays, and it wraps err.
// After(nil, d) is nil. Any other error with a method RetryAfter() time.Duration is
// understood in the same way.
func After(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &afterError{err, max(d, 0)}
}

// askedFor returns how long err asks to wait.
func askedFor(err error) time.Duration {
	type waits interface {
		error
		RetryAfter() time.Duration
	}
	if w, ok := errors.AsType[waits](err); ok {
		return max(w.RetryAfter(), 0)
	}
	return 0
}
