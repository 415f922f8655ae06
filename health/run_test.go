package health_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
)

// Slow checks don't hold each other up.
func TestChecksRunConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		begin := time.Now()
		for _, name := range []string{"a", "b", "c", "d"} {
			add(t, h, name, func(context.Context) error { time.Sleep(3 * time.Second); return nil }, health.Critical())
		}
		run(t, h)
		if err := h.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("ready after %v, want 3 s", d)
		}
		for name, d := range h.Report().Dependencies {
			if d.ResponseTime != 3000 || !d.LastCheck.Equal(begin.Add(3*time.Second)) {
				t.Errorf("%s: %+v", name, d)
			}
		}
	})
}

func TestCheckAddedWhileRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		h.Started()
		run(t, h)
		synctest.Wait()
		add(t, h, "a", fail)
		add(t, h, "b", fail, health.Critical())
		synctest.Wait()
		if got := h.Status(); got != health.Unhealthy {
			t.Errorf("Status = %s, want unhealthy at once", got)
		}
	})
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		check health.Check
	}{
		{"a check that honours its context", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{"a check that does not", func(context.Context) error { time.Sleep(time.Minute); return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := health.New("1")
				h.Started()
				var running, most atomic.Int32
				add(t, h, "slow", func(ctx context.Context) error {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					return tt.check(ctx)
				}, health.Timeout(2*time.Second))
				run(t, h)
				time.Sleep(2*time.Second - 1)
				synctest.Wait()
				if got := h.Report().Dependencies["slow"].Status; got != health.Unknown {
					t.Errorf("before its time is up: %s", got)
				}
				time.Sleep(1)
				synctest.Wait()
				if d := h.Report().Dependencies["slow"]; d.Error != "no answer within 2s" || d.ResponseTime != 2000 {
					t.Errorf("when its time is up: %+v", d)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if h.Status() != health.Degraded || most.Load() != 1 {
					t.Errorf("later: %s, %d at once", h.Status(), most.Load())
				}
			})
		})
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		h.Started()
		add(t, h, "panics", func(context.Context) error { panic("boom") })
		add(t, h, "typed nil", func(context.Context) error { var e *textError; return e })
		run(t, h)
		synctest.Wait()
		for name, d := range h.Report().Dependencies {
			if d.Status != health.Unhealthy || !strings.HasPrefix(d.Error, "the check panicked: ") {
				t.Errorf("%s: %+v", name, d)
			}
		}
	})
}

type textError struct{ text string }

func (e *textError) Error() string { return e.text }

// A check broken off by the end of Run is not a failure.
func TestEndOfRunIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		h.Started()
		first := true
		add(t, h, "database", func(ctx context.Context) error {
			if first {
				first = false
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}, health.Critical(), health.Interval(time.Second), health.Timeout(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(10 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if h.Status() != health.Healthy {
			t.Errorf("Status = %s: %+v", h.Status(), h.Report())
		}
	})
}

// Run returns only after every check has returned.
func TestRunWaitsForChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		var returned atomic.Bool
		add(t, h, "stubborn", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			returned.Store(true)
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Run(ctx); err != nil || !returned.Load() {
			t.Errorf("Run = %v, check returned: %v", err, returned.Load())
		}
	})
}

// A failing check is tried again soon, then less and less often; a pass puts it
// back to its interval, and the next failure starts anew.
func TestRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const passes = 7 // the run that passes; all others fail
		var at []time.Time
		h := health.New("1")
		add(t, h, "a", func(context.Context) error {
			at = append(at, time.Now())
			if len(at)-1 == passes {
				return nil
			}
			return errDown
		}, health.Interval(3*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{250, 500, 1000, 2000, 3000, 3000, 3000, 3000, 250, 500} {
			want *= time.Millisecond
			if pause := at[i+1].Sub(at[i]); pause < want*9/10 || pause > want*11/10 {
				t.Errorf("pause %d is %v, want about %v", i, pause, want)
			}
		}
	})
}

// A check that ends its goroutine, as a test's FailNow does, holds nothing up.
func TestGoexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		add(t, h, "a", func(context.Context) error { runtime.Goexit(); return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if d := h.Report().Dependencies["a"]; d.Status != health.Unhealthy || d.Error != "the check ended its goroutine" {
			t.Errorf("%+v", d)
		}
	})
}

// The longest interval is no short one, whatever the jitter.
func TestLongestInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1", health.Defaults(health.Interval(math.MaxInt64)))
		const checks = 50
		var runs atomic.Int32
		for i := range checks {
			add(t, h, fmt.Sprint(i), func(context.Context) error { runs.Add(1); return nil })
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Run(ctx); err != nil || runs.Load() != checks {
			t.Errorf("%d checks ran %d times, %v", checks, runs.Load(), err)
		}
	})
}
