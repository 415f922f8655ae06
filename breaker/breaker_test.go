package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

func fails(context.Context) error    { return errDown }
func succeeds(context.Context) error { return nil }

func newBreaker(t testing.TB, opts ...breaker.Option) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New("payment", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// trip makes a breaker with the default rule open.
func trip(t testing.TB, b *breaker.Breaker) {
	t.Helper()
	for range 5 {
		_ = b.Do(context.Background(), fails)
	}
	if b.State() != breaker.Open {
		t.Fatalf("state %v after 5 failures, want open", b.State())
	}
}

func wantState(t testing.TB, b *breaker.Breaker, want breaker.State) {
	t.Helper()
	if got := b.State(); got != want {
		t.Fatalf("state %v, want %v", got, want)
	}
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	rate := breaker.Window{Calls: 10, FailureRate: 0.5}
	with := func(change func(*breaker.Window)) breaker.Option {
		w := rate
		change(&w)
		return breaker.SlidingWindow(w)
	}
	tests := []struct {
		want string
		opts []breaker.Option
	}{
		{"ConsecutiveFailures", []breaker.Option{breaker.ConsecutiveFailures(-1)}},
		{"ConsecutiveFailures", []breaker.Option{breaker.ConsecutiveFailures(0)}},
		{"OpenTime", []breaker.Option{breaker.OpenTime(0)}},
		{"OpenGrowth", []breaker.Option{breaker.OpenGrowth(0.5, time.Hour)}},
		{"OpenGrowth", []breaker.Option{breaker.OpenGrowth(2, time.Second)}},
		{"OpenJitter", []breaker.Option{breaker.OpenJitter(1.5)}},
		{"Probes", []breaker.Option{breaker.Probes(0)}},
		{"ProbeSuccesses", []breaker.Option{breaker.ProbeSuccesses(0)}},
		{"ProbeLease", []breaker.Option{breaker.ProbeLease(-1)}},
		{"Timeout", []breaker.Option{breaker.Timeout(-1)}},
		{"IsFailure", []breaker.Option{breaker.IsFailure(nil)}},
		{"Calls", []breaker.Option{with(func(w *breaker.Window) { w.Calls = -1 })}},
		{"Calls 10 and Time 1s", []breaker.Option{with(func(w *breaker.Window) { w.Time = time.Second })}},
		{"Time is 1ms", []breaker.Option{with(func(w *breaker.Window) { w.Calls, w.Time = 0, time.Millisecond })}},
		{"MinCalls", []breaker.Option{with(func(w *breaker.Window) { w.MinCalls = 11 })}},
		{"FailureRate", []breaker.Option{with(func(w *breaker.Window) { w.FailureRate = 1.1 })}},
		{"FailureRate", []breaker.Option{with(func(w *breaker.Window) { w.FailureRate = 0 })}},
		{"SlowCall", []breaker.Option{with(func(w *breaker.Window) { w.SlowRate = 0.5 })}},
		{"SlowCall", []breaker.Option{with(func(w *breaker.Window) { w.SlowCall = time.Second })}},
	}
	for _, tt := range tests {
		_, err := breaker.New("payment", tt.opts...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "payment") {
			t.Errorf("error %v, want one about payment's %s", err, tt.want)
		}
	}
	if _, err := breaker.New(""); err == nil || !strings.Contains(err.Error(), "name") {
		t.Errorf("error %v, want one about the name", err)
	}
	if b := newBreaker(t, breaker.ConsecutiveFailures(0), breaker.SlidingWindow(rate)); b.Name() != "payment" {
		t.Errorf("name %q", b.Name())
	}
}

func TestFailuresInARowOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t)
		ctx := t.Context()
		for range 10 { // a success between starts the count anew
			for range 4 {
				if err := b.Do(ctx, fails); err != errDown {
					t.Fatalf("error %v, want fn's own", err)
				}
			}
			if err := b.Do(ctx, succeeds); err != nil {
				t.Fatal(err)
			}
		}
		wantState(t, b, breaker.Closed)
		trip(t, b)
		time.Sleep(10 * time.Second)
		called := false
		err := b.Do(ctx, func(context.Context) error { called = true; return nil })
		open, ok := errors.AsType[*breaker.OpenError](err)
		if !ok || !errors.Is(err, breaker.ErrOpen) || called {
			t.Fatalf("error %v, called %v; want an OpenError and no call", err, called)
		}
		if open.Name != "payment" || open.State != breaker.Open || open.RetryAfter() != 20*time.Second || !strings.Contains(err.Error(), "payment") {
			t.Errorf("%v: %+v, retry after %v; want payment, open, 20s", err, open, open.RetryAfter())
		}
		time.Sleep(20*time.Second - 1)
		wantState(t, b, breaker.Open)
		time.Sleep(2) // the breaker's clock may be one nanosecond off
		wantState(t, b, breaker.HalfOpen)
		if open.RetryAfter() != 0 {
			t.Errorf("retry after %v when the time is over", open.RetryAfter())
		}
		if err := b.Do(ctx, succeeds); err != nil {
			t.Fatal(err)
		}
		wantState(t, b, breaker.Closed)
	})
}

func TestHalfOpenAdmitsProbesOnly(t *testing.T) {
	t.Parallel()
	for _, probes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.Probes(probes), breaker.ProbeSuccesses(probes))
			trip(t, b)
			time.Sleep(31 * time.Second)
			var permits []breaker.Permit
			for range 100 {
				p, err := b.Allow()
				if err == nil {
					permits = append(permits, p)
					continue
				}
				if open, ok := errors.AsType[*breaker.OpenError](err); !ok || open.State != breaker.HalfOpen || open.RetryAfter() != 0 {
					t.Fatalf("error %v, want an OpenError that says half-open", err)
				}
			}
			if len(permits) != probes {
				t.Fatalf("%d probes at once, want %d", len(permits), probes)
			}
			permits[0].Cancel()
			again, err := b.Allow()
			if err != nil {
				t.Fatal("the place of a cancelled probe is not free")
			}
			permits[0].Success() // a second answer for the same permit is void
			permits[0] = again
			for i, p := range permits {
				wantState(t, b, breaker.HalfOpen)
				if i == len(permits)-1 {
					p.Done(nil)
				} else {
					p.Success()
				}
			}
			wantState(t, b, breaker.Closed)
		})
	}
}

func TestProbeFailureReopens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.OpenTime(time.Second), breaker.OpenGrowth(2, 5*time.Second))
		trip(t, b)
		for _, want := range []time.Duration{1, 2, 4, 5, 5} {
			var open *breaker.OpenError
			if err := b.Do(t.Context(), succeeds); !errors.As(err, &open) || open.RetryAfter() != want*time.Second {
				t.Fatalf("%v, retry after %v; want %ds", err, open.RetryAfter(), want)
			}
			time.Sleep(want*time.Second + 2)
			if err := b.Do(t.Context(), fails); err != errDown {
				t.Fatalf("probe: %v", err)
			}
		}
		time.Sleep(6 * time.Second)
		if err := b.Do(t.Context(), succeeds); err != nil {
			t.Fatal(err)
		}
		trip(t, b) // the growth starts anew
		time.Sleep(time.Second + 2)
		wantState(t, b, breaker.HalfOpen)
	})
}

func TestOpenJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 50 {
			b := newBreaker(t, breaker.OpenJitter(0.2))
			trip(t, b)
			_, err := b.Allow()
			open, _ := errors.AsType[*breaker.OpenError](err)
			d := open.RetryAfter()
			if d < 24*time.Second || d > 36*time.Second {
				t.Fatalf("open for %v, want 24 to 36 s", d)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("only %d different open times of 50", len(seen))
		}
	})
}

// A probe that never ends, whose permit was lost, panicked or left by Goexit must
// not wedge the half-open state.
func TestHalfOpenCannotWedge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.ProbeLease(10*time.Second))
		trip(t, b)
		time.Sleep(31 * time.Second)
		lost, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second - 2)
		if _, err := b.Allow(); err == nil {
			t.Fatal("a second probe before the lease was over")
		}
		time.Sleep(4)
		second, err := b.Allow()
		if err != nil {
			t.Fatal("no second probe after the lease was over")
		}
		lost.Failure() // too late to count
		wantState(t, b, breaker.HalfOpen)
		second.Success()
		wantState(t, b, breaker.Closed)
	})
}

// The longest lease there is keeps a place for ever, not for no time.
func TestLongestProbeLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.ProbeLease(math.MaxInt64))
		trip(t, b)
		time.Sleep(31 * time.Second)
		if _, err := b.Allow(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if _, err := b.Allow(); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("a second probe beside the first: %v", err)
		}
	})
}

func TestPanicAndGoexitAreFailuresAndGoUp(t *testing.T) {
	t.Parallel()
	leave := map[string]func(context.Context) error{
		"panic":  func(context.Context) error { panic("boom") },
		"Goexit": func(context.Context) error { runtime.Goexit(); return nil },
	}
	for name, fn := range leave {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.Timeout(time.Minute))
			do := func() (returned bool, recovered any) {
				var wg sync.WaitGroup
				wg.Add(1)
				go func() {
					defer wg.Done()
					defer func() { recovered = recover() }()
					_ = b.Do(t.Context(), fn)
					returned = true
				}()
				wg.Wait()
				return
			}
			for range 5 {
				if returned, recovered := do(); returned || (name == "panic") != (recovered == "boom") {
					t.Fatalf("%s: returned %v, recovered %v", name, returned, recovered)
				}
			}
			wantState(t, b, breaker.Open)
			time.Sleep(31 * time.Second)
			do()
			wantState(t, b, breaker.Open)
			if m := b.Metrics(); m.Failures != 6 || m.Requests != 6 {
				t.Errorf("%s: %+v, want 6 failures of 6", name, m)
			}
		})
	}
}

func TestCallerCancelsIsNeutral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t)
		cancelled := func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			return b.Do(ctx, func(ctx context.Context) error {
				cancel()
				return fmt.Errorf("reading: %w", ctx.Err())
			})
		}
		for range 4 {
			_ = b.Do(t.Context(), fails)
		}
		for range 10 {
			if err := cancelled(); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if s := b.Snapshot(); s.State != breaker.Closed || s.FailureCount != 4 || s.Metrics.Cancelled != 10 {
			t.Fatalf("%+v; cancellations are neither failures nor successes", s)
		}
		_ = b.Do(t.Context(), fails)
		wantState(t, b, breaker.Open)
		time.Sleep(31 * time.Second)
		_ = cancelled()
		wantState(t, b, breaker.HalfOpen)
		if err := b.Do(t.Context(), succeeds); err != nil {
			t.Fatalf("the cancelled probe kept its place: %v", err)
		}

		// A context that has ended before: no call, nothing counted.
		before := b.Metrics()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Do(ctx, fails); err != context.Canceled {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff(before, b.Metrics()); diff != "" {
			t.Error(diff)
		}
		// fn's own cancellation of something is an error like any other.
		_ = b.Do(t.Context(), func(context.Context) error { return context.Canceled })
		if b.Snapshot().FailureCount != 1 {
			t.Error("an inner cancellation is not the caller's")
		}
		// By hand, context.Canceled means the caller's.
		p, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		p.Done(context.Canceled)
		if b.Snapshot().FailureCount != 1 {
			t.Error("Done(context.Canceled) is not neutral")
		}
	})
}

func TestTimeoutEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Timeout(time.Second))
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		start := time.Now()
		err := b.Do(t.Context(), hangs)
		if !errors.Is(err, breaker.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v; want ErrTimeout after 1s", time.Since(start), err)
		}
		// The caller's deadline counts too, or a hanging dependency would never trip it.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := b.Do(ctx, hangs); errors.Is(err, breaker.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v; want the caller's deadline", err)
		}
		if err := b.Do(t.Context(), fails); err != errDown {
			t.Error(err)
		}
		if m := b.Metrics(); m.Timeouts != 2 || m.Failures != 3 || m.Requests != 3 {
			t.Errorf("%+v, want 2 timeouts among 3 failures", m)
		}
	})
}

func TestLateResultsAreIgnored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t)
		var early []breaker.Permit
		for range 20 {
			p, err := b.Allow()
			if err != nil {
				t.Fatal(err)
			}
			early = append(early, p)
		}
		trip(t, b)
		time.Sleep(29 * time.Second)
		early[0].Failure() // must not make the open time longer
		time.Sleep(2 * time.Second)
		wantState(t, b, breaker.HalfOpen)
		early[1].Failure()
		wantState(t, b, breaker.HalfOpen)
		early[2].Success()
		wantState(t, b, breaker.HalfOpen)
		if err := b.Do(t.Context(), succeeds); err != nil {
			t.Fatal(err)
		}
		for _, p := range early[3:] {
			p.Failure()
		}
		if s := b.Snapshot(); s.State != breaker.Closed || s.FailureCount != 0 || s.Metrics.Failures != 5+2+17 {
			t.Errorf("%+v; late failures are counted in the metrics only", s)
		}
	})
}

func TestIsFailure(t *testing.T) {
	t.Parallel()
	errNotFound := errors.New("not found")
	b := newBreaker(t, breaker.IsFailure(func(err error) bool { return !errors.Is(err, errNotFound) }))
	for range 10 {
		if err := b.Do(t.Context(), func(context.Context) error { return errNotFound }); err != errNotFound {
			t.Fatal(err)
		}
	}
	if m := b.Metrics(); m.Successes != 10 {
		t.Errorf("%+v, want 10 successes", m)
	}
	trip(t, b)
}

func TestZeroPermit(t *testing.T) {
	t.Parallel()
	var p breaker.Permit
	p.Done(errDown)
	p.Success()
	p.Failure()
	p.Cancel()
}
