package middleware

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keelson-go/keelson/problem"
)

// HeaderRequestTimeout tells how many milliseconds the caller is going to wait.
const HeaderRequestTimeout = "Request-Timeout"

// Timeout gives the request's context a deadline: limit, or less if the caller
// waits less long, as [CallerTimeout] tells. A limit of 0 or less means that only
// the caller's counts.
//
// A caller whose time is over already (Request-Timeout or grpc-timeout of 0, or
// less) gets a 504 problem at once. So does one whose handler returned without
// an answer after the deadline. The response is not buffered and no handler is
// left running: it is for the handler to heed its context. Streams live no
// longer than the deadline either; leave Timeout off their routes.
func Timeout(limit time.Duration) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left := limit
			if waits, ok := CallerTimeout(r.Header.Values); ok && (limit <= 0 || waits < limit) {
				if waits == 0 {
					answer(r.Context(), w, r, problem.New(http.StatusGatewayTimeout, problem.CodeDeadline,
						"The time the caller gave this request was over when it arrived."))
					return
				}
				left = waits
			}
			if left <= 0 {
				next.ServeHTTP(w, r)
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), left)
			defer cancel()
			rec := record(w, r)
			pass(next, rec, r, r.WithContext(ctx))
			if !rec.begun() && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				answer(rec.context(r), rec, r, problem.From(context.DeadlineExceeded))
			}
		})
	}
}

// maxCallerTimeout is the longest that [CallerTimeout] tells, and what can be
// written in the 12 digits it reads: 31 years.
const maxCallerTimeout = (1e12 - 1) * time.Millisecond

// CallerTimeout returns how long the caller of a request is going to wait, from 0
// (its time is over) to 31 years, and whether it said so. The least of these
// headers wins, each of them with all its values:
//
//   - Request-Timeout: milliseconds; less than 0 is 0.
//   - Grpc-Timeout: at most 8 digits and a unit (gRPC over HTTP/2, Timeout).
//   - X-Envoy-Expected-Rq-Timeout-Ms: milliseconds; to Envoy 0 is no timeout.
//
// A value that can't be read counts as not sent. The function get returns all
// values of a header, whose name is in canonical form: the method Values of an
// http.Header does.
func CallerTimeout(get func(name string) []string) (least time.Duration, ok bool) {
	consider := func(d time.Duration, valid bool) {
		if valid && (!ok || d < least) {
			least, ok = d, true
		}
	}
	for _, v := range get(HeaderRequestTimeout) {
		consider(parseMilliseconds(v))
	}
	for _, v := range get("Grpc-Timeout") {
		consider(parseGRPCTimeout(v))
	}
	for _, v := range get("X-Envoy-Expected-Rq-Timeout-Ms") {
		d, valid := parseMilliseconds(v)
		consider(d, valid && d > 0)
	}
	return least, ok
}

// parseMilliseconds reads a whole number of at most 12 digits; a negative one is 0.
func parseMilliseconds(s string) (time.Duration, bool) {
	digits := strings.TrimPrefix(s, "-")
	if len(digits) > 12 || !allDigits(digits) {
		return 0, false
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(max(ms, 0)) * time.Millisecond, err == nil
}

// parseGRPCTimeout reads at most 8 digits and a unit.
func parseGRPCTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 || !allDigits(s[:len(s)-1]) {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil {
		return 0, false
	}
	// 8 digits of hours are more than a Duration holds.
	if n > int64(maxCallerTimeout/unit) {
		return maxCallerTimeout, true
	}
	return time.Duration(n) * unit, true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
