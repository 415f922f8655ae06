package deadline_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/keelson-go/keelson/deadline"
)

func TestCaller(t *testing.T) {
	t.Parallel()
	cases := []struct {
		header http.Header
		want   time.Duration
		ok     bool
	}{
		{http.Header{}, 0, false},
		{http.Header{"Request-Timeout": {"1500"}}, 1500 * time.Millisecond, true},
		{http.Header{"Request-Timeout": {"1500", "20"}}, 20 * time.Millisecond, true},
		{http.Header{"Request-Timeout": {"soon", "20"}}, 20 * time.Millisecond, true},
		{http.Header{"Request-Timeout": {"0"}}, 0, true},
		{http.Header{"Request-Timeout": {"-1"}}, 0, true},
		{http.Header{"Request-Timeout": {"--1"}}, 0, false},
		{http.Header{"Request-Timeout": {"+1"}}, 0, false},
		{http.Header{"Request-Timeout": {""}}, 0, false},
		{http.Header{"Request-Timeout": {"999999999999"}}, longest, true},
		{http.Header{"Request-Timeout": {"1000000000000"}}, 0, false},
		{http.Header{"Grpc-Timeout": {"3S"}, "Request-Timeout": {"5000"}}, 3 * time.Second, true},
		{http.Header{"Grpc-Timeout": {"7n"}}, 7, true},
		{http.Header{"Grpc-Timeout": {"7u"}}, 7 * time.Microsecond, true},
		{http.Header{"Grpc-Timeout": {"7m"}}, 7 * time.Millisecond, true},
		{http.Header{"Grpc-Timeout": {"7M"}}, 7 * time.Minute, true},
		{http.Header{"Grpc-Timeout": {"7H"}}, 7 * time.Hour, true},
		{http.Header{"Grpc-Timeout": {"7s"}}, 0, false},
		{http.Header{"Grpc-Timeout": {"99999999S"}}, 99999999 * time.Second, true},
		{http.Header{"Grpc-Timeout": {"99999999M"}}, longest, true},
		{http.Header{"Grpc-Timeout": {"99999999H"}}, longest, true},
		{http.Header{"Grpc-Timeout": {"123456789n"}}, 0, false},
		{http.Header{"Grpc-Timeout": {"S"}}, 0, false},
		{http.Header{"Grpc-Timeout": {"-1S"}}, 0, false},
		{http.Header{"X-Envoy-Expected-Rq-Timeout-Ms": {"20"}, "Grpc-Timeout": {"1S"}}, 20 * time.Millisecond, true},
		{http.Header{"X-Envoy-Expected-Rq-Timeout-Ms": {"0"}}, 0, false},
		{http.Header{"X-Envoy-Expected-Rq-Timeout-Ms": {"-5"}}, 0, false},
	}
	for _, c := range cases {
		if got, ok := deadline.Caller(c.header.Values); got != c.want || ok != c.ok {
			t.Errorf("%v: %v, %t; want %v, %t", c.header, got, ok, c.want, c.ok)
		}
	}
}

func FuzzCaller(f *testing.F) {
	f.Add("100", "1S", "0", "-1")
	f.Add("-", "99999999H", "999999999999", "")
	f.Add("1e9", "１S", " 1", "0x1")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		h := http.Header{"Request-Timeout": {a, d}, "Grpc-Timeout": {b}, "X-Envoy-Expected-Rq-Timeout-Ms": {c}}
		got, ok := deadline.Caller(h.Values)
		if got < 0 || got > longest || !ok && got != 0 {
			t.Fatalf("%v, %t", got, ok)
		}
		// What a hop passes on is read by the next, and is less.
		for _, next := range []http.Header{{"Request-Timeout": {deadline.Value(got)}}, {"Grpc-Timeout": {deadline.ValueGRPC(got)}}} {
			if again, read := deadline.Caller(next.Values); !read || again > got || got > 0 && again == got && got > time.Millisecond {
				t.Fatalf("%v became %v, %t", got, again, read)
			}
		}
	})
}
