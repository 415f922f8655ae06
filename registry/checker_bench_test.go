package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// tally is a prober that everybody passes, and that counts.
type tally struct{ probes chan struct{} }

func (c tally) Probe(ctx context.Context, _ registry.Instance) registry.ProbeResult {
	select {
	case c.probes <- struct{}{}:
	case <-ctx.Done():
	}
	return registry.ProbeOK
}

// What checking 10,000 instances every five seconds takes, but for the probes
// themselves: each operation is a second of it, in real time. cpu-ms/s is of the
// whole process, so with the store, which is in memory.
func BenchmarkChecker10000(b *testing.B) {
	for _, kind := range []registry.LeaseKind{registry.LeaseConnection, registry.LeaseChecks} {
		b.Run("renewed by "+map[registry.LeaseKind]string{"": "itself", "checks": "checks"}[kind], func(b *testing.B) {
			const n = 10_000
			d := memregistry.New().Connect()
			for i := range n {
				put(b, d, instance(fmt.Sprintf("i%05d", i), checked, func(in *registry.Instance) {
					in.Name, in.Lease = fmt.Sprintf("s%d", i%100), kind
				}))
			}
			r := open(b, d)
			c := tally{make(chan struct{}, n)}
			before := heap()
			checker := registry.NewChecker(r, registry.WithProber(c))
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error)
			go func() { done <- checker.Run(ctx) }()
			for range 2 * n { // the sweep, and what memory it takes
				<-c.probes
			}
			memory := heap() - before
			probes, began, cpu := 0, time.Now(), processTime(b)
			for b.Loop() {
				for late := time.After(time.Second); late != nil; {
					select {
					case <-c.probes:
						probes++
					case <-late:
						late = nil
					}
				}
			}
			seconds := time.Since(began).Seconds()
			b.ReportMetric(float64(probes)/seconds, "probes/s")
			b.ReportMetric((processTime(b)-cpu).Seconds()*1000/seconds, "cpu-ms/s")
			b.ReportMetric(float64(memory)/n, "B/instance")
			b.ReportMetric(0, "ns/op")
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}

// One probe over HTTP, with the server that answers it.
func BenchmarkProbe(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	in := registry.Instance{Name: "users", Address: server.URL, Health: "/health"}
	if err := in.Normalize(); err != nil {
		b.Fatal(err)
	}
	p := registry.NewProber()
	b.ReportAllocs()
	cpu := processTime(b)
	for b.Loop() {
		if r := p.Probe(b.Context(), in); r != registry.ProbeOK {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64((processTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// processTime is the processor time that this process has used.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
