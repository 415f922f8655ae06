package client_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/telemetry"
)

// BenchmarkRoundTrip compares a call by name with one through the same kind of
// bare transport to the same server.
func BenchmarkRoundTrip(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	bare := &http.Transport{MaxIdleConnsPerHost: 16}
	defer bare.CloseIdleConnections()
	f, _ := users(s.URL)
	byName, err := client.New(f)
	if err != nil {
		b.Fatal(err)
	}
	defer byName.CloseIdleConnections()
	for _, bb := range []struct {
		name, url string
		rt        http.RoundTripper
	}{{"bare", s.URL, bare}, {"client", "http://users/", byName}} {
		b.Run(bb.name, func(b *testing.B) {
			req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, bb.url, nil)
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, bb.rt, req)
			}
		})
	}
}

// BenchmarkLayer measures the client alone, over a base that answers from memory.
func BenchmarkLayer(b *testing.B) {
	var eps []*balance.Endpoint
	for _, id := range []string{"1", "2", "3"} {
		eps = append(eps, balance.NewEndpoint(id, "http://127.0.0.1:"+id))
	}
	f := fleet{"users": balance.NewSet(eps)}
	base := answering(func(*http.Request) (int, string) { return http.StatusOK, "ok" })
	traced, cancel := context.WithTimeout(telemetry.ContextWithTrace(b.Context(), telemetry.NewTrace()), time.Hour)
	defer cancel()
	for _, bb := range []struct {
		name string
		ctx  context.Context
		body string
		rt   http.RoundTripper
	}{
		{"bare", b.Context(), "", base},
		{"get", b.Context(), "", layer(b, f, base)},
		{"get/traced", traced, "", layer(b, f, base)},
		{"get/unhedged", b.Context(), "", layer(b, f, base, client.WithoutHedging())},
		{"get/all-off", b.Context(), "", layer(b, f, base, client.WithoutHedging(), client.WithoutBreaker(), client.WithoutOutlier())},
		{"get/attempt-timeout", b.Context(), "", layer(b, f, base, client.WithAttemptTimeout(time.Second))},
		{"post", b.Context(), "x", layer(b, f, base)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			req, _ := http.NewRequestWithContext(bb.ctx, http.MethodGet, "http://users/", nil)
			if bb.body != "" {
				req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader(bb.body))
			}
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				roundTrip(b, bb.rt, req)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
	b.Run("get/parallel", func(b *testing.B) {
		rt := layer(b, f, base)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://users/", nil)
			for pb.Next() {
				roundTrip(b, rt, req)
			}
		})
	})
}

// cpu returns the CPU time the process has used: on a busy machine it tells more than
// the time that has passed.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func layer(b *testing.B, f fleet, base http.RoundTripper, opts ...client.Option) http.RoundTripper {
	tr, err := client.New(f, append(opts, client.WithBase(base))...)
	if err != nil {
		b.Fatal(err)
	}
	return tr
}

func roundTrip(b *testing.B, rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}
