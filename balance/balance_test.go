package balance_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoints(n int) []*balance.Endpoint {
	eps := make([]*balance.Endpoint, n)
	for i := range eps {
		id := fmt.Sprintf("i%05d", i)
		eps[i] = balance.NewEndpoint(id, "http://"+id)
	}
	return eps
}

func ids(s *balance.Set) []string {
	var out []string
	for e := range s.All() {
		out = append(out, e.ID)
	}
	return out
}

func TestNewSet(t *testing.T) {
	t.Parallel()
	first, last := balance.NewEndpoint("b", "first"), balance.NewEndpoint("b", "last")
	in := []*balance.Endpoint{balance.NewEndpoint("c", ""), first, nil, balance.NewEndpoint("a", ""), last}
	s := balance.NewSet(in)
	if diff := cmp.Diff([]string{"a", "b", "c"}, ids(s)); diff != "" {
		t.Error(diff)
	}
	if s.Len() != 3 || s.At(1) != last {
		t.Errorf("Len %d, At(1) %v; want 3 and the last endpoint of the same ID", s.Len(), s.At(1))
	}
	in[0] = nil
	if s.At(2) == nil {
		t.Error("the set shares the caller's slice")
	}
	for range s.All() {
		break // stopping early is allowed
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, name := range append(balance.Strategies(), "") {
		p, err := balance.New(name)
		if err != nil {
			t.Fatalf("New(%q): %v", name, err)
		}
		var none *balance.Set
		if e := p.Pick(none); e != nil {
			t.Errorf("%q picked %v from a nil set", name, e)
		}
		if e := p.Pick(balance.NewSet(nil)); e != nil {
			t.Errorf("%q picked %v from an empty set", name, e)
		}
		one := balance.NewSet(endpoints(1))
		for range 3 {
			if e := p.Pick(one); e != one.At(0) {
				t.Errorf("%q picked %v from a set of one", name, e)
			}
		}
	}
	_, err := balance.New("roundrobin")
	if !errors.Is(err, balance.ErrUnknownStrategy) {
		t.Fatalf("error %v, want ErrUnknownStrategy", err)
	}
	for _, want := range append(balance.Strategies(), `"roundrobin"`) {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
}

// Whatever comes and goes, the endpoints that stay get the same number of turns
// (give or take the one of the current cycle), and no endpoint gets a second
// turn before one that has been there all the time got its first.
func TestRoundRobinFair(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pool := endpoints(20)
		stable := rapid.SliceOfNDistinct(rapid.IntRange(0, len(pool)-1), 1, 8, rapid.ID).Draw(t, "stable")
		turns := map[string]int{}
		for _, i := range stable {
			turns[pool[i].ID] = 0
		}
		p := balance.RoundRobin()
		atLastTurn := map[string]map[string]int{} // what turns was when the endpoint had its last turn
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			var members []*balance.Endpoint
			for i, e := range pool {
				if slices.Contains(stable, i) || rapid.Bool().Draw(t, "in") {
					members = append(members, e)
				}
			}
			set := balance.NewSet(members)
			for range rapid.IntRange(0, 25).Draw(t, "picks") {
				id := p.Pick(set).ID
				for stayed, then := range atLastTurn[id] {
					if stayed != id && turns[stayed] == then {
						t.Fatalf("%s has a second turn while %s waits", id, stayed)
					}
				}
				atLastTurn[id] = maps.Clone(turns)
				if _, ok := turns[id]; ok {
					turns[id]++
				}
				counts := slices.Sorted(maps.Values(turns))
				if counts[len(counts)-1]-counts[0] > 1 {
					t.Fatalf("turns differ by more than one: %v", turns)
				}
			}
		}
	})
}

func TestRoundRobinConcurrent(t *testing.T) {
	t.Parallel()
	set := balance.NewSet(endpoints(7))
	p := balance.RoundRobin()
	counts := make([]map[string]int, 4)
	var wg sync.WaitGroup
	for g := range counts {
		counts[g] = map[string]int{}
		wg.Go(func() {
			for range 700 {
				counts[g][p.Pick(set).ID]++
			}
		})
	}
	wg.Wait()
	for e := range set.All() {
		total := 0
		for _, c := range counts {
			total += c[e.ID]
		}
		if total != 400 {
			t.Errorf("%s picked %d times of 2800, want 400", e.ID, total)
		}
	}
}

func TestRandomReachesAll(t *testing.T) {
	t.Parallel()
	set := balance.NewSet(endpoints(10))
	for _, p := range []balance.Picker{balance.Random(), balance.P2C(), balance.LeastConnections()} {
		seen := map[string]int{}
		for range 10_000 {
			seen[p.Pick(set).ID]++
		}
		for e := range set.All() {
			// 1000 expected, standard deviation 30: ten of them are never off by chance.
			if n := seen[e.ID]; n < 700 || n > 1300 {
				t.Errorf("%T picked %s %d times of 10000, want about 1000", p, e.ID, n)
			}
		}
	}
}

func TestLeastConnections(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		eps := endpoints(rapid.IntRange(1, 12).Draw(t, "n"))
		set := balance.NewSet(eps)
		p := balance.LeastConnections()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if e := eps[rapid.IntRange(0, len(eps)-1).Draw(t, "end")]; e.InFlight() > 0 && rapid.Bool().Draw(t, "ends") {
				e.End(time.Millisecond, false)
			}
			least := slices.MinFunc(eps, func(a, b *balance.Endpoint) int { return int(a.InFlight() - b.InFlight()) }).InFlight()
			e := p.Pick(set)
			if e.InFlight() != least {
				t.Fatalf("picked %s with %d in flight, the least is %d", e.ID, e.InFlight(), least)
			}
			e.Begin()
		}
	})
}

func TestPickExcept(t *testing.T) {
	t.Parallel()
	for _, name := range balance.Strategies() {
		rapid.Check(t, func(t *rapid.T) {
			p, err := balance.New(name)
			if err != nil {
				t.Fatal(err)
			}
			eps := endpoints(rapid.IntRange(0, 6).Draw(t, "n"))
			set := balance.NewSet(eps)
			var tried []*balance.Endpoint
			for range eps {
				e := balance.PickExcept(p, set, tried)
				if e == nil || slices.Contains(tried, e) {
					t.Fatalf("%s: picked %v after %d of %d", name, e, len(tried), len(eps))
				}
				// The registry may have made a new endpoint for the same instance meanwhile.
				tried = append(tried, balance.NewEndpoint(e.ID, e.Address))
				if rapid.Bool().Draw(t, "same") {
					tried[len(tried)-1] = e
				}
			}
			if e := balance.PickExcept(p, set, tried); e != nil {
				t.Fatalf("%s: picked %v though all were tried", name, e)
			}
		})
	}
}

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
		if first > 30 {
			t.Errorf("the frozen endpoint got %d of the first 5000 calls", first)
		}
		if later > 60 {
			t.Errorf("the frozen endpoint got %d calls in five minutes; want a probe every ten seconds or so", later)
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

func TestPickAllocates(t *testing.T) {
	set := balance.NewSet(endpoints(100))
	for _, name := range balance.Strategies() {
		p, err := balance.New(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			e := p.Pick(set)
			e.Begin()
			e.End(time.Millisecond, false)
		}); n != 0 {
			t.Errorf("%s: %v allocations a call", name, n)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	eps := endpoints(6)
	sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[:3]), balance.NewSet(eps[2:])}
	for _, name := range balance.Strategies() {
		p, err := balance.New(name)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 2000 {
					e := p.Pick(sets[(g+i/100)%len(sets)])
					e.Begin()
					e.End(time.Duration(i)*time.Microsecond, i%10 == 0)
				}
			})
		}
		wg.Wait()
	}
	for _, e := range eps {
		if e.InFlight() != 0 || e.Latency() <= 0 {
			t.Errorf("%s: in flight %d, latency %v", e.ID, e.InFlight(), e.Latency())
		}
	}
}

func Example() {
	picker, err := balance.New(balance.StrategyLeastConnections)
	if err != nil {
		fmt.Println(err)
		return
	}
	set := balance.NewSet([]*balance.Endpoint{
		balance.NewEndpoint("users-1", "http://10.0.0.1:3001"),
		balance.NewEndpoint("users-2", "http://10.0.0.2:3001"),
	})
	set.At(0).Begin() // a call that is still going on

	e := picker.Pick(set)
	e.Begin()
	fmt.Println(e.Address)
	e.End(3*time.Millisecond, false)
	// Output: http://10.0.0.2:3001
}
