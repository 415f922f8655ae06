package balance_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// begun lets time go by, so that endpoints made before are not new any more.
func begun(eps []*balance.Endpoint) []*balance.Endpoint {
	time.Sleep(balance.DefaultSlowStart + time.Second)
	for _, e := range eps {
		e.Begin()
		e.End(5*time.Millisecond, false)
	}
	return eps
}

// spread makes a call every millisecond for so long, each of 5 ms, and returns how many
// each endpoint got.
func spread(p balance.Picker, set *balance.Set, long time.Duration) map[string]int {
	got := map[string]int{}
	var wg sync.WaitGroup
	for start := time.Now(); time.Since(start) < long; time.Sleep(time.Millisecond) {
		e := p.Pick(set)
		got[e.ID]++
		e.Begin()
		wg.Go(func() {
			time.Sleep(5 * time.Millisecond)
			e.End(5*time.Millisecond, false)
		})
	}
	wg.Wait()
	return got
}

// The share of a new endpoint grows within ten seconds, whatever picks, and however many
// others there are. That of a hundredth of the calls is hard to see in a second, so for the
// larger set all counts are of half of the window.
func TestSlowStart(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		for _, n := range []int{2, 3, 20} {
			t.Run(fmt.Sprint(strategy, "/", n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					eps := begun(endpoints(n - 1))
					newcomer := balance.NewEndpoint("new", "")
					set := balance.NewSet(append(eps, newcomer))
					p, err := balance.New(strategy)
					if err != nil {
						t.Fatal(err)
					}
					fair := float64(5000 / n)
					first := float64(spread(p, set, 5*time.Second)["new"]) / fair // 10 to 50 %
					then := float64(spread(p, set, 5*time.Second)["new"]) / fair  // 50 to 100 %
					last := float64(spread(p, set, 5*time.Second)["new"]) / fair
					if first < 0.05 || first > 0.5 || then < first || then > 1.1 || last < 0.7 || last < then {
						t.Errorf("shares of %.2f, %.2f, then %.2f; want them to grow to 1", first, then, last)
					}
				})
			})
		}
	}
}

// If all are new none is: as it is when a process starts.
func TestAllNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := endpoints(3)
		p := balance.RoundRobin()
		time.Sleep(100 * time.Millisecond)
		late := balance.NewEndpoint("late", "") // its record came a little later
		set := balance.NewSet(append(eps, late))
		for id, n := range spread(p, set, 4*time.Second) {
			if n != 1000 {
				t.Errorf("%s got %d of 4000 calls, want 1000", id, n)
			}
		}
		// One that comes later is new, beside those that are so only a little longer.
		set = balance.NewSet(append(append(eps, late), balance.NewEndpoint("later", "")))
		if n := spread(p, set, time.Second)["later"]; n < 25 || n > 120 {
			t.Errorf("the one that came later got %d of 1000 calls, want a quarter to a half of 200", n)
		}
	})
}

func TestSlowStartIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := begun(endpoints(2))
		set := balance.NewSet(append(eps, balance.NewEndpoint("new", "").WithWeight(2)))
		if n := spread(balance.P2C(), set, time.Second)["new"]; n > 200 {
			t.Errorf("an endpoint whose weight has changed got %d of 1000 calls", n)
		}
		whole := balance.NewEndpoint("new", "")
		whole.SlowStart(0)
		set = balance.NewSet(append(eps, whole))
		if n := spread(balance.RoundRobin(), set, 3*time.Second)["new"]; n != 1000 {
			t.Errorf("an endpoint without a slow start got %d of 3000 calls, want 1000", n)
		}
	})
}

// Keys come to a new endpoint one by one, and stay.
func TestKeysComeOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := begun(endpoints(4))
		newcomer := balance.NewEndpoint("new", "")
		set := balance.NewSet(append(eps, newcomer))
		p := balance.ConsistentHash(balance.DefaultBound)
		before := 0
		its := map[int]bool{}
		for second := range 12 {
			n := 0
			for key := range 4000 {
				if e := p.PickKey(set, fmt.Sprint(key)); e == newcomer {
					its[key] = true
					n++
				} else if its[key] {
					t.Fatalf("key %d has left the newcomer after %d s", key, second)
				}
			}
			if n < before {
				t.Fatalf("%d keys after %d s, %d before", n, second, before)
			}
			before = n
			time.Sleep(time.Second)
			eps[0].Begin() // moves the coarse clock on
			eps[0].End(0, false)
		}
		if before < 600 || before > 1000 {
			t.Errorf("%d of 4000 keys in the end, want a fifth", before)
		}
	})
}

// A probing endpoint gets one call at a time, at most ten a second; or one a second if it
// is never idle.
func TestProbing(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		t.Run(strategy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				eps := begun(endpoints(3))
				eps[1].Forget()
				set := balance.NewSet(eps).Probing(eps[1])
				p, err := balance.New(strategy)
				if err != nil {
					t.Fatal(err)
				}
				if n := spread(p, set, 10*time.Second)[eps[1].ID]; n < 50 || n > 100 {
					t.Errorf("%d calls in ten seconds, want up to 100", n)
				}
				eps[1].Begin()
				eps[1].Begin() // streams
				if n := spread(p, set, 10*time.Second)[eps[1].ID]; n > 11 || (n < 8 && strategy != balance.StrategyP2C && strategy != balance.StrategyLeastConnections) {
					t.Errorf("%d calls in ten seconds while it was not idle, want 10", n)
				}
			})
		})
	}
}

// Of many callers at the same moment one gets the probing endpoint.
func TestProbingOneCaller(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		eps := endpoints(3)
		set := balance.NewSet(eps).Probing(eps[1])
		p, err := balance.New(strategy)
		if err != nil {
			t.Fatal(err)
		}
		var got atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 500 {
					if p.Pick(set) == eps[1] {
						got.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := got.Load(); n != 1 {
			t.Errorf("%s: %d callers got it, want 1", strategy, n)
		}
	}
}

// Sets that pickers make of one keep to who is probing in it.
func TestProbingInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := begun(endpoints(6))
		for i, e := range eps {
			e.Zone = []string{"north", "south"}[min(i, 1)]
		}
		all := balance.NewSet(eps)
		for name, p := range map[string]balance.Picker{
			"zone":   balance.PreferZone("north", balance.P2C), // of which it is the only one
			"subset": balance.Subsetting(balance.RoundRobin(), "me", 5),
		} {
			probed := eps[0]
			if name == "subset" {
				probed = all.Subset("me", 5).At(2)
			}
			p.Pick(all) // what it has made of the set before must not be taken for this one
			n := spread(p, all.Probing(probed), 10*time.Second)[probed.ID]
			if n < 40 || n > 100 {
				t.Errorf("%s: %d calls in ten seconds, want up to 100", name, n)
			}
		}
		eps[0].SlowStart(10 * time.Second)
		first := spread(balance.PreferZone("north", balance.P2C), balance.NewSet(eps), time.Second)[eps[0].ID]
		if first == 0 || first > 200 {
			t.Errorf("a zone of one new endpoint got %d of 1000 calls, want a small share", first)
		}
	})
}

func TestProbingNobody(t *testing.T) {
	t.Parallel()
	eps := endpoints(2)
	set := balance.NewSet(eps)
	var none *balance.Set
	if set.Probing() != set || none.Probing(eps[0]) != none {
		t.Error("another set, though nobody in it is probing")
	}
	only := balance.NewSet(eps[:1]).Probing(eps[0])
	both := balance.NewSet(eps).Probing(eps...)
	for _, strategy := range balance.Strategies() {
		p, _ := balance.New(strategy)
		for range 20 {
			if p.Pick(only) != eps[0] || !slices.Contains(eps, p.Pick(both)) {
				t.Fatalf("%s does not pick the probing ones when there are no others", strategy)
			}
		}
	}
}

func TestNewcomersDoNotAllocate(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		eps := endpoints(20)
		for _, e := range eps[1:] {
			e.SlowStart(0)
		}
		eps[0].SlowStart(time.Hour)
		set := balance.NewSet(eps).Probing(eps[3])
		p, _ := balance.New(strategy)
		p.Pick(set)
		if n := testing.AllocsPerRun(1000, func() { p.Pick(set) }); n != 0 {
			t.Errorf("%s: %v allocations", strategy, n)
		}
	}
}

// The only endpoint elsewhere gets single calls, too, however many calls leave the zone.
func TestProbingElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := begun(slices.Concat(in("here", 2), in("there", 1)))
		for _, e := range eps[:2] {
			e.End(20*time.Second, true) // much slower than elsewhere
		}
		set := balance.NewSet(eps).Probing(eps[2])
		p := balance.PreferZone("here", balance.P2C)
		for second := range 3 {
			got := 0
			for range 10_000 {
				if p.Pick(set) == eps[2] {
					got++
				}
			}
			if got != 1 {
				t.Errorf("after %d s it got %d of the calls of one moment, want 1", second, got)
			}
			time.Sleep(time.Second)
			eps[0].Begin() // moves the coarse clock on
		}
	})
}
