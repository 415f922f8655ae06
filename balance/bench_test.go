package balance_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keelson-go/keelson/balance"
)

func BenchmarkPick(b *testing.B) {
	for _, name := range balance.Strategies() {
		for _, n := range []int{3, 100, 10_000} {
			eps := endpoints(n)
			for i, e := range eps {
				e.Begin()
				e.End(time.Duration(i%50+1)*time.Millisecond, false)
				e.Begin() // busy, so that least connections has to look at all
			}
			set := balance.NewSet(eps)
			p, err := balance.New(name)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.Pick(set)
				}
			})
			b.Run(fmt.Sprintf("%s/%d/parallel", name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						p.Pick(set)
					}
				})
			})
		}
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
	eps := endpoints(10_000)
	b.ReportAllocs()
	for b.Loop() {
		balance.NewSet(eps)
	}
}
