package balance_test

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
)

func key(i int) string { return fmt.Sprintf("user-%d", i) }

// homes returns the endpoint of each of n keys.
func homes(p balance.KeyPicker, set *balance.Set, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = p.PickKey(set, key(i)).ID
	}
	return ids
}

// Where a key lives depends on the set and the key alone, not on the picker nor on the
// sets it has seen before. Among sets of all sizes, an endpoint that comes or gets
// heavier only takes keys, and one that goes or gets lighter only leaves its own.
func TestConsistentHashMovesLittle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const keys = 200
		weights := make([]int, rapid.IntRange(2, 40).Draw(t, "pool"))
		for i := range weights {
			weights[i] = 1
		}
		if rapid.Bool().Draw(t, "weighted") {
			weights = rapid.SliceOfN(rapid.IntRange(1, 9), len(weights), len(weights)).Draw(t, "weights")
		}
		pool := weighted(weights...)
		in := rapid.SliceOfN(rapid.Bool(), len(pool), len(pool)).Draw(t, "in")
		in[0] = true
		members := func() *balance.Set {
			var eps []*balance.Endpoint
			for i, e := range pool {
				if in[i] {
					eps = append(eps, e)
				}
			}
			return balance.NewSet(eps)
		}
		p := balance.ConsistentHash(0)
		before := homes(p, members(), keys)
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			i := rapid.IntRange(1, len(pool)-1).Draw(t, "endpoint")
			gains, loses := !in[i], in[i]
			if in[i] && rapid.Bool().Draw(t, "reweigh") {
				w := rapid.IntRange(1, 9).Draw(t, "weight")
				gains, loses = w > pool[i].Weight, w < pool[i].Weight
				pool[i] = pool[i].WithWeight(w)
			} else {
				in[i] = !in[i]
			}
			set := members()
			after := homes(p, set, keys)
			for k := range after {
				if after[k] == before[k] || (gains && after[k] == pool[i].ID) || (loses && before[k] == pool[i].ID) {
					continue
				}
				t.Fatalf("%s moved from %s to %s as %s changed (gains %v, loses %v)", key(k), before[k], after[k], pool[i].ID, gains, loses)
			}
			if fresh := homes(balance.ConsistentHash(0), set, keys); !slices.Equal(fresh, after) {
				t.Fatal("two pickers disagree about the same set")
			}
			before = after
		}
	})
}

// Keys are shared out in proportion to the weights: as evenly as chance does it.
func TestConsistentHashShares(t *testing.T) {
	t.Parallel()
	for name, weights := range map[string][]int{
		"two": {1, 1}, "weighted": {1, 2, 3, 10}, "extreme": {1000, 1, 500},
		"few": slices.Repeat([]int{1}, 16), "many": slices.Repeat([]int{1}, 200), "many weighted": slices.Repeat([]int{1, 4}, 50),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			total := 0
			for _, w := range weights {
				total += w
			}
			set := balance.NewSet(weighted(weights...))
			p := balance.ConsistentHash(0)
			const keys = 50_000
			got := map[string]int{}
			for _, id := range homes(p, set, keys) {
				got[id]++
			}
			for i, w := range weights {
				// Keys share slots, so their number spreads by a third more than if each
				// were drawn for itself; the seven deviations of near allow for that.
				if n := got[set.At(i).ID]; !near(n, keys, float64(w)/float64(total)) {
					t.Errorf("endpoint %d of weight %d has %d keys of %d", i, w, n, keys)
				}
			}
		})
	}
}

// A new endpoint takes its part of the keys, not more.
func TestConsistentHashNewcomer(t *testing.T) {
	t.Parallel()
	const keys = 5000
	for _, n := range []int{2, 16, 17, 100} {
		eps := endpoints(n + 1)
		p := balance.ConsistentHash(0)
		before := homes(p, balance.NewSet(eps[:n]), keys)
		after := homes(p, balance.NewSet(eps), keys)
		moved := 0
		for k := range after {
			if after[k] != before[k] {
				moved++
			}
		}
		if !near(moved, keys, 1/float64(n+1)) {
			t.Errorf("from %d to %d endpoints %d of %d keys moved", n, n+1, moved, keys)
		}
	}
}

// Whatever the keys and the weights, and though nothing ends: no endpoint has more calls in
// flight than the bound says, and a call that could stay at home does.
func TestConsistentHashBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.SampledFrom([]float64{1.01, 1.25, 2}).Draw(t, "bound")
		weights := rapid.SliceOfN(rapid.IntRange(1, rapid.SampledFrom([]int{1, 6}).Draw(t, "max")), 2, 60).Draw(t, "weights")
		sum := 0
		for _, w := range weights {
			sum += w
		}
		eps := weighted(weights...)
		set, p, unbounded := balance.NewSet(eps), balance.ConsistentHash(bound), balance.ConsistentHash(math.Inf(1))
		hot := rapid.IntRange(1, 50).Draw(t, "keys")
		var begun []*balance.Endpoint
		for call := range rapid.IntRange(1, 300).Draw(t, "calls") {
			if len(begun) > 0 && rapid.IntRange(0, 3).Draw(t, "ends") == 0 {
				begun[0].End(1, false)
				begun = begun[1:]
			}
			k := key(call * call % hot)
			home, e := unbounded.PickKey(set, k), p.PickKey(set, k)
			// One more call is within bound*(total+1)*weight/sum, rounded up.
			room := func(e *balance.Endpoint, total int) bool {
				return float64(e.InFlight())*float64(sum) < bound*float64(total+1)*float64(e.Weight)
			}
			if len(eps) <= 16 { // counted every time
				if !room(e, len(begun)) {
					t.Fatalf("endpoint of weight %d gets one more than %d calls; %d are in flight", e.Weight, e.InFlight(), len(begun))
				}
				if e != home && room(home, len(begun)) {
					t.Fatalf("home, of weight %d, has %d calls of %d, but another endpoint is picked", home.Weight, home.InFlight(), len(begun))
				}
			} else if !room(e, len(begun)+300/4+len(eps)/16+1) {
				// The total lags, and calls that ended since are in it.
				t.Fatalf("endpoint of weight %d gets one more than %d calls with %d in flight", e.Weight, e.InFlight(), len(begun))
			}
			e.Begin()
			begun = append(begun, e)
		}
	})
}

// Everybody wants the same thing: it takes as many endpoints as needed.
func TestConsistentHashHotKey(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 300} {
		set := balance.NewSet(endpoints(n))
		p := balance.ConsistentHash(0)
		for range 3 * n {
			p.PickKey(set, "hot").Begin()
		}
		highest := int64(0)
		for e := range set.All() {
			highest = max(highest, e.InFlight())
		}
		if highest > 4 { // 1.25 times 3, rounded up
			t.Errorf("of %d endpoints one has %d calls in flight, 3 on average", n, highest)
		}
	}
}

func TestConsistentHashUnbounded(t *testing.T) {
	t.Parallel()
	set := balance.NewSet(endpoints(30))
	p := balance.ConsistentHash(math.Inf(1))
	home := p.PickKey(set, "hot")
	for range 1000 {
		e := p.PickKey(set, "hot")
		if e != home {
			t.Fatal("the key has moved")
		}
		e.Begin()
	}
}

// Keys whose endpoint failed go where they would go without it.
func TestPickKeyExcept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		eps := weighted(rapid.SliceOfN(rapid.IntRange(1, 3), 1, 30).Draw(t, "weights")...)
		set := balance.NewSet(eps)
		var p balance.Picker = balance.ConsistentHash(0)
		if rapid.Bool().Draw(t, "subset") {
			p = balance.Subsetting(p, "me", 5)
		}
		k := rapid.StringN(1, 30, -1).Draw(t, "key")
		var tried []*balance.Endpoint
		for range eps {
			e := balance.PickKeyExcept(p, set, k, tried)
			if e == nil || slices.Contains(tried, e) {
				t.Fatalf("picked %v after %d of %d", e, len(tried), len(eps))
			}
			if len(tried) > 0 {
				rest := slices.DeleteFunc(slices.Clone(eps), func(e *balance.Endpoint) bool { return slices.Contains(tried, e) })
				if want := balance.ConsistentHash(0).PickKey(balance.NewSet(rest), k); e != want {
					t.Fatalf("after %d tries %s, want %s", len(tried), e.ID, want.ID)
				}
			}
			tried = append(tried, e)
		}
		if e := balance.PickKeyExcept(p, set, k, tried); e != nil {
			t.Fatalf("picked %v though all were tried", e)
		}
	})
	// Other pickers, and calls without a key, do as PickExcept does.
	set := balance.NewSet(endpoints(2))
	for range 20 {
		if e := balance.PickKeyExcept(balance.P2C(), set, "k", []*balance.Endpoint{set.At(0)}); e != set.At(1) {
			t.Errorf("P2C with a key: %v", e)
		}
		if e := balance.PickKeyExcept(balance.ConsistentHash(0), set, "", []*balance.Endpoint{set.At(1)}); e != set.At(0) {
			t.Errorf("without a key: %v", e)
		}
	}
}

// Many callers at once, while the set changes, agree with a picker that has only seen
// the last set.
func TestConsistentHashConcurrent(t *testing.T) {
	t.Parallel()
	eps := endpoints(40)
	sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[1:]), balance.NewSet(eps[:30]), balance.NewSet(eps[:3])}
	p := balance.ConsistentHash(0)
	var want [][]string
	for _, s := range sets {
		want = append(want, homes(balance.ConsistentHash(0), s, 50))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 40 {
				n := (g + i/8) % len(sets)
				if got := homes(p, sets[n], 50); !slices.Equal(got, want[n]) {
					t.Errorf("set %d: another home under load", n)
				}
			}
		})
	}
	wg.Wait()
}

func ExampleConsistentHash() {
	picker := balance.ConsistentHash(balance.DefaultBound)
	all := []*balance.Endpoint{
		balance.NewEndpoint("carts-1", "http://10.0.0.1:3001"),
		balance.NewEndpoint("carts-2", "http://10.0.0.2:3001"),
		balance.NewEndpoint("carts-3", "http://10.0.0.3:3001"),
	}
	before, after := balance.NewSet(all), balance.NewSet(all[1:]) // carts-1 goes
	for _, user := range []string{"ann", "bob", "cy", "dee"} {
		fmt.Println(user, picker.PickKey(before, user).ID, picker.PickKey(after, user).ID)
	}
	// Output:
	// ann carts-1 carts-3
	// bob carts-3 carts-3
	// cy carts-1 carts-2
	// dee carts-1 carts-2
}
