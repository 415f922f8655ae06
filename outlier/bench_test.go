package outlier_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/outlier"
)

func BenchmarkReport(b *testing.B) {
	for _, n := range []int{3, 100, 10_000} {
		eps := endpoints(n)
		d := newDetector(b, outlier.Config{})
		d.InRotation(balance.NewSet(eps))
		b.Run(fmt.Sprint("good/", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.Report(eps[i*7919%n], time.Millisecond, false)
			}
		})
		b.Run(fmt.Sprint("parallel/", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					d.Report(eps[i*7919%n], time.Millisecond, false)
				}
			})
		})
		b.Run(fmt.Sprint("all-fail/", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.Report(eps[i*7919%n], time.Millisecond, true)
			}
		})
	}
}

func BenchmarkInRotation(b *testing.B) {
	d := newDetector(b, outlier.Config{EjectTime: time.Hour})
	eps := endpoints(100)
	set := balance.NewSet(eps)
	run := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.InRotation(set)
		}
	}
	b.Run("well", run)
	for range 5 {
		d.Report(eps[0], time.Millisecond, true)
	}
	b.Run("ejected", run)
}

// One instance of so many comes or goes.
func BenchmarkSetChange(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		eps := endpoints(n)
		sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[1:])}
		d := newDetector(b, outlier.Config{})
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.InRotation(sets[i%2])
			}
		})
	}
}
