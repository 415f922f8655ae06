package retry

import (
	"math"
	"strings"
	"time"
)

// ParseRetryAfter reads the value of a Retry-After header (RFC 9110, section
// 10.2.3): a number of seconds, or an HTTP date in any of the three forms of
// section 5.6.7. It returns how long to wait from now on, 0 if the date is over,
// and false if the value is neither. A wait longer than a Duration is the longest
// Duration.
func ParseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.Trim(value, " \t")
	if value == "" {
		return 0, false
	}
	if c := value[0]; c >= '0' && c <= '9' {
		return parseSeconds(value)
	}
	at, ok := parseDate(value, now)
	if !ok {
		return 0, false
	}
	return max(at.Sub(now), 0), true
}

func parseSeconds(value string) (time.Duration, bool) {
	const most = math.MaxInt64 / int64(time.Second)
	var n int64
	for i := range len(value) {
		c := value[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int64(c-'0'), most+1) // ten times that still fits
	}
	if n > most {
		return math.MaxInt64, true
	}
	return time.Duration(n) * time.Second, true
}

// The forms of an HTTP date. net/http has the first; its parser takes any zone in
// the second, and guesses the century without looking at the year it is.
const (
	imfFixdate = "Mon, 02 Jan 2006 15:04:05 GMT"
	rfc850     = "Monday, 02-Jan-06 15:04:05 GMT"
)

func parseDate(value string, now time.Time) (time.Time, bool) {
	if t, err := time.Parse(imfFixdate, value); err == nil {
		return t, true
	}
	if t, err := time.Parse(rfc850, value); err == nil {
		// Two digits mean the last such year that is not more than 50 years ahead.
		centuries := (now.Year() + 50 - t.Year()) / 100
		if now.Year()+50 < t.Year() {
			centuries--
		}
		return t.AddDate(100*centuries, 0, 0), true
	}
	t, err := time.Parse(time.ANSIC, value)
	return t, err == nil
}
