package concurrency_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/concurrency"
)

const (
	low      = concurrency.Low
	normal   = concurrency.Normal
	critical = concurrency.Critical
)

func newLimiter(tb testing.TB, opts ...concurrency.Option) *concurrency.Limiter {
	tb.Helper()
	l, err := concurrency.New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	adaptive := func(o concurrency.AdaptiveOptions) []concurrency.Option {
		return []concurrency.Option{concurrency.Adaptive(o)}
	}
	for _, tt := range []struct {
		want string
		opts []concurrency.Option
	}{
		{"Fixed is 0", []concurrency.Option{concurrency.Fixed(0)}},
		{"Fixed is -1", []concurrency.Option{concurrency.Fixed(-1)}},
		{"Fixed is 1000001", []concurrency.Option{concurrency.Fixed(1_000_001)}},
		{"both Fixed and Adaptive", append(adaptive(concurrency.AdaptiveOptions{}), concurrency.Fixed(1))},
		{"Queue's n is 0", []concurrency.Option{concurrency.Queue(0, time.Second)}},
		{"Queue's n is -1", []concurrency.Option{concurrency.Fixed(1), concurrency.Queue(-1, time.Second)}},
		{"Queue's wait is 0s", []concurrency.Option{concurrency.Queue(1, 0)}},
		{"Queue's wait is -1s", []concurrency.Option{concurrency.Queue(1, -time.Second)}},
		{"Max is -1", adaptive(concurrency.AdaptiveOptions{Max: -1})},
		{"Max is 1:", adaptive(concurrency.AdaptiveOptions{Max: 1})},
		{"Max is 2000000", adaptive(concurrency.AdaptiveOptions{Initial: 2_000_000})},
		{"Min is 1:", adaptive(concurrency.AdaptiveOptions{Min: 1})},
		{"Min is -5", adaptive(concurrency.AdaptiveOptions{Min: -5})},
		{"Min is 20: give 2 to Max, 10", adaptive(concurrency.AdaptiveOptions{Min: 20, Max: 10})},
		{"Initial is 5", adaptive(concurrency.AdaptiveOptions{Initial: 5, Min: 10})},
		{"Initial is 500", adaptive(concurrency.AdaptiveOptions{Initial: 500, Max: 100})},
		{"Delay is -1ns", adaptive(concurrency.AdaptiveOptions{Delay: -1})},
		{"Delay is 2h", adaptive(concurrency.AdaptiveOptions{Delay: 2 * time.Hour})},
	} {
		if _, err := concurrency.New(tt.opts...); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "give") {
			t.Errorf("%v, want %q and what to give", err, tt.want)
		}
	}
}

func TestInitialLimit(t *testing.T) {
	t.Parallel()
	for want, opts := range map[int][]concurrency.Option{
		10_000: nil,
		7:      {concurrency.Fixed(7)},
		300:    {concurrency.Adaptive(concurrency.AdaptiveOptions{Max: 300})},
		4:      {concurrency.Adaptive(concurrency.AdaptiveOptions{Initial: 4})},
		5:      {concurrency.Adaptive(concurrency.AdaptiveOptions{Max: 5})},
		50_000: {concurrency.Adaptive(concurrency.AdaptiveOptions{Initial: 50_000})},
	} {
		if got := newLimiter(t, opts...).Snapshot().Limit; got != want {
			t.Errorf("limit %d, want %d", got, want)
		}
	}
}

// room is how many calls of one priority a limiter admits beside those it has.
func room(l *concurrency.Limiter, p concurrency.Priority) int {
	var tokens []concurrency.Token
	for {
		token, err := l.TryAcquire(p)
		if err != nil {
			for _, one := range tokens {
				one.Ignore()
			}
			return len(tokens)
		}
		tokens = append(tokens, token)
	}
}

// Each priority may use a part of the limit, and none of a small one nothing.
func TestPrioritiesShareTheLimit(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int][3]int{
		1: {1, 1, 1}, 2: {2, 2, 2}, 3: {3, 3, 3}, 4: {3, 4, 4}, 8: {6, 8, 8}, 10: {8, 9, 10}, 100: {75, 90, 100}, 1024: {768, 922, 1024},
	} {
		l := newLimiter(t, concurrency.Fixed(limit))
		got := [3]int{room(l, low), room(l, normal), room(l, critical)}
		if got != want {
			t.Errorf("limit %d: room for %v, want %v", limit, got, want)
		}
		if l.Snapshot().InFlight != 0 {
			t.Errorf("limit %d: %+v", limit, l.Snapshot())
		}
		if got := [2]int{room(l, -100), room(l, 100)}; got != [2]int{want[0], want[2]} {
			t.Errorf("limit %d: priorities beyond have room for %v", limit, got)
		}
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, concurrency.Fixed(1))
	token, err := l.TryAcquire(normal)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []concurrency.Priority{low, normal, critical} {
		_, err := l.Acquire(t.Context(), p)
		limit, ok := errors.AsType[*concurrency.LimitError](err)
		if !ok || !errors.Is(err, concurrency.ErrLimit) || limit.Priority != p || !strings.Contains(err.Error(), p.String()) {
			t.Errorf("%v: %v", p, err)
		}
		seen := map[time.Duration]bool{}
		for range 100 {
			after := limit.RetryAfter()
			if after < time.Second || after >= 3*time.Second {
				t.Fatalf("retry after %v, want 1 to 3 s", after)
			}
			seen[after] = true
		}
		if len(seen) < 50 {
			t.Errorf("only %d of 100 times differ", len(seen))
		}
	}
	want := concurrency.Snapshot{Limit: 1, InFlight: 1, Admitted: concurrency.Counts{Normal: 1}, Rejected: concurrency.Counts{Low: 1, Normal: 1, Critical: 1}}
	if diff := cmp.Diff(want, l.Snapshot()); diff != "" {
		t.Error(diff)
	}
	token.Success()
	if _, err := l.TryAcquire(low); err != nil {
		t.Errorf("the place is not free: %v", err)
	}
}

// However a call ends, its place is free; of what begins in an ended context
// nothing is.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*concurrency.Limiter{
		"fixed": newLimiter(t, concurrency.Fixed(1)), "adaptive": newLimiter(t, concurrency.Adaptive(concurrency.AdaptiveOptions{Max: 2})), "none": nil,
	} {
		for _, end := range []func(concurrency.Token){
			concurrency.Token.Success, concurrency.Token.Overloaded, concurrency.Token.Abandoned, concurrency.Token.Ignore,
			func(t concurrency.Token) { t.Of("a").Of("b").Success() },
		} {
			token, err := l.Acquire(t.Context(), critical)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			end(token)
			if n := l.Snapshot().InFlight; n != 0 {
				t.Errorf("%s: %d in flight", name, n)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Acquire(ctx, normal); !errors.Is(err, context.Canceled) || errors.Is(err, concurrency.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
		over, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		if _, err := l.Acquire(over, normal); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	concurrency.Token{}.Of("x").Success() // the zero token does nothing
	if _, err := (*concurrency.Limiter)(nil).TryAcquire(low); err != nil {
		t.Error(err)
	}
}

// What TryAcquire does is what a count does.
func TestLimiterIsACount(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 30).Draw(t, "limit")
		l, err := concurrency.New(concurrency.Fixed(limit))
		if err != nil {
			t.Fatal(err)
		}
		rooms := map[concurrency.Priority]int{low: limit - limit/4, normal: limit - limit/10, critical: limit}
		var open []concurrency.Token
		var admitted, rejected uint64
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				p := concurrency.Priority(rapid.IntRange(-1, 1).Draw(t, "priority"))
				token, err := l.TryAcquire(p)
				if (err == nil) != (len(open) < rooms[p]) {
					t.Fatalf("%d in flight, %v: %v", len(open), p, err)
				}
				if err != nil {
					rejected++
					return
				}
				admitted++
				open = append(open, token)
			},
			"end": func(t *rapid.T) {
				if len(open) == 0 {
					return
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				open[i].Success()
				open = append(open[:i], open[i+1:]...)
			},
			"": func(t *rapid.T) {
				now := l.Snapshot()
				if now.InFlight != len(open) || now.Admitted.Total() != admitted || now.Rejected.Total() != rejected {
					t.Fatalf("%+v, want %d in flight, %d admitted, %d rejected", now, len(open), admitted, rejected)
				}
			},
		})
	})
}

// Never are more under way than may be, and none is lost.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]concurrency.Option{
		"fixed":    {concurrency.Fixed(5)},
		"queue":    {concurrency.Fixed(5), concurrency.Queue(10, time.Millisecond)},
		"adaptive": {concurrency.Adaptive(concurrency.AdaptiveOptions{Min: 2, Initial: 3, Max: 5, Delay: time.Microsecond}), concurrency.Queue(3, time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLimiter(t, opts...)
			var now, most atomic.Int64
			var wg sync.WaitGroup
			for worker := range 16 {
				wg.Go(func() {
					ends := []func(concurrency.Token){concurrency.Token.Success, concurrency.Token.Overloaded, concurrency.Token.Abandoned, concurrency.Token.Ignore}
					for i := range 2000 {
						token, err := l.Acquire(t.Context(), concurrency.Priority((worker+i)%3-1))
						if err != nil {
							continue
						}
						n := now.Add(1)
						for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
						}
						runtime.Gosched()
						now.Add(-1)
						ends[i%len(ends)](token.Of([]string{"a", "b"}[i%2]))
					}
				})
			}
			wg.Wait()
			s := l.Snapshot()
			if most.Load() > 5 || s.InFlight != 0 || s.Queued != 0 || s.Admitted.Total()+s.Rejected.Total() != 16*2000 {
				t.Errorf("at most %d at once; %+v", most.Load(), s)
			}
		})
	}
}

// More kinds than there is room for share one.
func TestKindsAreBounded(t *testing.T) {
	l := newLimiter(t)
	name := make([]byte, 2)
	for i := range math.MaxUint16 {
		name[0], name[1] = byte(i), byte(i>>8)
		token, err := l.TryAcquire(normal)
		if err != nil {
			t.Fatal(err)
		}
		token.Of(string(name)).Success()
	}
	f := calls(l)
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("a kind too many allocates %v times", n)
	}
}
