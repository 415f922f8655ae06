package middleware

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/keelson-go/keelson/problem"
)

// HeaderRequestTimeout tells how many milliseconds the caller is going to wait.
const HeaderRequestTimeout = "Request-Timeout"

// Timeout gives the request's context a deadline: limit, or less if the caller
// waits less long, as its Request-Timeout (milliseconds), grpc-timeout or
// X-Envoy-Expected-Rq-Timeout-Ms says; the smallest wins. A limit of 0 or less
// means that only the caller's counts. A header that can't be read is passed over.
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
			if waits, ok := callerWaits(r.Header); ok && (limit <= 0 || waits < limit) {
				if waits <= 0 {
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

// callerWaits is the least time any of the headers tells, and whether one does.
func callerWaits(h http.Header) (least time.Duration, ok bool) {
	consider := func(d time.Duration, valid bool) {
		if valid && (!ok || d < least) {
			least, ok = d, true
		}
	}
	for _, v := range h[HeaderRequestTimeout] {
		consider(parseMilliseconds(v))
	}
	for _, v := range h["Grpc-Timeout"] {
		consider(parseGRPCTimeout(v))
	}
	for _, v := range h["X-Envoy-Expected-Rq-Timeout-Ms"] {
		d, valid := parseMilliseconds(v)
		consider(d, valid && d > 0) // to Envoy 0 is no timeout
	}
	return least, ok
}

// parseMilliseconds reads a whole number of at most 12 digits: 31 years.
func parseMilliseconds(s string) (time.Duration, bool) {
	digits := s
	if len(s) > 0 && s[0] == '-' {
		digits = s[1:]
	}
	if len(digits) > 12 || !allDigits(digits) {
		return 0, false
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(ms) * time.Millisecond, err == nil
}

// parseGRPCTimeout reads at most 8 digits and a unit (gRPC over HTTP/2, Timeout).
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
	if n > int64(math.MaxInt64/unit) {
		return math.MaxInt64, true
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
