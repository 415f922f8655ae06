package deadline

import (
	"strconv"
	"strings"
	"time"
)

// Caller returns how long the caller of a request is going to wait, from 0 (its time
// is over) to 31 years, and whether it said so. The least of these headers wins, each
// of them with all its values:
//
//   - Request-Timeout: milliseconds; less than 0 is 0.
//   - Grpc-Timeout: at most 8 digits and a unit (gRPC over HTTP/2, Timeout).
//   - X-Envoy-Expected-Rq-Timeout-Ms: milliseconds; to Envoy 0 is no timeout.
//
// A value that can't be read counts as not sent. The function get returns all
// values of a header, whose name is in canonical form: the method Values of an
// http.Header does.
func Caller(get func(name string) []string) (left time.Duration, ok bool) {
	for _, v := range get(Header) {
		if d, valid := parseMilliseconds(v); valid && (!ok || d < left) {
			left, ok = d, true
		}
	}
	for _, v := range get(HeaderGRPC) {
		if d, valid := parseGRPC(v); valid && (!ok || d < left) {
			left, ok = d, true
		}
	}
	for _, v := range get(headerEnvoy) {
		if d, valid := parseMilliseconds(v); valid && d > 0 && (!ok || d < left) {
			left, ok = d, true
		}
	}
	return left, ok
}

// parseMilliseconds reads a whole number of at most maxDigits; a negative one is 0.
func parseMilliseconds(s string) (time.Duration, bool) {
	digits := strings.TrimPrefix(s, "-")
	if len(digits) > maxDigits || !allDigits(digits) {
		return 0, false
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(max(ms, 0)) * time.Millisecond, err == nil
}

// maxGRPC is what no longer fits into the 8 digits gRPC allows.
const maxGRPC = 1e8

// units are gRPC's, each with how many of the one before make it.
var units = [...]struct {
	letter byte
	of     int64
}{{'n', 1}, {'u', 1000}, {'m', 1000}, {'S', 1000}, {'M', 60}, {'H', 60}}

// parseGRPC reads at most 8 digits and a unit.
func parseGRPC(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 || !allDigits(s[:len(s)-1]) {
		return 0, false
	}
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil {
		return 0, false
	}
	unit := time.Duration(1)
	for _, u := range units {
		if unit *= time.Duration(u.of); u.letter == s[len(s)-1] {
			// 8 digits of hours are more than a Duration holds.
			if n > int64(longest/unit) {
				return longest, true
			}
			return time.Duration(n) * unit, true
		}
	}
	return 0, false
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
