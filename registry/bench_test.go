package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func fill(b *testing.B, d registry.Driver, n int) {
	b.Helper()
	for i := range n {
		put(b, d, instance(fmt.Sprintf("i%05d", i)))
	}
}

// The request path: the instances in rotation, and one of them.
func BenchmarkLookupPick(b *testing.B) {
	for _, n := range []int{3, 100, 10_000} {
		d := memregistry.New().Connect()
		fill(b, d, n)
		r := open(b, d)
		p2c := balance.P2C()
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p2c.Pick(r.Endpoints("users")) == nil {
					b.Fatal("nothing picked")
				}
			}
		})
		b.Run(fmt.Sprint(n, "/parallel"), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p2c.Pick(r.Endpoints("users"))
				}
			})
		})
	}
}

func TestLookupPickAllocates(t *testing.T) {
	d := memregistry.New().Connect()
	put(t, d, instance("a"))
	put(t, d, instance("b"))
	r := open(t, d)
	p2c := balance.P2C()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Pick("users", p2c); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a pick", n)
	}
}

// One change, until it is in the snapshot, in a service of n instances.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := memregistry.New().Connect()
			fill(b, d, n)
			r := open(b, d)
			in := instance(fmt.Sprintf("i%05d", n/2))
			changed := make(chan struct{}, 1)
			done := make(chan struct{})
			ctx, cancel := context.WithCancel(b.Context())
			go func() {
				defer close(done)
				for range r.Watch(ctx) {
					changed <- struct{}{}
				}
			}()
			<-changed // the snapshot
			status := []registry.Status{health.Degraded, health.Healthy}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				in.Status = status[i%2]
				put(b, d, in)
				<-changed
			}
			cancel()
			<-done
		})
	}
}

// 10,000 instances register one after another, until all are in the snapshot.
func BenchmarkRegister10000(b *testing.B) {
	for _, services := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("%d services", services), func(b *testing.B) {
			all := make([]registry.Instance, 10_000)
			for i := range all {
				all[i] = instance(fmt.Sprintf("i%05d", i*7919%len(all)), func(in *registry.Instance) {
					in.Name = fmt.Sprintf("s%d", i%services)
				})
			}
			for b.Loop() {
				d := memregistry.New().Connect()
				r := registry.Open(b.Context(), d)
				if err := r.WaitSynced(b.Context()); err != nil {
					b.Fatal(err)
				}
				for _, in := range all {
					put(b, d, in)
				}
				for len(r.Services()) < services || len(r.Discover(all[0].Name)) < len(all)/services {
					runtime.Gosched()
				}
				r.Close()
			}
		})
	}
}
