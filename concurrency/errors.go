package concurrency

import (
	"errors"
	"math/rand/v2"
	"time"
)

// ErrLimit says that a call was refused because too many are under way; the error
// that wraps it is a [*LimitError].
var ErrLimit = errors.New("concurrency limit reached")

// A LimitError is the error for a call that was refused. Nothing was done for it,
// so it may be tried again, elsewhere or later. It is shared between calls and
// must not be changed.
type LimitError struct {
	// Priority is that of the call: with a higher one there may still be room.
	Priority Priority
}

// Error says that the limit is reached, and for which priority.
func (e *LimitError) Error() string {
	return ErrLimit.Error() + " for calls of " + e.Priority.String() + " priority"
}

// Unwrap returns [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// RetryAfter returns how long to wait before another try, another time at each
// call: 1 to 3 s at random. A second is what an overloaded service needs to
// find its limit, and refused callers who all come back at once are the next
// overload.
func (e *LimitError) RetryAfter() time.Duration {
	return time.Second + rand.N(2*time.Second)
}
