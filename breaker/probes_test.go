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

// Whoever calls when, however long it takes and however it ends: a half-open period
// never has more probes under way than it may, but for those that have lost their
// place because they took longer than the lease.
func TestHalfOpenNeverHasMoreThanItsProbes(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	type step struct {
		pause, takes time.Duration
		ends         string
	}
	steps := rapid.SliceOfN(rapid.Custom(func(p *rapid.T) step {
		return step{
			pause: time.Duration(rapid.IntRange(0, 20).Draw(p, "pause")) * ms,
			takes: time.Duration(rapid.IntRange(0, 30).Draw(p, "takes")) * ms,
			ends:  rapid.SampledFrom([]string{"well", "badly", "badly", "panic", "Goexit", "cancelled"}).Draw(p, "ends"),
		}
	}), 10, 30)
	var halfOpen atomic.Int64 // in all rounds, to know that it came to it
	rapid.Check(t, func(p *rapid.T) {
		probes := rapid.IntRange(1, 4).Draw(p, "probes")
		lease := time.Duration(rapid.IntRange(5, 40).Draw(p, "lease")) * ms
		needed := rapid.IntRange(1, 5).Draw(p, "successes needed")
		callers := rapid.SliceOfN(steps, 2, 8).Draw(p, "callers")
		most := 0
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.ConsecutiveFailures(2), breaker.Probes(probes), breaker.ProbeSuccesses(needed),
				breaker.OpenTime(10*ms), breaker.ProbeLease(lease))
			var mu sync.Mutex
			type probe struct {
				period uint64 // those of an earlier half-open period have no place in this one
				since  time.Time
			}
			underWay := map[int]probe{}
			count := 0
			began := func() (id int) {
				s := b.Snapshot()
				if s.State != breaker.HalfOpen { // no time passes between the permit and this
					return 0
				}
				mu.Lock()
				defer mu.Unlock()
				count++
				underWay[count] = probe{s.Metrics.Opens, time.Now()}
				n := 0
				for _, p := range underWay {
					if p.period == s.Metrics.Opens && time.Since(p.since) < lease {
						n++
					}
				}
				most = max(most, n)
				return count
			}
			ended := func(id int) {
				mu.Lock()
				defer mu.Unlock()
				delete(underWay, id)
			}
			call := func(s step) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_ = b.Do(ctx, func(context.Context) error {
					id := began()
					defer ended(id)
					time.Sleep(s.takes)
					switch s.ends {
					case "badly":
						return errDown
					case "panic":
						panic("boom")
					case "Goexit":
						runtime.Goexit()
					case "cancelled":
						cancel()
						return ctx.Err()
					}
					return nil
				})
			}
			var wg sync.WaitGroup
			for _, calls := range callers {
				wg.Go(func() {
					for _, s := range calls {
						time.Sleep(s.pause)
						var one sync.WaitGroup // a goroutine of its own, as Goexit ends it
						one.Add(1)
						go func() {
							defer one.Done()
							defer func() { _ = recover() }()
							call(s)
						}()
						one.Wait()
					}
				})
			}
			wg.Wait()
			halfOpen.Add(int64(count))

			// However it went, it is not wedged: the next calls get it closed.
			time.Sleep(time.Second)
			for range needed {
				if err := b.Do(t.Context(), succeeds); err != nil {
					most = -1
				}
			}
			if b.State() != breaker.Closed {
				most = -1
			}
		})
		if most < 0 {
			p.Fatal("the breaker is wedged")
		}
		if most > probes {
			p.Fatalf("%d probes at once, want at most %d", most, probes)
		}
	})
	if halfOpen.Load() == 0 {
		t.Error("no probe was made in any round")
	}
}

// Callers that come in the very moment the open time is over are not all let through.
func TestHalfOpenRace(t *testing.T) {
	t.Parallel()
	for round := range 1000 {
		probes := round%3 + 1
		b := newBreaker(t, breaker.ConsecutiveFailures(1), breaker.OpenTime(1), breaker.Probes(probes), breaker.ProbeSuccesses(probes))
		_ = b.Do(t.Context(), fails)
		const callers = 8
		var ready, admitted atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				ready.Add(1)
				for ready.Load() < callers { // spinning is closer to the same moment than any wake-up
					runtime.Gosched()
				}
				if _, err := b.Allow(); err == nil {
					admitted.Add(1)
				} else if !errors.Is(err, breaker.ErrOpen) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n != int64(probes) {
			t.Fatalf("%d of %d admitted, want %d", n, callers, probes)
		}
	}
}

// A call's context is really ended by the Timeout, and its timer does not go on
// after the call, however that ended.
func TestTimeoutLeavesNoTimer(t *testing.T) {
	t.Parallel()
	for _, ends := range []string{"well", "badly", "in time", "panic"} {
		t.Run(ends, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, breaker.Timeout(time.Second))
				var inner context.Context
				func() {
					defer func() { _ = recover() }()
					_ = b.Do(t.Context(), func(ctx context.Context) error {
						inner = ctx
						switch ends {
						case "badly":
							return errDown
						case "in time":
							<-ctx.Done()
							return ctx.Err()
						case "panic":
							panic("boom")
						}
						return nil
					})
				}()
				want := context.Canceled
				if ends == "in time" {
					want = context.DeadlineExceeded
				}
				if inner.Err() != want || t.Context().Err() != nil {
					t.Errorf("the call's context: %v, want %v; the caller's: %v", inner.Err(), want, t.Context().Err())
				}
			})
		})
	}
}

// A panic in IsFailure is a failed call, also of a probe, and keeps no place.
func TestIsFailurePanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.ConsecutiveFailures(1), breaker.IsFailure(func(err error) bool { panic(fmt.Sprint("asked about ", err)) }))
		for i := range 2 {
			func() {
				defer func() {
					if r := recover(); r != "asked about down" {
						t.Errorf("recovered %v", r)
					}
				}()
				_ = b.Do(t.Context(), fails)
			}()
			if m := b.Metrics(); m.Opens != uint64(i+1) || m.Failures != uint64(i+1) {
				t.Errorf("%+v, want %d failures that opened it", m, i+1)
			}
			time.Sleep(31 * time.Second)
		}
		if err := b.Do(t.Context(), succeeds); err != nil {
			t.Error(err)
		}
	})
}

// A permit counts once, however often it is ended: one probe is not two successes.
func TestPermitCountsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.ProbeSuccesses(2))
		trip(t, b)
		time.Sleep(31 * time.Second)
		p, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		p.Success()
		p.Success()
		p.Failure()
		wantState(t, b, breaker.HalfOpen)
		if err := b.Do(t.Context(), succeeds); err != nil {
			t.Fatal(err)
		}
		wantState(t, b, breaker.Closed)
	})
}
