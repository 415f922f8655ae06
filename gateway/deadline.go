package gateway

import (
	"strconv"
	"time"
)

// Headers that say how long the caller waits. The smallest wins.
const (
	headerRequestTimeout = "Request-Timeout" // milliseconds
	headerEnvoyTimeout   = "X-Envoy-Expected-Rq-Timeout-Ms"
	headerGRPCTimeout    = "Grpc-Timeout" // gRPC over HTTP/2: at most 8 digits and a unit
)

// callerTimeout reads how long the caller waits, and whether it said so. A
// header that can't be read counts as not sent.
func callerTimeout(h Header) (time.Duration, bool) {
	left, found := time.Duration(0), false
	note := func(d time.Duration, ok bool) {
		if ok && (!found || d < left) {
			left, found = d, true
		}
	}
	if v := h.Get(headerRequestTimeout); v != "" {
		note(parseMillis(v))
	}
	if v := h.Get(headerEnvoyTimeout); v != "" {
		d, ok := parseMillis(v)
		note(d, ok && d > 0) // to Envoy 0 means no timeout
	}
	if v := h.Get(headerGRPCTimeout); v != "" {
		note(parseGRPCTimeout(v))
	}
	return left, found
}

func parseMillis(s string) (time.Duration, bool) {
	// 12 digits are 31 years: no overflow.
	if len(s) > 12 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return time.Duration(n) * time.Millisecond, err == nil
}

func parseGRPCTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		// 8 digits of hours are more than a Duration holds.
		if len(s) > 7 {
			return 0, false
		}
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
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	return time.Duration(n) * unit, err == nil
}

// passOn is what of the time left the upstream is told: a margin of 5 %, 1 to
// 100 ms, is kept for the way back.
func passOn(left time.Duration) time.Duration {
	return max(left-min(max(left/20, time.Millisecond), 100*time.Millisecond), 0)
}
