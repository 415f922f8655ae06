package breaker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/breaker"
)

// play makes calls, one a letter: s succeeds, f fails, z takes 2 s, '.' waits 1 s.
func play(t *testing.T, b *breaker.Breaker, calls string) {
	t.Helper()
	for _, c := range calls {
		if c == '.' {
			time.Sleep(time.Second)
			continue
		}
		err := b.Do(t.Context(), func(context.Context) error {
			switch c {
			case 'f':
				return errDown
			case 'z':
				time.Sleep(2 * time.Second)
			}
			return nil
		})
		if err != nil && err != errDown {
			t.Fatalf("%c: %v", c, err)
		}
	}
}

func TestSlidingWindow(t *testing.T) {
	t.Parallel()
	calls := breaker.Window{Calls: 10, MinCalls: 4, FailureRate: 0.5}
	timed := breaker.Window{Time: 10 * time.Second, MinCalls: 4, FailureRate: 0.5}
	slow := breaker.Window{Calls: 4, SlowRate: 0.75, SlowCall: 2 * time.Second}
	tests := []struct {
		name   string
		window breaker.Window
		before string // stays closed
		last   string // opens
	}{
		{"not below the minimum", calls, "fff", "f"},
		{"a success can complete the minimum", calls, "fff", "s"},
		{"the rate is enough", calls, "sfsssfsfs", "ff"},
		{"old calls leave the window", breaker.Window{Calls: 10, FailureRate: 0.5}, "ffffssssss" + "ssss" + "ffff", "f"},
		{"30 % is 0.3 exactly", breaker.Window{Calls: 10, FailureRate: 0.3}, "fssfsss" + "ss", "f"},
		{"default minimum is the window", breaker.Window{Calls: 6, FailureRate: 0.01}, "fffff", "s"},
		{"default minimum is 10", breaker.Window{Calls: 60, FailureRate: 0.5}, "fffffffff", "f"},
		{"time: the rate is enough", timed, "ss.f", "f"},
		{"time: old calls are forgotten", timed, "fff...........fff", "f"},
		{"time: part of the window is forgotten", timed, "ssss" + "....." + "ff" + "......", "ff"},
		{"slow calls", slow, "zzs", "z"},
		{"slow calls leave", slow, "zzsssss" + "zz", "z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, breaker.ConsecutiveFailures(0), breaker.SlidingWindow(tt.window))
				play(t, b, tt.before)
				wantState(t, b, breaker.Closed)
				play(t, b, tt.last)
				wantState(t, b, breaker.Open)

				// After closing the window is empty.
				time.Sleep(31 * time.Second)
				play(t, b, "s")
				wantState(t, b, breaker.Closed)
				play(t, b, "f")
				wantState(t, b, breaker.Closed)
			})
		})
	}
}

func TestSlowProbeFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.SlidingWindow(breaker.Window{Calls: 4, SlowRate: 0.5, SlowCall: time.Second}))
		trip(t, b) // the consecutive rule goes on
		time.Sleep(31 * time.Second)
		play(t, b, "z")
		wantState(t, b, breaker.Open)
		if m := b.Metrics(); m.Slow != 1 || m.Opens != 2 {
			t.Errorf("%+v, want 1 slow and 2 opens", m)
		}
	})
}
