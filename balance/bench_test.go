package balance_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// busy returns n endpoints of many latencies in three zones, half of which have a call
// in flight. weight gives the weight of each.
func busy(n int, weight func(i int) int) *balance.Set {
	eps := endpoints(n)
	for i, e := range eps {
		e.Weight, e.Zone = weight(i), string(rune('a'+i%3))
		e.Begin()
		e.End(time.Duration(i%50+1)*time.Millisecond, false)
		if i*7919%2 == 0 {
			e.Begin()
		}
	}
	return balance.NewSet(eps)
}

func equal(int) int { return 1 }

func benchmark(b *testing.B, p balance.Picker, set *balance.Set) {
	b.Helper()
	b.Run("single", func(b *testing.B) {
		p.Pick(set) // what is made once for a set
		b.ReportAllocs()
		for b.Loop() {
			p.Pick(set)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p.Pick(set)
			}
		})
	})
}

func BenchmarkPick(b *testing.B) {
	for _, name := range balance.Strategies() {
		for _, n := range []int{3, 100, 10_000} {
			p, err := balance.New(name)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) { benchmark(b, p, busy(n, equal)) })
		}
	}
}

// The pickers that mind weights, with weights that differ.
func BenchmarkPickWeighted(b *testing.B) {
	for _, name := range []string{balance.StrategyP2C, balance.StrategyWeightedRoundRobin, balance.StrategyConsistentHash} {
		for _, n := range []int{3, 100, 10_000} {
			p, err := balance.New(name)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				benchmark(b, p, busy(n, func(i int) int { return i%10 + 1 }))
			})
		}
	}
}

func BenchmarkPreferZone(b *testing.B) {
	for _, n := range []int{3, 100, 10_000} {
		set := busy(n, equal)
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmark(b, balance.PreferZone("b", balance.P2C), set) })
		for e := range set.All() { // the first call does not count for what is known of a zone
			e.Begin()
			e.End(e.Latency(), false)
		}
		b.Run(fmt.Sprint("known/", n), func(b *testing.B) { benchmark(b, balance.PreferZone("b", balance.P2C), set) })
	}
}

func BenchmarkSubsetting(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchmark(b, balance.Subsetting(balance.P2C(), "me", 20), busy(n, equal))
		})
	}
}

func BenchmarkPickKey(b *testing.B) {
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("0192f0c1-2d3e-7a4b-8c5d-%012x", i) // as long as a UUID
	}
	for _, n := range []int{3, 100, 10_000} {
		set := balance.NewSet(endpoints(n))
		p := balance.ConsistentHash(balance.DefaultBound)
		for _, k := range keys {
			p.PickKey(set, k)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.PickKey(set, keys[i%len(keys)])
			}
		})
	}
}

// The first pick from a set that one endpoint has joined: what is known of the keys is
// carried over.
func BenchmarkConsistentHashChange(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		eps := endpoints(n)
		sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[1:])}
		p := balance.ConsistentHash(balance.DefaultBound)
		for range 200_000 {
			p.Pick(sets[0])
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Pick(sets[i%2])
			}
		})
	}
}

func BenchmarkBeginEnd(b *testing.B) {
	e := balance.NewEndpoint("a", "")
	b.ReportAllocs()
	for b.Loop() {
		e.Begin()
		e.End(time.Millisecond, false)
	}
}

func BenchmarkNewSet10000(b *testing.B) {
	for name, weight := range map[string]func(int) int{"equal": equal, "weighted": func(i int) int { return i%10 + 1 }} {
		b.Run(name, func(b *testing.B) {
			eps := endpoints(10_000)
			for i, e := range eps {
				e.Weight = weight(i)
			}
			b.ReportAllocs()
			for b.Loop() {
				balance.NewSet(eps)
			}
		})
	}
}

func BenchmarkSubset10000(b *testing.B) {
	set := balance.NewSet(endpoints(10_000))
	b.ReportAllocs()
	for b.Loop() {
		set.Subset("me", 20)
	}
}
