package balance_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
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
