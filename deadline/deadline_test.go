package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/deadline"
)

const longest = 999_999_999_999 * time.Millisecond

func TestCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		with := func(d time.Duration) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			t.Cleanup(cancel)
			return ctx
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		gaveUp, giveUp := context.WithCancelCause(t.Context())
		giveUp(fmt.Errorf("the route's time is over: %w", context.DeadlineExceeded))
		for _, c := range []struct {
			name string
			ctx  context.Context
			want error
		}{
			{"no deadline", t.Context(), nil},
			{"time left", with(1), nil},
			{"over", with(0), deadline.ErrOver},
			{"long over", with(-time.Hour), deadline.ErrOver},
			{"the caller has gone", canceled, context.Canceled},
			{"given up in time's name", gaveUp, deadline.ErrOver},
			{"over, and not ended yet", late{t.Context()}, deadline.ErrOver},
		} {
			err := deadline.Check(c.ctx)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if errors.Is(err, context.DeadlineExceeded) != (c.want == deadline.ErrOver) {
				t.Errorf("%s: %v: deadline exceeded?", c.name, err)
			}
		}
	})
}

// late is a context whose timer has not fired yet.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now(), true }

func TestValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		left        time.Duration
		value, grpc string
	}{
		{-time.Second, "0", "0n"},
		{0, "0", "0n"},
		{time.Millisecond, "0", "0n"},
		{time.Millisecond + 1, "1", "1n"},
		{2 * time.Millisecond, "1", "1000000n"},
		{20 * time.Millisecond, "19", "19000000n"},
		{time.Second, "950", "950000u"},
		{2 * time.Second, "1900", "1900000u"},
		{time.Minute, "59900", "59900000u"},
		{2 * time.Minute, "119900", "119900m"},
		{48 * time.Hour, "172799900", "172799S"},
		{1e6 * time.Hour, "3599999999900", "59999999M"},
		{1<<63 - 1, "9223372036755", "2562047H"},
	} {
		if got := deadline.Value(c.left); got != c.value && c.left < longest {
			t.Errorf("Value(%v) = %s, want %s", c.left, got, c.value)
		}
		if got := deadline.ValueGRPC(c.left); got != c.grpc {
			t.Errorf("ValueGRPC(%v) = %s, want %s", c.left, got, c.grpc)
		}
	}
	if got := deadline.Value(1<<63 - 1); got != "999999999999" {
		t.Errorf("the longest is told as %s", got)
	}
}

// Each hop is told less than the one before, until there is nothing left; and what
// is told can be read.
func TestEachHopSeesLess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		left := time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t, "left"))
		if fewer := rapid.IntRange(0, 12).Draw(t, "magnitude"); fewer > 0 {
			for range fewer {
				left /= 10
			}
		}
		told := deadline.PassOn(left)
		if told < 0 || left > 0 && told >= left || left-told > 100*time.Millisecond {
			t.Fatalf("of %v %v is told", left, told)
		}
		byHTTP, ok := deadline.Caller(http.Header{"Request-Timeout": {deadline.Value(left)}}.Values)
		if !ok || byHTTP < told || byHTTP > left || told > 0 && byHTTP == 0 {
			t.Fatalf("%v went on as %s", left, deadline.Value(left))
		}
		byGRPC, ok := deadline.Caller(http.Header{"Grpc-Timeout": {deadline.ValueGRPC(left)}}.Values)
		if !ok || byGRPC > told || told-byGRPC > told/1000 {
			t.Fatalf("%v went on as %s, want %v or a little less", left, deadline.ValueGRPC(left), told)
		}
		for hops := 0; byHTTP > 0; hops++ {
			next, _ := deadline.Caller(http.Header{"Request-Timeout": {deadline.Value(byHTTP)}}.Values)
			if next >= byHTTP {
				t.Fatalf("%v went on as %v", byHTTP, next)
			}
			if byHTTP = next; hops == 200 {
				break // as long as there are 100 ms for each
			}
		}
	})
}

func TestInject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := http.Header{}
		deadline.Inject(t.Context(), h.Set)
		deadline.InjectGRPC(t.Context(), h.Set)
		if len(h) != 0 {
			t.Errorf("without a deadline: %v", h)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		deadline.Inject(ctx, h.Set)
		deadline.InjectGRPC(ctx, h.Set)
		if h.Get("Request-Timeout") != "950" || h.Get("Grpc-Timeout") != "950000u" || len(h) != 2 {
			t.Errorf("of a second: %v", h)
		}
		time.Sleep(2 * time.Second) // virtual
		deadline.Inject(ctx, h.Set)
		if h.Get("Request-Timeout") != "0" {
			t.Errorf("over: %v", h)
		}
	})
}

func TestAllocations(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	h := http.Header{"Request-Timeout": {"2000"}, "Grpc-Timeout": {"2S"}}
	get, set, attribute := h.Values, func(string, string) {}, func(string) string { return "" }
	for name, c := range map[string]struct {
		most float64
		do   func()
	}{
		"Caller":                     {0, func() { _, _ = deadline.Caller(get) }},
		"Check":                      {0, func() { _ = deadline.Check(ctx) }},
		"Inject":                     {1, func() { deadline.Inject(ctx, set) }},
		"Inject without a deadline":  {0, func() { deadline.Inject(context.Background(), set) }},
		"InjectGRPC":                 {1, func() { deadline.InjectGRPC(ctx, set) }},
		"ToMessage":                  {1, func() { deadline.ToMessage(ctx, set) }},
		"FromMessage without a time": {0, func() { _, _, _ = deadline.FromMessage(ctx, attribute) }},
	} {
		if got := testing.AllocsPerRun(100, c.do); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", name, got, c.most)
		}
	}
}

func BenchmarkCaller(b *testing.B) {
	get := http.Header{"Request-Timeout": {"2000"}, "Accept": {"*/*"}}.Values
	b.ReportAllocs()
	for b.Loop() {
		_, _ = deadline.Caller(get)
	}
}

func BenchmarkInject(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	set := func(string, string) {}
	b.ReportAllocs()
	for b.Loop() {
		deadline.Inject(ctx, set)
	}
}

func BenchmarkCheck(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		_ = deadline.Check(ctx)
	}
}
