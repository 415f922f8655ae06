package deadline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Names of the headers that tell how long a caller is going to wait, in canonical
// form.
const (
	// Header has it in milliseconds.
	Header = "Request-Timeout"
	// HeaderGRPC has it as digits and a unit (gRPC over HTTP/2, Timeout).
	HeaderGRPC = "Grpc-Timeout"

	// Envoy tells its upstreams so, in milliseconds.
	headerEnvoy = "X-Envoy-Expected-Rq-Timeout-Ms"
)

// ErrOver says that the deadline was over before the work began, so that none of it
// was done. It matches [context.DeadlineExceeded] too.
var ErrOver = fmt.Errorf("deadline was over before the work began: %w", context.DeadlineExceeded)

const (
	// longest is what can be written in maxDigits: 31 years.
	longest   = (1e12 - 1) * time.Millisecond
	maxDigits = 12
)

// What is kept of the time left: for the way there and back, and so that a caller
// learns of a failure further down before its own time is over.
const (
	marginShare = 20                     // a twentieth,
	minMargin   = time.Millisecond       // at least what a header can say,
	maxMargin   = 100 * time.Millisecond // at most what a way around the world takes
)

// Check returns nil if ctx leaves time to begin. Otherwise the error is [ErrOver], or
// [context.Canceled] if the caller has gone before its time. A deadline counts as
// over when its time has come, even if ctx has not been ended yet.
func Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return ErrOver
		}
		return err
	}
	if at, ok := ctx.Deadline(); ok && time.Until(at) <= 0 {
		return ErrOver
	}
	return nil
}

// PassOn returns what of the time left the next hop is told: 5 % less, but 1 ms at
// least and 100 ms at most; never below 0.
func PassOn(left time.Duration) time.Duration {
	return max(left-min(max(left/marginShare, minMargin), maxMargin), 0)
}

// Value returns what [Header] says to the next hop if there is left: [PassOn] in
// whole milliseconds. They are rounded up, by less than the margin: "0" would mean
// that it need not begin.
func Value(left time.Duration) string {
	told := min(PassOn(left), longest)
	return strconv.FormatInt(int64((told+time.Millisecond-1)/time.Millisecond), 10)
}

// ValueGRPC is [Value] for [HeaderGRPC].
func ValueGRPC(left time.Duration) string {
	n, unit := int64(PassOn(left)), 0
	for ; n >= maxGRPC; unit++ {
		n /= units[unit+1].of
	}
	var buf [9]byte
	return string(append(strconv.AppendInt(buf[:0], n, 10), units[unit].letter))
}

// Inject tells the next hop how much of ctx's time is left, by one call of set with
// [Header] and its [Value]. Without a deadline it does nothing; the method Set of an
// http.Header is such a set.
func Inject(ctx context.Context, set func(name, value string)) {
	if at, ok := ctx.Deadline(); ok {
		set(Header, Value(time.Until(at)))
	}
}

// InjectGRPC does for [HeaderGRPC] what [Inject] does for [Header]. A gRPC server
// heeds that one alone.
func InjectGRPC(ctx context.Context, set func(name, value string)) {
	if at, ok := ctx.Deadline(); ok {
		set(HeaderGRPC, ValueGRPC(time.Until(at)))
	}
}
