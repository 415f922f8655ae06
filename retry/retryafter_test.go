package retry_test

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/retry"
)

var now = time.Date(2026, time.November, 22, 22, 0, 0, 0, time.UTC)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"120", 2 * time.Minute, true},
		{"0", 0, true},
		{"007", 7 * time.Second, true},
		{" \t5 ", 5 * time.Second, true},
		{"9223372036", 9223372036 * time.Second, true},
		{"9223372037", math.MaxInt64, true},
		{"99999999999999999999999999999999999", math.MaxInt64, true},
		{"Sun, 22 Nov 2026 22:00:30 GMT", 30 * time.Second, true},
		{"Sun, 22 Nov 2026 21:59:59 GMT", 0, true},
		{"Sunday, 22-Nov-26 22:01:00 GMT", time.Minute, true},
		{"Sunday, 06-Nov-94 08:49:37 GMT", 0, true}, // 1994: 2094 is too far ahead
		{"Sunday, 22-Nov-76 21:00:00 GMT", now.AddDate(50, 0, 0).Sub(now) - time.Hour, true},
		{"Sunday, 22-Nov-77 22:00:00 GMT", 0, true},
		{"Sun Nov 22 22:00:01 2026", time.Second, true},
		{"Sun Nov  1 22:00:01 2026", 0, true},
		{"Sun, 22 Nov 9999 22:00:30 GMT", math.MaxInt64, true},
		{"99999999999999999999x", 0, false},
		{"", 0, false},
		{" ", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1s", 0, false},
		{"1 2", 0, false},
		{"1, 2", 0, false},
		{"0x10", 0, false},
		{"٣", 0, false},
		{"soon", 0, false},
		{"Sun, 22 Nov 2026 22:00:30 CET", 0, false},
		{"Sunday, 22-Nov-26 22:01:00 CET", 0, false},
		{"Sun, 32 Nov 2026 22:00:30 GMT", 0, false},
		{"2026-11-22T22:00:30Z", 0, false},
	}
	for _, tt := range tests {
		if got, ok := retry.ParseRetryAfter(tt.value, now); got != tt.want || ok != tt.ok {
			t.Errorf("ParseRetryAfter(%q) = %v, %v; want %v, %v", tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

// Two digits of a year mean what they mean at the time.
func TestTwoDigitYears(t *testing.T) {
	t.Parallel()
	tests := []struct {
		now   int
		value string
		want  int
	}{
		{1999, "Monday, 06-Nov-00 00:00:00 GMT", 2000},
		{2000, "Monday, 06-Nov-49 00:00:00 GMT", 2049},
		{2000, "Monday, 06-Nov-60 00:00:00 GMT", 1960},
		{2026, "Monday, 06-Nov-69 00:00:00 GMT", 2069},
		{2090, "Monday, 06-Nov-20 00:00:00 GMT", 2120},
		{2390, "Monday, 06-Nov-91 00:00:00 GMT", 2391},
	}
	for _, tt := range tests {
		now := time.Date(tt.now, time.January, 1, 0, 0, 0, 0, time.UTC)
		want := max(time.Date(tt.want, time.November, 6, 0, 0, 0, 0, time.UTC).Sub(now), 0)
		if got, ok := retry.ParseRetryAfter(tt.value, now); !ok || got != want {
			t.Errorf("in %d %q is in %v, %v; want %v", tt.now, tt.value, got, ok, want)
		}
	}
}

// What is accepted is a number or a date, and what is waited for is what it says.
func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"120", "0", "-1", "99999999999999999999", "Sun, 22 Nov 2026 22:00:30 GMT", "Sunday, 22-Nov-26 22:01:00 GMT", "Sun Nov 22 22:00:01 2026", "Sunday, 29-Feb-00 22:01:00 GMT", "soon"} {
		f.Add(s, now.Unix())
	}
	f.Fuzz(func(t *testing.T, value string, unix int64) {
		now := time.Unix(unix%253402300800, 0).UTC() // years that a date can tell
		d, ok := retry.ParseRetryAfter(value, now)
		if d < 0 || (!ok && d != 0) {
			t.Fatalf("%q: %v, %v", value, d, ok)
		}
		trimmed := strings.Trim(value, " \t")
		if n, err := strconv.ParseUint(trimmed, 10, 63); err == nil {
			if want := min(float64(n), math.MaxInt64/1e9); !ok || math.Abs(d.Seconds()-want) > 1 {
				t.Fatalf("%q: %v, %v", value, d, ok)
			}
		} else if at, err := http.ParseTime(trimmed); err == nil && trimmed[3] == ',' {
			if want := max(at.Sub(now), 0); !ok || d != want {
				t.Fatalf("%q at %v: %v, %v; want %v", value, now, d, ok, want)
			}
		}
	})
}
