package balance_test

import (
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
)

// weighted returns endpoints of these weights.
func weighted(weights ...int) []*balance.Endpoint {
	eps := endpoints(len(weights))
	for i, w := range weights {
		eps[i].Weight = w
	}
	return eps
}

// counts returns how often each endpoint of set, by position, is picked in n picks.
func counts(p balance.Picker, set *balance.Set, n int) []int {
	index := map[*balance.Endpoint]int{}
	for i := range set.Len() {
		index[set.At(i)] = i
	}
	got := make([]int, set.Len())
	for range n {
		got[index[p.Pick(set)]]++
	}
	return got
}

// near reports whether n of total could be drawn by chance with this share: it is
// within seven standard deviations, which happens never.
func near(n, total int, share float64) bool {
	mean := float64(total) * share
	return math.Abs(float64(n)-mean) <= 7*math.Sqrt(mean*(1-share))+1
}

func TestWeights(t *testing.T) {
	t.Parallel()
	if w := balance.NewEndpoint("a", "").Weight; w != 1 {
		t.Errorf("weight %d of a new endpoint, want 1", w)
	}
	for name, tc := range map[string]struct {
		weights []int
		shares  []float64 // of those that take calls
	}{
		"equal":      {[]int{5, 5, 5}, []float64{1. / 3, 1. / 3, 1. / 3}},
		"one to two": {[]int{1, 2}, []float64{1. / 3, 2. / 3}},
		"zero":       {[]int{3, 0, 1}, []float64{.75, .25}},
		"negative":   {[]int{-4, 7}, []float64{1}},
		"too great":  {[]int{1_000_000, balance.MaxWeight}, []float64{.5, .5}},
		"extreme":    {[]int{1000, 1, 1}, []float64{1000. / 1002, 1. / 1002, 1. / 1002}},
		"none":       {[]int{0, 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := balance.NewSet(weighted(tc.weights...))
			if set.Len() != len(tc.shares) {
				t.Fatalf("%d endpoints take calls, want %d", set.Len(), len(tc.shares))
			}
			const n = 100_000
			// Nobody has called these endpoints yet, so P2C finds them equally good.
			for _, strategy := range []string{balance.StrategyWeightedRoundRobin, balance.StrategyP2C} {
				p, err := balance.New(strategy)
				if err != nil {
					t.Fatal(err)
				}
				if len(tc.shares) == 0 {
					if e := p.Pick(set); e != nil {
						t.Errorf("%s picked %v, but nobody takes calls", strategy, e)
					}
					continue
				}
				for i, got := range counts(p, set, n) {
					if !near(got, n, tc.shares[i]) {
						t.Errorf("%s picked endpoint %d %d times of %d, want a share of %.4f", strategy, i, got, n, tc.shares[i])
					}
				}
			}
		})
	}
}

// The last entry of an ID decides, also if it says that the endpoint takes no calls.
func TestWeightZeroReplaces(t *testing.T) {
	t.Parallel()
	on, off := balance.NewEndpoint("a", ""), balance.NewEndpoint("a", "")
	off.Weight = 0
	if n := balance.NewSet([]*balance.Endpoint{on, off}).Len(); n != 0 {
		t.Errorf("%d endpoints, want the last entry to count", n)
	}
	if n := balance.NewSet([]*balance.Endpoint{off, on}).Len(); n != 1 {
		t.Errorf("%d endpoints, want the last entry to count", n)
	}
}

// After any number of picks each endpoint has had its share, give or take a few, and
// its turns come at nearly equal distances.
func TestWeightedRoundRobinSmooth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, rapid.SampledFrom([]int{1, 5, 1000}).Draw(t, "max")), 1, 40).Draw(t, "weights")
		total := 0
		for _, w := range weights {
			total += w
		}
		eps := weighted(weights...)
		set, p := balance.NewSet(eps), balance.WeightedRoundRobin()
		turns, last := make([]int, len(eps)), make([]int, len(eps))
		for n := 1; n <= 3000; n++ {
			i := slices.Index(eps, p.Pick(set))
			turns[i]++
			mean := float64(total) / float64(weights[i])
			if gap := float64(n - last[i]); last[i] > 0 && gap > 3*mean+1 {
				t.Fatalf("weights %v: endpoint %d waits %v turns, %v on average", weights, i, gap, mean)
			}
			last[i] = n
			if n%100 == 0 {
				for i, w := range weights {
					if want := float64(n) * float64(w) / float64(total); math.Abs(float64(turns[i])-want) > 4 {
						t.Fatalf("weights %v: endpoint %d had %d of %d turns, want %.1f", weights, i, turns[i], n, want)
					}
				}
			}
		}
	})
}

// A picker goes on where it was when the set changes.
func TestWeightedRoundRobinChanges(t *testing.T) {
	t.Parallel()
	eps := weighted(1, 2, 3, 4)
	sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[:3])}
	p := balance.WeightedRoundRobin()
	got := map[*balance.Endpoint]int{}
	const n = 20_000
	for i := range n {
		got[p.Pick(sets[i/100%2])]++
	}
	for i, share := range []float64{(1./10 + 1./6) / 2, (2./10 + 2./6) / 2, (3./10 + 3./6) / 2, 4. / 20} {
		if g := got[eps[i]]; math.Abs(float64(g)-share*n) > 200 {
			t.Errorf("endpoint %d had %d of %d turns, want %.0f", i, g, n, share*n)
		}
	}
}

func TestWeightedRoundRobinConcurrent(t *testing.T) {
	t.Parallel()
	set := balance.NewSet(weighted(1, 2, 4))
	p := balance.WeightedRoundRobin()
	got := make([][]int, 4)
	var wg sync.WaitGroup
	for g := range got {
		wg.Go(func() { got[g] = counts(p, set, 7000) })
	}
	wg.Wait()
	for i, want := range []int{4000, 8000, 16_000} {
		n := got[0][i] + got[1][i] + got[2][i] + got[3][i]
		if n < want-5 || n > want+5 {
			t.Errorf("endpoint %d had %d turns, want %d", i, n, want)
		}
	}
}

// Least connections and P2C keep the calls in flight in proportion to the weights.
func TestWeightedLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, strategy := range []string{balance.StrategyLeastConnections, balance.StrategyP2C} {
			p, err := balance.New(strategy)
			if err != nil {
				t.Fatal(err)
			}
			eps := weighted(1, 2, 5)
			for _, e := range eps { // all are known to be equally fast
				e.Begin()
				e.End(10*time.Millisecond, false)
			}
			set := balance.NewSet(eps)
			for range 800 {
				p.Pick(set).Begin()
			}
			for i, want := range []int64{100, 200, 500} {
				if got := eps[i].InFlight(); got < want*9/10 || got > want*11/10 {
					t.Errorf("%s: %d calls in flight on endpoint %d, want about %d", strategy, got, i, want)
				}
			}
		}
	})
}

// Nearly all the weight is on an endpoint that fails: the others must get the calls.
func TestWeightedP2CFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := weighted(1000, 1, 1)
		got := simulate(eps, 3000, time.Millisecond, func(e *balance.Endpoint) (time.Duration, bool) {
			return time.Millisecond, e == eps[0]
		})
		if n := got[eps[0].ID]; n > 60 {
			t.Errorf("the failing endpoint got %d of 3000 calls; want a few tries", n)
		}
	})
}

func TestWithWeight(t *testing.T) {
	t.Parallel()
	e := balance.NewEndpoint("a", "http://a")
	e.Zone = "north"
	if n := e.WithWeight(2); n.Latency() != 0 || n.InFlight() != 0 {
		t.Errorf("of an unknown endpoint: latency %v, in flight %d", n.Latency(), n.InFlight())
	}
	e.Begin()
	e.End(20*time.Millisecond, false)
	e.Begin()
	n := e.WithWeight(3)
	if n.ID != "a" || n.Address != "http://a" || n.Zone != "north" || n.Weight != 3 || e.Weight != 1 {
		t.Errorf("%+v", n)
	}
	if n.Latency() != 20*time.Millisecond || n.InFlight() != 0 {
		t.Errorf("latency %v, in flight %d; want what is known, and no calls", n.Latency(), n.InFlight())
	}
	e.End(20*time.Millisecond, false)
}
