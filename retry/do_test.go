package retry_test

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
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

func succeeds(context.Context) error { return nil }

// failing returns a function that fails so often, with err, before it succeeds, and
// the number of its calls.
func failing(times int, err error) (func(context.Context) error, *int) {
	calls := new(int)
	return func(context.Context) error {
		if *calls++; *calls <= times {
			return err
		}
		return nil
	}, calls
}

func newBudget(t testing.TB, o retry.BudgetOptions) *retry.Budget {
	t.Helper()
	b, err := retry.NewBudget(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPolicyErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		want   string
		policy retry.Policy
	}{
		{"MaxAttempts", retry.Policy{MaxAttempts: -1}},
		{"MaxAfter", retry.Policy{MaxAfter: -1}},
		{"AttemptTimeout", retry.Policy{AttemptTimeout: -1}},
		{"TotalTimeout", retry.Policy{TotalTimeout: math.MinInt64}},
		{"Backoff.Base", retry.Policy{Backoff: retry.Backoff{Base: -1}}},
		{"Backoff.Max", retry.Policy{Backoff: retry.Backoff{Max: -1}}},
		{"Backoff.Max", retry.Policy{Backoff: retry.Backoff{Base: 2, Max: 1}}},
		{"Backoff.Factor", retry.Policy{Backoff: retry.Backoff{Factor: 0.9}}},
		{"Backoff.Factor", retry.Policy{Backoff: retry.Backoff{Factor: -2}}},
		{"Backoff.Factor", retry.Policy{Backoff: retry.Backoff{Factor: math.NaN()}}},
		{"Backoff.Factor", retry.Policy{Backoff: retry.Backoff{Factor: math.Inf(1)}}},
	}
	for _, tt := range tests {
		fn, calls := failing(0, nil)
		err := retry.Do(t.Context(), tt.policy, fn)
		if err == nil || !strings.Contains(err.Error(), "Policy."+tt.want+" is ") || !strings.Contains(err.Error(), ": give ") || *calls != 0 {
			t.Errorf("error %v after %d calls; want one about %s and no call", err, *calls, tt.want)
		}
		if check := tt.policy.Check(); check == nil || check.Error() != err.Error() {
			t.Errorf("Check: %v, Do: %v", check, err)
		}
	}
	for _, p := range []retry.Policy{{}, {MaxAttempts: math.MaxInt, MaxAfter: math.MaxInt64}, {Backoff: retry.Backoff{Base: time.Hour}}, {Backoff: retry.Backoff{Max: 1, Factor: 1}}} {
		if err := p.Check(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		policy   retry.Policy
		failures int
		err      error
		calls    int
		reason   error // nil: the error as it is, or none
	}{
		{"success", retry.Policy{}, 0, nil, 1, nil},
		{"cured by the last try", retry.Policy{}, 2, errDown, 3, nil},
		{"three tries by default", retry.Policy{}, 3, errDown, 3, retry.ErrAttempts},
		{"five tries", retry.Policy{MaxAttempts: 5}, 9, errDown, 5, retry.ErrAttempts},
		{"no retries asked for", retry.Policy{MaxAttempts: 1}, 1, errDown, 1, nil},
		{"permanent", retry.Policy{}, 1, fmt.Errorf("saving: %w", retry.Permanent(errDown)), 1, nil},
		{"permanent, whatever RetryIf says", retry.Policy{RetryIf: func(error) bool { return true }}, 1, retry.Permanent(errDown), 1, nil},
		{"RetryIf says no", retry.Policy{RetryIf: func(err error) bool { return err != errDown }}, 1, errDown, 1, nil},
		{"RetryIf says yes", retry.Policy{RetryIf: func(err error) bool { return err == errDown }}, 3, errDown, 3, retry.ErrAttempts},
		{"a Do inside gave up", retry.Policy{}, 1, fmt.Errorf("inside: %w", &retry.Error{Attempts: 3, Reason: retry.ErrBudget, Err: errDown}), 1, nil},
		{"a budget inside refused", retry.Policy{}, 1, fmt.Errorf("%w (%w)", errDown, retry.ErrBudget), 1, nil},
		{"wait longer than MaxAfter", retry.Policy{}, 1, retry.After(errDown, 11*time.Second), 1, retry.ErrTime},
		{"wait as long as MaxAfter", retry.Policy{}, 1, retry.After(errDown, 10*time.Second), 2, nil},
		{"wait too long to be added", retry.Policy{MaxAfter: math.MaxInt64}, 1, retry.After(errDown, math.MaxInt64), 1, retry.ErrTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fn, calls := failing(tt.failures, tt.err)
				err := retry.Do(t.Context(), tt.policy, fn)
				if *calls != tt.calls {
					t.Errorf("%d calls, want %d", *calls, tt.calls)
				}
				switch {
				case tt.calls > tt.failures:
					if err != nil {
						t.Errorf("error %v", err)
					}
				case tt.reason == nil:
					if err != tt.err {
						t.Errorf("error %v, want fn's own", err)
					}
				default:
					e, ok := err.(*retry.Error)
					if !ok || !errors.Is(err, tt.reason) || !errors.Is(err, errDown) || e.Attempts != tt.calls || e.Err != tt.err {
						t.Errorf("error %#v, want one of %d tries because %v", err, tt.calls, tt.reason)
					}
					for _, part := range []string{tt.reason.Error(), fmt.Sprint("tries: ", tt.calls), errDown.Error()} {
						if !strings.Contains(err.Error(), part) {
							t.Errorf("error %q does not tell %q", err, part)
						}
					}
				}
			})
		})
	}
}

func TestDoValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		do := func(context.Context) (string, error) {
			if tries++; tries%2 == 1 {
				return "half", errDown
			}
			return "whole", nil
		}
		if v, err := retry.DoValue(t.Context(), retry.Policy{}, do); v != "whole" || err != nil || tries != 2 {
			t.Errorf("%q, %v after %d tries", v, err, tries)
		}
		if v, err := retry.DoValue(t.Context(), retry.Policy{MaxAttempts: 1}, do); v != "half" || err != errDown {
			t.Errorf("%q, %v; want the last try's value and error", v, err)
		}
	})
}

func TestMarks(t *testing.T) {
	t.Parallel()
	if retry.Permanent(nil) != nil || retry.After(nil, time.Second) != nil {
		t.Error("a mark made an error of nil")
	}
	for _, err := range []error{retry.Permanent(errDown), retry.After(errDown, -1)} {
		if err.Error() != "down" || !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}
	}
	w := retry.After(errDown, -time.Second).(interface{ RetryAfter() time.Duration })
	if w.RetryAfter() != 0 {
		t.Errorf("after %v", w.RetryAfter())
	}
}

// The waits are what OnRetry is told, at least what the error asks for, and not the
// same for everybody who is told the same.
func TestWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 50 {
			var waited []time.Duration
			begin, last := time.Now(), retry.Event{}
			p := retry.Policy{Backoff: retry.Backoff{Base: time.Second, Max: 2 * time.Second}, MaxAttempts: 4}
			p.OnRetry = func(e retry.Event) {
				if e.Attempt != last.Attempt+1 || !errors.Is(e.Err, errDown) || time.Since(begin) != 0 {
					t.Errorf("%+v after %+v", e, last)
				}
				last = e
			}
			_ = retry.Do(t.Context(), p, func(context.Context) error {
				if last.Attempt > 0 {
					waited = append(waited, time.Since(begin))
					if waited[last.Attempt-1] != last.Delay {
						t.Errorf("waited %v, told %v", waited, last.Delay)
					}
				}
				begin = time.Now()
				if last.Attempt == 1 {
					return retry.After(errDown, 5*time.Second)
				}
				return errDown
			})
			for i, limits := range [][2]time.Duration{{0, 1}, {5, 7}, {0, 2}} {
				if waited[i] < limits[0]*time.Second || waited[i] > limits[1]*time.Second {
					t.Errorf("wait %d is %v, want %d to %d s", i+1, waited[i], limits[0], limits[1])
				}
			}
			seen[waited[1]] = true
		}
		if len(seen) < 40 {
			t.Errorf("only %d different waits of 50 that were asked for the same", len(seen))
		}
	})
}

func TestCallerCancels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		slow := retry.Policy{RetryIf: func(error) bool { return true }, MaxAfter: time.Hour}
		go func() { time.Sleep(time.Minute); cancel() }()
		start := time.Now()
		fn, calls := failing(9, retry.After(errDown, time.Hour))
		err := retry.Do(ctx, slow, fn)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errDown) || errors.Is(err, retry.ErrTime) || time.Since(start) != time.Minute || *calls != 1 {
			t.Errorf("after %v and %d calls: %v; want a cancellation in the wait", time.Since(start), *calls, err)
		}
		fn, calls = failing(9, errDown)
		if err := retry.Do(ctx, slow, fn); err != context.Canceled || *calls != 0 {
			t.Errorf("%v after %d calls; want no call, as the caller had gone", err, *calls)
		}

		// A permanent error is no less so, nor is it a cancellation.
		inTry, cancelInTry := context.WithCancel(t.Context())
		final := retry.Permanent(errDown)
		if err := retry.Do(inTry, slow, func(context.Context) error { cancelInTry(); return final }); err != final {
			t.Errorf("%v; want the permanent error as it is", err)
		}

		// During a try: fn's own error if it tells, else both.
		for _, told := range []bool{true, false} {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			err := retry.Do(ctx, slow, func(ctx context.Context) error {
				calls++
				cancel()
				if told {
					return fmt.Errorf("reading: %w", ctx.Err())
				}
				return errDown
			})
			_, wrapped := err.(*retry.Error)
			if !errors.Is(err, context.Canceled) || wrapped == told || errors.Is(err, errDown) == told || calls != 1 {
				t.Errorf("%v after %d calls", err, calls)
			}
		}
	})
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

		// Each try has its time; after the last one it was the tries that ran out.
		start := time.Now()
		tries := 0
		err := retry.Do(t.Context(), retry.Policy{AttemptTimeout: time.Minute}, func(ctx context.Context) error { tries++; return hangs(ctx) })
		if d := time.Since(start); !errors.Is(err, retry.ErrAttempts) || !errors.Is(err, context.DeadlineExceeded) || tries != 3 || d < 3*time.Minute || d > 3*time.Minute+time.Second {
			t.Errorf("%d tries in %v: %v", tries, d, err)
		}

		// The whole has its time, and a try does not go beyond it.
		start = time.Now()
		err = retry.Do(t.Context(), retry.Policy{AttemptTimeout: time.Minute, TotalTimeout: 90 * time.Second}, hangs)
		if time.Since(start) != 90*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in %v: %v", time.Since(start), err)
		}
		if t.Context().Err() != nil {
			t.Error("the caller's context has ended")
		}

		// The time ends in the try, which says something else.
		err = retry.Do(t.Context(), retry.Policy{TotalTimeout: time.Second}, func(context.Context) error { time.Sleep(2 * time.Second); return errDown })
		if !errors.Is(err, retry.ErrTime) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}

		// The wait would be longer than the time left: no wait at all.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		budget := newBudget(t, retry.BudgetOptions{})
		start = time.Now()
		err = retry.Do(ctx, retry.Policy{Budget: budget}, func(context.Context) error { return retry.After(errDown, time.Second) })
		if time.Since(start) != 0 || !errors.Is(err, retry.ErrTime) || errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) {
			t.Errorf("in %v: %v", time.Since(start), err)
		}
		if budget.Left() != 10 || budget.Refused() != 0 {
			t.Errorf("%v left of the budget, %d refused; a retry that was not made costs nothing", budget.Left(), budget.Refused())
		}
	})
}

func TestDoWithBudget(t *testing.T) {
	t.Parallel()
	budget := newBudget(t, retry.BudgetOptions{Ratio: 0.5, Reserve: 2, PerSecond: -1})
	p := retry.Policy{Budget: budget, Backoff: retry.Backoff{Base: 1, Max: 1}}
	var calls []int
	for range 6 {
		fn, n := failing(9, errDown)
		err := retry.Do(t.Context(), p, fn)
		if !errors.Is(err, errDown) || (*n < 3) != errors.Is(err, retry.ErrBudget) {
			t.Errorf("%v after %d calls", err, *n)
		}
		calls = append(calls, *n)
	}
	if diff := cmp.Diff([]int{3, 1, 2, 1, 2, 1}, calls); diff != "" {
		t.Error(diff)
	}
	if budget.Refused() != 5 || budget.Left() != 0.5 {
		t.Errorf("%d refused, %v left", budget.Refused(), budget.Left())
	}
}

func TestPanicAndGoexit(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		var tried context.Context
		var recovered any
		var wg sync.WaitGroup
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { recovered = recover() }()
			_ = retry.Do(t.Context(), retry.Policy{AttemptTimeout: time.Hour, TotalTimeout: time.Hour}, func(ctx context.Context) error {
				tried = ctx
				leave()
				return nil
			})
		}()
		wg.Wait()
		if (name == "panic") != (recovered == "boom") {
			t.Errorf("%s: recovered %v", name, recovered)
		}
		if tried.Err() == nil {
			t.Errorf("%s: the try's timer still runs", name)
		}
	}
}

// Whatever fn does, Do keeps to the policy: never more tries, never longer, never
// more retries than were paid for, and nothing is left behind.
func TestDoKeepsToThePolicy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(p *rapid.T) {
		ms := func(most int, name string) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(p, name)) * time.Millisecond
		}
		policy := retry.Policy{
			MaxAttempts:    rapid.IntRange(0, 6).Draw(p, "attempts"),
			Backoff:        retry.Backoff{Base: ms(50, "base"), Max: 100 * time.Millisecond},
			AttemptTimeout: ms(40, "attempt timeout"),
			TotalTimeout:   ms(300, "total timeout"),
			MaxAfter:       ms(100, "max after"),
		}
		type step struct {
			takes, after time.Duration
			fails        bool
		}
		steps := rapid.SliceOfN(rapid.Custom(func(p *rapid.T) step {
			return step{ms(60, "takes"), ms(120, "after"), rapid.IntRange(0, 3).Draw(p, "fails") > 0}
		}), 6, 6).Draw(p, "steps")
		reserve := rapid.IntRange(1, 4).Draw(p, "reserve")
		limit := ms(400, "deadline")
		var bad []string
		synctest.Test(t, func(t *testing.T) {
			check := func(ok bool, format string, args ...any) {
				if !ok {
					bad = append(bad, fmt.Sprintf(format, args...))
				}
			}
			policy.Budget = newBudget(t, retry.BudgetOptions{Reserve: reserve, Ratio: -1, PerSecond: 1e-9})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			retries, calls := 0, 0
			policy.OnRetry = func(retry.Event) { retries++ }
			var contexts []context.Context
			start := time.Now()
			err := retry.Do(ctx, policy, func(ctx context.Context) error {
				contexts = append(contexts, ctx)
				s := steps[calls]
				calls++
				timer := time.NewTimer(s.takes)
				defer timer.Stop()
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-timer.C:
				}
				if s.fails {
					return retry.After(errDown, s.after)
				}
				return nil
			})
			took := time.Since(start)
			most := policy.MaxAttempts
			if most == 0 {
				most = retry.DefaultMaxAttempts
			}
			check(calls <= most && retries <= reserve, "%d calls, %d retries", calls, retries)
			check(calls == 0 || retries == calls-1 || (retries == calls && errors.Is(err, ctx.Err())), "%d calls, %d retries", calls, retries)
			check(took <= limit && (policy.TotalTimeout == 0 || took <= policy.TotalTimeout), "took %v", took)
			check(math.Abs(policy.Budget.Left()-float64(reserve-retries)) < 1e-6, "%v left of %d after %d retries", policy.Budget.Left(), reserve, retries)
			check(err == nil || errors.Is(err, errDown) || errors.Is(err, context.DeadlineExceeded), "%v", err)
			if policy.AttemptTimeout > 0 || policy.TotalTimeout > 0 {
				for _, c := range contexts {
					check(c.Err() != nil, "a try's context has not ended")
				}
			}
		})
		if len(bad) > 0 {
			p.Fatal(bad)
		}
	})
}
