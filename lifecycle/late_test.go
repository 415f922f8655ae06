package lifecycle_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/lifecycle"
)

// stuck serves until release is closed, whatever its context says.
func stuck(release <-chan struct{}) func(context.Context, func()) error {
	return func(_ context.Context, ready func()) error {
		ready()
		<-release
		return nil
	}
}

func TestStopTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		j, g := newJournal(), lifecycle.New(lifecycle.StopTimeout(5*time.Second))
		g.OnStop("flush", time.Second, func(ctx context.Context) error { j.note("flush, %v", ctx.Err()); return ctx.Err() })
		g.Add(j.component("a", 0, 0, nil))
		g.Add(j.component("b", 0, 500*time.Millisecond, errBroken))
		g.Add("stuck", stuck(release))
		g.Add(j.component("c", 0, time.Second, nil))
		err := g.Run(timeout(t, time.Second))
		j.note("end")
		checkError(t, err, "stop stuck: still running: the time to stop is over\n"+
			"stop b: the time to stop is over: broken\nstop a: the time to stop is over\nstop flush: the time to stop is over",
			lifecycle.ErrStopTimeout, errBroken)
		j.mu.Lock()
		defer j.mu.Unlock()
		// From 6 s on (1 + 5) all are told at once, in no order; Run ends a second later.
		if n := len(j.lines); j.lines[n-1] != "7 end" || j.lines[n-2] != "6.5 b down" {
			t.Errorf("%q", j.lines)
		}
		for _, line := range []string{"2 c down", "6 a down", "6 flush, context deadline exceeded"} {
			if !slices.Contains(j.lines, line) {
				t.Errorf("%q is not in %q", line, j.lines)
			}
		}
	})
}

// The time counts from the stop, not from the start, and in all.
func TestStopTimeoutIsTotal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, g := newJournal(), lifecycle.New() // 10 s
		g.Add(j.component("a", 20*time.Second, 4*time.Second, nil))
		g.Add(j.component("b", 20*time.Second, 4*time.Second, nil))
		g.Add(j.component("c", 20*time.Second, 4*time.Second, nil))
		err := g.Run(timeout(t, time.Hour))
		checkError(t, err, "stop a: still running: the time to stop is over", lifecycle.ErrStopTimeout)
		time.Sleep(time.Minute) // let a end, for the bubble
	})
}

func TestHookTimeout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		hook  func(ctx context.Context, release <-chan struct{}) error
		error string
	}{
		{"a hook that honours its context", func(ctx context.Context, _ <-chan struct{}) error {
			<-ctx.Done()
			return ctx.Err()
		}, "stop drain: the time to stop is over"},
		{"a hook that has something to say", func(ctx context.Context, _ <-chan struct{}) error {
			<-ctx.Done()
			return errBroken
		}, "stop drain: the time to stop is over: broken"},
		{"a hook that comes a little late", func(context.Context, <-chan struct{}) error {
			time.Sleep(2500 * time.Millisecond)
			return nil
		}, "stop drain: the time to stop is over"},
		{"a hook that never returns", func(_ context.Context, release <-chan struct{}) error {
			<-release
			return nil
		}, "stop drain: still running: the time to stop is over"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				j, g := newJournal(), lifecycle.New()
				g.Add(j.component("a", 0, 0, nil))
				g.OnStop("drain", 2*time.Second, func(ctx context.Context) error { return tt.hook(ctx, release) })
				err := g.Run(timeout(t, time.Second))
				checkError(t, err, tt.error, lifecycle.ErrStopTimeout)
				// The rest goes on in its order when the hook's time is over.
				j.check(t, "0 a up", "3 a told", "3 a down")
				if d := time.Since(j.began); d > 4*time.Second {
					t.Errorf("Run took %v", d)
				}
			})
		})
	}
}

// A component whose context has ended may say so; a hook that was cancelled by
// somebody else in its time has not done its work.
func TestCancelledHookIsTold(t *testing.T) {
	t.Parallel()
	g := lifecycle.New()
	g.Add("server", func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return ctx.Err()
	})
	g.OnStop("drain", time.Minute, func(context.Context) error { return context.Canceled })
	ctx, cancel := context.WithCancel(t.Context())
	g.Add("last", func(ctx context.Context, ready func()) error {
		cancel()
		<-ctx.Done()
		return nil
	})
	checkError(t, g.Run(ctx), "stop drain: context canceled", context.Canceled)
}

func TestForce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		at    time.Duration // of force; the context ends at 10 s
		error string
	}{
		{"while starting", 1 * time.Second, "stopped by force\nstop b: still running\nstop a: still running\nstop h: not called"},
		{"while serving", 5 * time.Second, "stopped by force\nstop c: still running\nstop b: still running\nstop a: still running\nstop h: not called"},
		{"while stopping", 12 * time.Second, "stopped by force\nstop b: still running\nstop a: still running\nstop h: not called"},
		{"while told late ones are waited for", 20500 * time.Millisecond, "stopped by force\nstop b: still running\nstop a: the time to stop is over\nstop h: the time to stop is over"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				force := make(chan struct{})
				j, g := newJournal(), lifecycle.New(lifecycle.ForceOn(force))
				g.OnStop("h", 0, func(context.Context) error { return nil })
				var told []context.Context
				g.Add("a", func(ctx context.Context, ready func()) error {
					told = append(told, ctx)
					ready()
					<-ctx.Done()
					return nil
				})
				g.Add("b", func(_ context.Context, ready func()) error {
					time.Sleep(2 * time.Second)
					ready()
					<-release
					return nil
				})
				g.Add(j.component("c", 0, 0, nil))
				time.AfterFunc(tt.at, func() { close(force) })
				err := g.Run(timeout(t, 10*time.Second))
				checkError(t, err, tt.error, lifecycle.ErrForced)
				if d := time.Since(j.began); d != tt.at {
					t.Errorf("Run returned at %v, forced at %v", d, tt.at)
				}
				for _, ctx := range told {
					if ctx.Err() == nil {
						t.Error("a was not told")
					}
				}
				synctest.Wait()
				time.Sleep(time.Minute)
			})
		})
	}
}

// A hook under way when force comes has its context ended.
func TestForceEndsHook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		force := make(chan struct{})
		g := lifecycle.New(lifecycle.ForceOn(force))
		ended := make(chan error, 1)
		g.OnStop("drain", time.Minute, func(ctx context.Context) error { <-ctx.Done(); ended <- ctx.Err(); return ctx.Err() })
		time.AfterFunc(2*time.Second, func() { close(force) })
		checkError(t, g.Run(timeout(t, time.Second)), "stopped by force\nstop drain: still running", lifecycle.ErrForced)
		if err := <-ended; err == nil {
			t.Error("the hook's context goes on")
		}
	})
}

// One that failed before force is used is told once, with its own error.
func TestForceAfterFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		force := make(chan struct{})
		j, g := newJournal(), lifecycle.New(lifecycle.ForceOn(force))
		g.Add(j.failing("a", 0, time.Second, errBroken))
		g.Add(j.failing("b", 0, 2*time.Second, errFlush))
		g.Add("stuck", stuck(release))
		time.AfterFunc(3*time.Second, func() { close(force) })
		checkError(t, g.Run(t.Context()), "a: broken\nstopped by force\nstop stuck: still running\nstop b: flush failed",
			lifecycle.ErrForced, errBroken, errFlush)
	})
}
