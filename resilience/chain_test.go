package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/resilience"
	"github.com/keelson-go/keelson/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

func succeeds(context.Context) error { return nil }
func fails(context.Context) error    { return errDown }

func newBreaker(t testing.TB, opts ...breaker.Option) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New("database", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newLimiter(t testing.TB, opts ...concurrency.Option) *concurrency.Limiter {
	t.Helper()
	l, err := concurrency.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newBudget(t testing.TB, o retry.BudgetOptions) *retry.Budget {
	t.Helper()
	b, err := retry.NewBudget(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantErrors(t *testing.T, err error, wants ...error) {
	t.Helper()
	for _, want := range wants {
		if !errors.Is(err, want) {
			t.Errorf("error %v is not %v", err, want)
		}
	}
}

func TestZeroChainJustCalls(t *testing.T) {
	t.Parallel()
	var c resilience.Chain
	if err := c.Do(t.Context(), succeeds); err != nil {
		t.Error(err)
	}
	if err := c.Do(t.Context(), fails); err != errDown {
		t.Errorf("error %v, want fn's own", err)
	}
	v, err := resilience.DoValue(t.Context(), &c, func(context.Context) (string, error) { return "half", errDown })
	if v != "half" || err != errDown {
		t.Errorf("%q, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Do(ctx, func(context.Context) error { t.Error("called"); return nil }); err != context.Canceled {
		t.Errorf("error %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]resilience.Chain{
		"Chain.Timeout":      {Timeout: -1},
		"Policy.MaxAttempts": {Retry: &retry.Policy{MaxAttempts: -1}},
	} {
		err := c.Do(t.Context(), func(context.Context) error { t.Error("called"); return nil })
		if err == nil || !strings.Contains(err.Error(), want) || err.Error() != c.Check().Error() {
			t.Errorf("Do: %v, Check: %v; want one about %s", err, c.Check(), want)
		}
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t)
		l := newLimiter(t, concurrency.Fixed(10))
		budget := newBudget(t, retry.BudgetOptions{Ratio: -1, PerSecond: 1e-9, Reserve: 4})
		p := retry.Policy{Budget: budget, OnRetry: func(retry.Event) {
			if n := l.Snapshot().InFlight; n != 0 {
				t.Errorf("%d places held in the wait", n)
			}
		}}
		c := resilience.Chain{Breaker: b, Limiter: l, Retry: &p}
		calls := 0
		do := func(failures int) (string, error) {
			calls = 0
			return resilience.DoValue(t.Context(), &c, func(context.Context) (string, error) {
				if n := l.Snapshot().InFlight; n != 1 {
					t.Errorf("%d places held in the call", n)
				}
				if calls++; calls <= failures {
					return "", errDown
				}
				return "row", nil
			})
		}
		if v, err := do(2); v != "row" || err != nil || calls != 3 {
			t.Errorf("%q, %v after %d calls", v, err, calls)
		}
		_, err := do(3)
		wantErrors(t, err, retry.ErrAttempts, errDown)
		if m := b.Metrics(); m.Requests != 6 || m.Failures != 5 {
			t.Errorf("%+v; want each of 6 tries counted", m)
		}
		_, err = do(3)
		wantErrors(t, err, retry.ErrBudget, errDown)
		if calls != 1 || budget.Refused() != 1 {
			t.Errorf("%d calls, %d refused", calls, budget.Refused())
		}
	})
}

// The breaker opens while a call still has tries left: it makes none of them.
func TestOpenBreakerEndsRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := resilience.Chain{
			Breaker: newBreaker(t, breaker.ConsecutiveFailures(2)),
			Limiter: newLimiter(t, concurrency.Fixed(1)),
			Retry:   &retry.Policy{MaxAttempts: 9, RetryIf: func(error) bool { return true }},
		}
		calls := 0
		counting := func(context.Context) error { calls++; return errDown }
		err := c.Do(t.Context(), counting)
		wantErrors(t, err, breaker.ErrOpen, errDown)
		e, ok := errors.AsType[*retry.Error](err)
		if !ok || e.Attempts != 2 || calls != 2 {
			t.Fatalf("%v after %d calls, want 2", err, calls)
		}
		if _, ok := errors.AsType[*breaker.OpenError](err); !ok {
			t.Errorf("%v hides when the breaker lets calls through again", err)
		}

		// Refused from the start: nothing is called, no time passes.
		start := time.Now()
		v, err := resilience.DoValue(t.Context(), &c, func(context.Context) (int, error) { calls++; return 1, nil })
		wantErrors(t, err, breaker.ErrOpen)
		if errors.Is(err, errDown) || calls != 2 || v != 0 || time.Since(start) != 0 {
			t.Errorf("%v, %v after %d calls and %v", v, err, calls, time.Since(start))
		}
		// A Do around it does not try again either.
		outer := 0
		_ = retry.Do(t.Context(), *c.Retry, func(ctx context.Context) error { outer++; return c.Do(ctx, counting) })
		if outer != 1 || calls != 2 {
			t.Errorf("%d tries outside, %d calls", outer, calls)
		}

		// The probe is one try.
		time.Sleep(31 * time.Second)
		wantErrors(t, c.Do(t.Context(), counting), breaker.ErrOpen, errDown)
		if calls != 3 {
			t.Errorf("%d calls of the probe", calls-2)
		}
		if n := c.Limiter.Snapshot().InFlight; n != 0 {
			t.Errorf("%d places held", n)
		}
	})
}

func TestFullLimiterIsNotRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, concurrency.Fixed(1))
		b := newBreaker(t, breaker.ConsecutiveFailures(1))
		c := resilience.Chain{Breaker: b, Limiter: l, Retry: &retry.Policy{RetryIf: func(error) bool { return true }}}
		start := time.Now()
		var inner error
		if err := c.Do(t.Context(), func(ctx context.Context) error {
			inner = c.Do(ctx, succeeds)
			return nil
		}); err != nil {
			t.Error(err)
		}
		wantErrors(t, inner, concurrency.ErrLimit)
		if time.Since(start) != 0 || b.State() != breaker.Closed {
			t.Errorf("%v passed, the breaker is %v; a refusal is no failure", time.Since(start), b.State())
		}

		// A place that is gone at the second try: both reasons.
		l2 := newLimiter(t, concurrency.Fixed(1))
		var taken concurrency.Token
		c = resilience.Chain{Limiter: l2, Retry: &retry.Policy{OnRetry: func(retry.Event) {
			var err error
			if taken, err = l2.TryAcquire(concurrency.Normal); err != nil {
				t.Error(err)
			}
		}}}
		wantErrors(t, c.Do(t.Context(), fails), concurrency.ErrLimit, errDown)
		taken.Ignore()
	})
}

// Waiting in the limiter's queue is part of the Timeout.
func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := resilience.Chain{Limiter: newLimiter(t, concurrency.Fixed(1), concurrency.Queue(10, time.Minute)), Timeout: time.Second, Retry: &retry.Policy{}}
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[string]int{}
		for range 4 {
			wg.Go(func() {
				err := c.Do(t.Context(), func(context.Context) error { time.Sleep(400 * time.Millisecond); return nil })
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					got["done"]++
				case errors.Is(err, context.DeadlineExceeded):
					got["over"]++
				default:
					got[err.Error()]++
				}
			})
		}
		start := time.Now()
		wg.Wait()
		if diff := cmp.Diff(map[string]int{"done": 3, "over": 1}, got); diff != "" || time.Since(start) != 1200*time.Millisecond {
			t.Errorf("in %v: %s", time.Since(start), diff)
		}
	})
}

// So it is of the AttemptTimeout, and the try that never began is not made again.
func TestAttemptTimeoutInTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := resilience.Chain{
			Limiter: newLimiter(t, concurrency.Fixed(1), concurrency.Queue(10, time.Minute)),
			Retry:   &retry.Policy{AttemptTimeout: time.Second},
		}
		held, err := c.Limiter.TryAcquire(concurrency.Normal)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		wantErrors(t, c.Do(t.Context(), func(context.Context) error { t.Error("called"); return nil }), context.DeadlineExceeded)
		if d := time.Since(start); d != time.Second {
			t.Errorf("after %v", d)
		}
		held.Ignore()
		if s := c.Limiter.Snapshot(); s.InFlight != 0 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		for _, p := range []*retry.Policy{nil, {}, {AttemptTimeout: 300 * time.Millisecond, MaxAttempts: 100}} {
			b := newBreaker(t, breaker.ConsecutiveFailures(1000))
			c := resilience.Chain{Breaker: b, Retry: p, Timeout: time.Second}
			var inner context.Context
			start := time.Now()
			err := c.Do(t.Context(), func(ctx context.Context) error { inner = ctx; return hangs(ctx) })
			wantErrors(t, err, context.DeadlineExceeded)
			if d := time.Since(start); d > time.Second || d < 900*time.Millisecond || t.Context().Err() != nil {
				t.Errorf("%+v: ended after %v", p, d)
			}
			if m := b.Metrics(); m.Timeouts == 0 || m.Timeouts != m.Requests {
				t.Errorf("%+v; want timeouts only", m)
			}
			if err := c.Do(t.Context(), func(ctx context.Context) error { inner = ctx; return nil }); err != nil || inner.Err() == nil {
				t.Errorf("%v; the timer of a call that is over still runs: %v", err, inner.Err() == nil)
			}
		}
		// The breaker's own Timeout works in the chain, and is worth a retry.
		c := resilience.Chain{Breaker: newBreaker(t, breaker.Timeout(time.Second)), Retry: &retry.Policy{}}
		wantErrors(t, c.Do(t.Context(), hangs), breaker.ErrTimeout, retry.ErrAttempts)
	})
}

// However a call ends, its place is free again.
func TestPlaceIsGivenBack(t *testing.T) {
	t.Parallel()
	for _, with := range []struct {
		name    string
		breaker *breaker.Breaker
	}{{"breaker", newBreaker(t)}, {"no breaker", nil}} {
		for name, fn := range map[string]func(context.Context) error{
			"success": succeeds,
			"failure": fails,
			"panic":   func(context.Context) error { panic("boom") },
			"Goexit":  func(context.Context) error { runtime.Goexit(); return nil },
		} {
			c := resilience.Chain{Breaker: with.breaker, Limiter: newLimiter(t, concurrency.Fixed(1)), Retry: &retry.Policy{MaxAttempts: 1}}
			var recovered any
			var wg sync.WaitGroup
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer func() { recovered = recover() }()
				_ = c.Do(t.Context(), fn)
			}()
			wg.Wait()
			if (name == "panic") != (recovered == "boom") {
				t.Errorf("%s: recovered %v", name, recovered)
			}
			if n := c.Limiter.Snapshot().InFlight; n != 0 {
				t.Errorf("%s, %s: %d places held", with.name, name, n)
			}
		}
	}
}

// An open breaker refuses at once, not after a wait for a place, and says so too if
// no place is free.
func TestOpenBreakerIsAskedBeforeTheQueue(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]concurrency.Option{
		"queue":    {concurrency.Fixed(1), concurrency.Queue(10, time.Minute)},
		"no queue": {concurrency.Fixed(1)},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := resilience.Chain{
				Breaker: newBreaker(t, breaker.ConsecutiveFailures(1), breaker.OpenTime(time.Second)),
				Limiter: newLimiter(t, opts...),
			}
			hung, err := c.Limiter.TryAcquire(concurrency.Normal)
			if err != nil {
				t.Fatal(err)
			}
			wantErrors(t, c.Breaker.Do(t.Context(), fails), errDown)
			start := time.Now()
			wantErrors(t, c.Do(t.Context(), succeeds), breaker.ErrOpen)
			if m := c.Breaker.Metrics(); time.Since(start) != 0 || m.Rejected != 1 || m.Cancelled != 0 || c.Limiter.Snapshot().Rejected.Total() != 0 {
				t.Errorf("%s: after %v, %+v, %+v", name, time.Since(start), m, c.Limiter.Snapshot())
			}

			// Half-open, the limiter comes first, so that the probe's place is not kept in a queue.
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.Do(ctx, succeeds); err == nil || errors.Is(err, breaker.ErrOpen) || c.Breaker.State() != breaker.HalfOpen {
				t.Errorf("%s: %v, the breaker is %v", name, err, c.Breaker.State())
			}
			hung.Ignore()
			if err := c.Do(t.Context(), succeeds); err != nil || c.Breaker.State() != breaker.Closed {
				t.Errorf("%s: %v, the breaker is %v", name, err, c.Breaker.State())
			}
		})
	}
}

func TestPriority(t *testing.T) {
	t.Parallel()
	c := resilience.Chain{Limiter: newLimiter(t, concurrency.Fixed(20))}
	nested := 0
	var nest func(context.Context) error
	nest = func(ctx context.Context) error { nested++; return c.Do(ctx, nest) }
	var reached []int
	for _, p := range []concurrency.Priority{concurrency.Low, concurrency.Normal, concurrency.Critical} {
		nested = 0
		wantErrors(t, c.Do(concurrency.ContextWithPriority(t.Context(), p), nest), concurrency.ErrLimit)
		reached = append(reached, nested)
	}
	if !(reached[0] < reached[1] && reached[1] < reached[2] && reached[2] == 20) {
		t.Errorf("%v places by priority", reached)
	}
}

// What is told to an adaptive limiter: running out of time is overload; failing,
// panicking, a caller that has gone and what the breaker refused are not.
func TestAdaptiveLimiterLearns(t *testing.T) {
	t.Parallel()
	const usual = 10 * time.Millisecond
	returns := func(err error) func(*testing.T, *resilience.Chain) {
		return func(t *testing.T, c *resilience.Chain) {
			_ = c.Do(t.Context(), func(context.Context) error { time.Sleep(usual); return err })
		}
	}
	tests := []struct {
		name    string
		do      func(*testing.T, *resilience.Chain)
		lowered bool
	}{
		{"failures", returns(errDown), false},
		{"a cancellation that is not the caller's", returns(context.Canceled), false},
		{"deadlines", returns(fmt.Errorf("query: %w", context.DeadlineExceeded)), true},
		{"deadlines of connections", returns(os.ErrDeadlineExceeded), true},
		{"the other side's limit", returns(&concurrency.LimitError{}), true},
		{"the breaker's timeout", func(t *testing.T, c *resilience.Chain) {
			with := *c
			with.Breaker = newBreaker(t, breaker.Timeout(usual))
			_ = with.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return errDown })
		}, true},
		{"callers that have gone", func(t *testing.T, c *resilience.Chain) {
			ctx, cancel := context.WithCancel(t.Context())
			_ = c.Do(ctx, func(ctx context.Context) error { time.Sleep(usual); cancel(); return context.DeadlineExceeded })
		}, false},
		{"panics", func(t *testing.T, c *resilience.Chain) {
			defer func() { _ = recover() }()
			_ = c.Do(t.Context(), func(context.Context) error { time.Sleep(usual); panic("boom") })
		}, false},
		{"refusals", func(t *testing.T, c *resilience.Chain) {
			with := *c
			with.Breaker = newBreaker(t, breaker.ConsecutiveFailures(1))
			_ = with.Do(t.Context(), fails)
			for range 4 {
				_ = with.Do(t.Context(), fails)
				time.Sleep(usual)
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := resilience.Chain{Limiter: newLimiter(t, concurrency.Adaptive(concurrency.AdaptiveOptions{Initial: 100, Min: 2, Max: 100}))}
				var mu sync.Mutex
				lowest := 100
				run := func(do func(*testing.T, *resilience.Chain)) {
					var wg sync.WaitGroup
					for range 50 {
						wg.Go(func() {
							for range 100 {
								do(t, &c)
								mu.Lock()
								lowest = min(lowest, c.Limiter.Snapshot().Limit)
								mu.Unlock()
							}
						})
					}
					wg.Wait()
				}
				run(returns(nil))
				if lowest < 100 {
					t.Fatalf("limit %d though all is well", lowest)
				}
				run(tt.do)
				if (lowest < 100) != tt.lowered {
					t.Errorf("limit down to %d; want it lowered: %v", lowest, tt.lowered)
				}
			})
		})
	}
}
