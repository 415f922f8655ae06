package telemetry

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

// epoch makes reading the clock cheaper: time.Now asks for the wall clock too.
var epoch = time.Now()

// serve is what a request that is not sampled costs: measure it, read its trace,
// start its span and pass it on.
func serve(m *ServerMetrics, in, out http.Header) {
	start := time.Since(epoch)
	m.Route(http.MethodGet, "").Begin()
	trace, ok := ExtractTrace(in)
	if !ok {
		trace = NewTrace()
	}
	trace.Child().Inject(out)
	m.Route(http.MethodGet, "/users/{id}").End(http.StatusOK, time.Since(epoch)-start)
}

func TestServePathAllocations(t *testing.T) {
	m := newServerMetrics()
	in, out := http.Header{HeaderTraceparent: {parent}}, http.Header{}
	if n := testing.AllocsPerRun(200, func() { serve(m, in, out) }); n > 2 {
		t.Errorf("%v allocations a request, want 2 at most", n)
	}
	c := newClientMetrics()
	if n := testing.AllocsPerRun(200, func() { c.Observe("user-service", "GET", 404, "", time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations for a client's attempt, want none", n)
	}
}

func BenchmarkServePath(b *testing.B) {
	m := newServerMetrics()
	for i := range 50 {
		m.Route(http.MethodGet, "/route/"+strconv.Itoa(i))
	}
	in := http.Header{HeaderTraceparent: {parent}}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		out := http.Header{}
		for b.Loop() {
			serve(m, in, out)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			out := http.Header{}
			for pb.Next() {
				serve(m, in, out)
			}
		})
	})
}

func BenchmarkParts(b *testing.B) {
	m := newServerMetrics()
	c := newClientMetrics()
	trace := NewTrace()
	for name, f := range map[string]func(){
		"metrics": func() { m.Route("GET", "").Begin(); m.Route("GET", "/users/{id}").End(200, time.Millisecond) },
		"parse":   func() { ParseTraceparent(parent) },
		"child":   func() { trace.Child() },
		"string":  func() { _ = trace.String() },
		"clock":   func() { _, _ = time.Since(epoch), time.Since(epoch) },
		"client":  func() { c.Observe("user-service", "GET", 200, "", time.Millisecond) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

func BenchmarkSummary(b *testing.B) {
	m := newServerMetrics()
	for i := range 100 {
		s := m.Route(http.MethodGet, "/route/"+strconv.Itoa(i))
		s.Begin()
		s.End(200, time.Millisecond)
	}
	for b.Loop() {
		m.Summary()
	}
}
