package supervise

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}
	for n, d := range want {
		if got := backoff(n, 0.5); got != d {
			t.Errorf("after %d crashes %s, want %s", n, got, d)
		}
		if low, high := backoff(n, 0), backoff(n, 1); low != d*8/10 || high != d*12/10 {
			t.Errorf("after %d crashes the jitter makes it %s to %s, want 20 %% either way of %s", n, low, high, d)
		}
	}
	if got := backoff(1_000_000, 0.5); got != maxBackoff {
		t.Errorf("after a million crashes %s, want %s", got, maxBackoff)
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	m := machine{state: Building}
	m.started()
	if _, ok := m.ended(at, 0.5); ok || m.state != Stopped {
		t.Errorf("an end before healthy: state %s, to be restarted %t", m.state, ok)
	}

	m = machine{state: Building}
	crash := func(after, want time.Duration) {
		t.Helper()
		m.started()
		m.healthy(at)
		at = at.Add(after)
		if got, ok := m.ended(at, 0.5); !ok || got != want || m.state != Restarting {
			t.Errorf("crash after %s: delay %s (%t) in state %s, want %s", after, got, ok, m.state, want)
		}
	}
	crash(time.Second, 500*time.Millisecond)
	crash(time.Second, time.Second)
	crash(59*time.Second, 2*time.Second)
	crash(time.Minute, 500*time.Millisecond) // ran well: forgiven
	m.started()
	at = at.Add(time.Hour)
	if got, ok := m.ended(at, 0.5); !ok || got != time.Second { // but not for time spent starting
		t.Errorf("an end before healthy again: delay %s (%t), want 1s", got, ok)
	}
	if m.restarts != 5 {
		t.Errorf("%d restarts counted, want 5", m.restarts)
	}
}

// TestMachineProperties holds, whatever happens: a child that was healthy is
// always restarted, one that was not never is, and no delay is out of bounds
// or, without a minute of health, shorter than the one before but for jitter.
func TestMachineProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := machine{state: Building}
		at := time.Unix(0, 0)
		var before time.Duration
		for range rapid.IntRange(1, 40).Draw(t, "crashes") {
			m.started()
			healthy := rapid.Bool().Draw(t, "healthy")
			ran := time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(t, "ran"))
			if healthy {
				m.healthy(at)
			}
			at = at.Add(ran)
			was := m.wasHealthy
			delay, ok := m.ended(at, rapid.Float64Range(0, 1).Draw(t, "random"))
			if ok != was {
				t.Fatalf("restarted %t, was healthy %t", ok, was)
			}
			if !ok {
				return
			}
			if delay < minBackoff*8/10 || delay > maxBackoff*12/10 {
				t.Fatalf("delay %s", delay)
			}
			if !(healthy && ran >= wellAfter) && float64(delay) < float64(before)*0.8/1.2 {
				t.Fatalf("delay %s after %s", delay, before)
			}
			before = delay
		}
	})
}
