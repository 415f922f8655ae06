package balance_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// Virtual time: these run alone (no t.Parallel), since the coarse clock is the
// process's.
func TestLatencyAverage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := balance.NewEndpoint("a", "")
		call := func(latency time.Duration, failed bool) time.Duration {
			e.Begin()
			e.End(latency, failed)
			return e.Latency().Round(time.Millisecond)
		}
		steps := []struct {
			name   string
			wait   time.Duration
			call   time.Duration
			failed bool
			want   time.Duration
		}{
			{"the first sample counts whole", 0, 10 * time.Millisecond, false, 10 * time.Millisecond},
			{"a peak counts at once", 0, 100 * time.Millisecond, false, 100 * time.Millisecond},
			{"no time, no decay", 0, 10 * time.Millisecond, false, 100 * time.Millisecond},
			{"half after 7 s", 7 * time.Second, 20 * time.Millisecond, false, 60 * time.Millisecond},
			{"the past is gone after minutes", 10 * time.Minute, 5 * time.Millisecond, false, 5 * time.Millisecond},
			{"a fast failure doubles it", 0, 1 * time.Millisecond, true, 11 * time.Millisecond},
			{"and again", time.Minute, 1 * time.Millisecond, true, 23 * time.Millisecond},
			{"a slow failure counts its time", 0, 30 * time.Second, true, 30 * time.Second},
			{"penalties do not lower it", 0, time.Millisecond, true, 30 * time.Second},
			{"one good call after a long rest", time.Hour, 2 * time.Millisecond, false, 2 * time.Millisecond},
		}
		for _, s := range steps {
			time.Sleep(s.wait)
			if got := call(s.call, s.failed); got != s.want {
				t.Fatalf("%s: latency %v, want %v", s.name, got, s.want)
			}
		}
		for range 40 {
			call(time.Millisecond, true)
		}
		if got := e.Latency(); got != 10*time.Second {
			t.Errorf("latency after 40 failures %v, want the limit of 10s", got)
		}
		if e.InFlight() != 0 {
			t.Errorf("in flight %d after all ended", e.InFlight())
		}
	})
}

// simulate sends one call every interval and returns how many each endpoint got;
// latency says how long an endpoint takes (negative: for ever) and whether it fails.
func simulate(eps []*balance.Endpoint, calls int, interval time.Duration, latency func(e *balance.Endpoint) (time.Duration, bool)) map[string]int {
	set, p := balance.NewSet(eps), balance.P2C()
	got := map[string]int{}
	var wg sync.WaitGroup
	for range calls {
		e := p.Pick(set)
		got[e.ID]++
		e.Begin()
		if took, failed := latency(e); took >= 0 {
			wg.Go(func() {
				time.Sleep(took)
				e.End(took, failed)
			})
		}
		time.Sleep(interval)
	}
	wg.Wait()
	return got
}

func TestP2CPrefersFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		got := simulate(eps, 3000, time.Millisecond, func(e *balance.Endpoint) (time.Duration, bool) {
			if e == eps[0] {
				return 200 * time.Millisecond, false
			}
			return 5 * time.Millisecond, false
		})
		if n := got[eps[0].ID]; n == 0 || n > 100 {
			t.Errorf("the slow endpoint got %d of 3000 calls; want some, but few", n)
		}
		if a, b := got[eps[1].ID], got[eps[2].ID]; a < 1000 || b < 1000 {
			t.Errorf("the fast endpoints got %d and %d of 3000", a, b)
		}
	})
}

func TestP2CFastFailureDoesNotAttract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		got := simulate(eps, 3000, time.Millisecond, func(e *balance.Endpoint) (time.Duration, bool) {
			if e == eps[0] {
				return 0, true // refuses at once
			}
			return 20 * time.Millisecond, false
		})
		if n := got[eps[0].ID]; n == 0 || n > 60 {
			t.Errorf("the failing endpoint got %d of 3000 calls; want a few tries", n)
		}
	})
}

// An endpoint that takes calls and never answers must not get ever more of them
// as its old, good latency fades.
func TestP2CFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		answer := func(*balance.Endpoint) (time.Duration, bool) { return 5 * time.Millisecond, false }
		simulate(eps, 300, 2*time.Millisecond, answer) // all are known and equal
		freeze := func(e *balance.Endpoint) (time.Duration, bool) {
			if e == eps[0] {
				return -1, false
			}
			return 5 * time.Millisecond, false
		}
		first := simulate(eps, 5000, 2*time.Millisecond, freeze)[eps[0].ID]    // 10 s
		later := simulate(eps, 150_000, 2*time.Millisecond, freeze)[eps[0].ID] // 5 min
		if first > 3 {
			t.Errorf("the frozen endpoint got %d of the first 5000 calls", first)
		}
		if later > 5 {
			t.Errorf("the frozen endpoint got %d calls in five minutes; want a probe a minute, then fewer", later)
		}
	})
}

// Callers that wait for their answers, as many as a pool has: those that the frozen
// endpoint holds are lost, so it must not get them all.
func TestP2CFrozenHoldsFewCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		set, p := balance.NewSet(eps), balance.P2C()
		start := time.Now()
		thaw := make(chan struct{})
		var calls, held atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for time.Since(start) < time.Minute {
					e := p.Pick(set)
					e.Begin()
					began := time.Now()
					if e == eps[0] && time.Since(start) > time.Second {
						held.Add(1)
						<-thaw
					} else {
						time.Sleep(5 * time.Millisecond)
						calls.Add(1)
					}
					e.End(time.Since(began), false)
				}
			})
		}
		time.Sleep(time.Minute + time.Second)
		if n := held.Load(); n == 0 || n > 4 {
			t.Errorf("the frozen endpoint holds %d of 8 callers; want its share at most", n)
		}
		if n := calls.Load(); n < 40_000 {
			t.Errorf("%d calls in a minute, want the other callers served all the time", n)
		}
		close(thaw)
		wg.Wait()
	})
}

// Streams that stay open do not keep other calls from an endpoint, whether they
// began before those or after a rest.
func TestP2CStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		answer := func(*balance.Endpoint) (time.Duration, bool) { return 5 * time.Millisecond, false }
		simulate(eps, 3000, time.Millisecond, answer)
		eps[0].Begin() // the stream
		got := simulate(eps, 60_000, time.Millisecond, answer)[eps[0].ID]
		if got < 10_000 {
			t.Errorf("with a stream beside them, the endpoint got %d of 60000 calls in a minute; want about its share", got)
		}

		time.Sleep(10 * time.Minute)
		eps[1].Begin()                                     // another one; nothing else is in flight there
		simulate(eps, 12_000, 10*time.Millisecond, answer) // two minutes: the endpoint is silent, then tried
		got = simulate(eps, 6000, 10*time.Millisecond, answer)[eps[1].ID]
		if got < 600 {
			t.Errorf("with nothing but a stream, the endpoint got %d of 6000 calls in the third minute", got)
		}
	})
}

// The first call after a rest is not taken for one that lasts since the rest began.
func TestP2CAfterRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(2)
		for i, took := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond} {
			eps[i].Begin()
			eps[i].End(took, false)
		}
		set, p := balance.NewSet(eps), balance.P2C()
		time.Sleep(20 * time.Second)
		eps[0].Begin()
		eps[1].Begin()
		time.Sleep(5 * time.Millisecond)
		eps[1].End(20*time.Millisecond, false) // moves the coarse clock on
		eps[1].Begin()
		for range 10 {
			if e := p.Pick(set); e != eps[0] {
				t.Fatal("picked the endpoint that takes 20 ms, not the one that has one call for 5 ms")
			}
		}
	})
}

// A new endpoint is tried at once, but with one call until that has answered.
func TestP2CNewcomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		answer := func(*balance.Endpoint) (time.Duration, bool) { return 5 * time.Millisecond, false }
		simulate(eps, 300, time.Millisecond, answer)
		newcomer := balance.NewEndpoint("new", "")
		all := append(slices.Clone(eps), newcomer)
		got := simulate(all, 300, time.Millisecond, func(e *balance.Endpoint) (time.Duration, bool) {
			if e == newcomer {
				return -1, false
			}
			return answer(e)
		})
		if n := got["new"]; n != 1 {
			t.Errorf("the newcomer, which does not answer, got %d calls; want 1", n)
		}
	})
}

// Fading begins when the last call ended, not when it began: the latency of a long
// call is news.
func TestP2CLongCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(2)
		other := balance.NewEndpoint("other", "") // its calls move the coarse clock on
		other.End(0, false)
		eps[0].Begin()
		time.Sleep(30 * time.Second)
		other.End(0, false)
		eps[1].Begin()
		time.Sleep(5 * time.Second)
		eps[1].End(5*time.Second, false)
		eps[0].End(35*time.Second, false)
		set, p := balance.NewSet(eps), balance.P2C()
		for range 10 {
			if e := p.Pick(set); e != eps[1] {
				t.Fatal("picked the endpoint that takes 35 s, not the one that takes 5 s")
			}
		}
	})
}

// A slow endpoint that nobody calls gets another try, and is used again when it has
// recovered.
func TestP2CRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(2)
		slow := func(e *balance.Endpoint) (time.Duration, bool) {
			if e == eps[0] {
				return 0, true
			}
			return 5 * time.Millisecond, false
		}
		simulate(eps, 1000, 10*time.Millisecond, slow)
		well := func(*balance.Endpoint) (time.Duration, bool) { return 5 * time.Millisecond, false }
		simulate(eps, 20_000, 10*time.Millisecond, well) // 200 s
		got := simulate(eps, 1000, 10*time.Millisecond, well)
		if n := got[eps[0].ID]; n < 300 {
			t.Errorf("the recovered endpoint got %d of 1000 calls, want about half", n)
		}
	})
}
