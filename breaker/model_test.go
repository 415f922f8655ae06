package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/breaker"
)

// model is what a breaker with the consecutive rule ought to do, written as
// plainly as possible: one thing at a time, one struct a call.
type model struct {
	threshold, probes, needed int
	openTime, lease           time.Duration

	state     breaker.State
	period    int // number of state changes
	failures  int
	succeeded int
	opened    time.Duration
	calls     []*call
}

type call struct {
	permit  breaker.Permit
	period  int
	probe   bool
	began   time.Duration
	evicted bool
	ended   bool
}

func (m *model) enter(s breaker.State) {
	m.state, m.succeeded = s, 0
	m.period++
	if s == breaker.Closed {
		m.failures = 0
	}
}

func (m *model) allow(now time.Duration) *call {
	if m.state == breaker.Open && now-m.opened >= m.openTime {
		m.enter(breaker.HalfOpen)
	}
	c := &call{period: m.period, probe: m.state == breaker.HalfOpen, began: now}
	switch m.state {
	case breaker.Open:
		return nil
	case breaker.HalfOpen:
		var mine []*call // probes with a place, the oldest first
		for _, o := range m.calls {
			if o.probe && o.period == m.period && !o.ended && !o.evicted {
				mine = append(mine, o)
			}
		}
		if len(mine) >= m.probes {
			if now-mine[0].began < m.lease {
				return nil
			}
			mine[0].evicted = true
		}
	}
	m.calls = append(m.calls, c)
	return c
}

func (m *model) end(c *call, outcome string, now time.Duration) {
	c.ended = true
	if c.period != m.period || c.evicted || outcome == "cancel" {
		return
	}
	if outcome == "success" {
		if !c.probe {
			m.failures = 0
		} else if m.succeeded++; m.succeeded == m.needed {
			m.enter(breaker.Closed)
		}
		return
	}
	if m.failures++; c.probe || m.failures >= m.threshold {
		m.opened = now
		m.enter(breaker.Open)
	}
}

func TestModel(t *testing.T) {
	t.Parallel()
	type step struct {
		what string
		pick int
		wait time.Duration
	}
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			what: rapid.SampledFrom([]string{"allow", "allow", "allow", "success", "failure", "failure", "failure", "cancel", "wait"}).Draw(t, "what"),
			pick: rapid.IntRange(0, 1000).Draw(t, "pick"),
			wait: time.Duration(rapid.IntRange(1, 12).Draw(t, "wait")) * time.Second,
		}
	}), 100, 300)
	rapid.Check(t, func(p *rapid.T) {
		m := &model{
			threshold: rapid.IntRange(1, 4).Draw(p, "threshold"),
			probes:    1, // with more, which of several expired places is taken over is not fixed
			needed:    rapid.IntRange(1, 3).Draw(p, "needed"),
			openTime:  10*time.Second + time.Millisecond, // between the whole seconds of the waits
			lease:     5*time.Second + time.Millisecond,
		}
		todo := steps.Draw(p, "steps")
		var failed error
		synctest.Test(t, func(*testing.T) {
			b, err := breaker.New("model", breaker.ConsecutiveFailures(m.threshold), breaker.ProbeSuccesses(m.needed),
				breaker.OpenTime(m.openTime), breaker.ProbeLease(m.lease))
			if err != nil {
				failed = err
				return
			}
			start := time.Now()
			for i, s := range todo {
				now := time.Since(start)
				switch s.what {
				case "wait":
					time.Sleep(s.wait)
				case "allow":
					permit, err := b.Allow()
					c := m.allow(now)
					if (c == nil) != errors.Is(err, breaker.ErrOpen) {
						failed = fmt.Errorf("step %d: Allow: %v, the model says %v", i, err, c != nil)
						return
					}
					if c != nil {
						c.permit = permit
					}
				default:
					var open []*call
					for _, c := range m.calls {
						if !c.ended {
							open = append(open, c)
						}
					}
					if len(open) == 0 {
						continue
					}
					c := open[s.pick%len(open)]
					m.end(c, s.what, now)
					map[string]func(){"success": c.permit.Success, "failure": c.permit.Failure, "cancel": c.permit.Cancel}[s.what]()
					if got := b.Snapshot(); m.state == breaker.Closed && int(got.FailureCount) != m.failures {
						failed = fmt.Errorf("step %d: %d failures, the model says %d", i, got.FailureCount, m.failures)
						return
					}
				}
				if s := b.State(); s != m.state && !(m.state == breaker.Open && s == breaker.HalfOpen && time.Since(start)-m.opened >= m.openTime) {
					failed = fmt.Errorf("step %d: state %v, the model says %v", i, s, m.state)
					return
				}
			}
		})
		if failed != nil {
			p.Fatal(failed)
		}
	})
}

// However many call at once, half-open never has more than its probes under way,
// and listeners see a gapless chain of changes.
func TestConcurrentCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const probes = 2
		b := newBreaker(t, breaker.Probes(probes), breaker.ProbeSuccesses(3), breaker.OpenTime(10*time.Millisecond))
		var changes []breaker.Change // no lock: listeners are called one at a time
		b.OnStateChange(func(c breaker.Change) { changes = append(changes, c) })
		var probing, tooMany atomic.Int64
		var wg sync.WaitGroup
		for g := range 20 {
			wg.Go(func() {
				for i := range 300 {
					half := false
					_ = b.Do(t.Context(), func(context.Context) error {
						if half = b.State() == breaker.HalfOpen; half {
							if probing.Add(1) > probes {
								tooMany.Add(1)
							}
							defer probing.Add(-1)
						}
						time.Sleep(time.Duration((g+i)%3) * time.Microsecond)
						if (i/20)%2 == 0 {
							return errDown
						}
						return nil
					})
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		m := b.Metrics()
		if m.Requests+m.Rejected != 20*300 || m.Opens == 0 || m.Rejected == 0 {
			t.Errorf("%+v; want 6000 calls, some refused", m)
		}
		if len(changes) < 3 {
			t.Fatalf("only %d changes", len(changes))
		}
		from := breaker.Closed
		for i, c := range changes {
			if c.From != from {
				t.Fatalf("change %d is from %v, the one before was to %v", i, c.From, from)
			}
			from = c.To
		}
		wantState(t, b, from)
		// A call of an earlier period cannot be among them: virtual time stands still
		// between its admission and its look at the state.
		if n := tooMany.Load(); n > 0 {
			t.Errorf("%d times more than %d probes at once", n, probes)
		}
	})
}

// Calls that fail at the same moment open the breaker once, not each anew.
func TestConcurrentTrip(t *testing.T) {
	t.Parallel()
	for range 3000 {
		b := newBreaker(t, breaker.ConsecutiveFailures(1))
		var ready atomic.Int64
		var wg sync.WaitGroup
		for range 2 {
			permit, err := b.Allow()
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				ready.Add(1)
				for ready.Load() < 2 { // spinning is closer to the same moment than any wake-up
					runtime.Gosched()
				}
				permit.Failure()
			})
		}
		wg.Wait()
		if m := b.Metrics(); m.Opens != 1 || m.Failures != 2 {
			t.Fatalf("%+v; want 2 failures and 1 opening", m)
		}
	}
}
