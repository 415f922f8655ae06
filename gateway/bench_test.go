package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/telemetry"
)

// discard is a response nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Flush()                      {}

// BenchmarkServeHTTP compares the gateway with a bare proxy over the same
// transport: the difference is the gateway's own cost.
func BenchmarkServeHTTP(b *testing.B) {
	upstream := roundTripper(func(r *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}, "Content-Length": {"2"}, "Date": {"Sun, 22 Nov 2026 16:41:06 GMT"}}
		return &http.Response{StatusCode: 200, Header: h, ContentLength: 2, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
	})
	tel, err := telemetry.New(telemetry.Config{Output: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	limit := &ratelimit.Limit{Requests: 1e9, Window: time.Second}
	cfg := gateway.Config{RateLimit: limit, AccessLog: gateway.LogNone}
	for _, name := range []string{"a", "b", "c", "users"} {
		cfg.Routes = append(cfg.Routes, gateway.Route{Path: "/api/" + name + "/*", Service: "user-service", StripPrefix: "/api", Public: true})
	}
	newGateway := func(change func(*gateway.Config)) http.Handler {
		c := cfg
		change(&c)
		g, err := gateway.New(c, gateway.Deps{Transport: upstream, Telemetry: tel, Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))}) //nolint:sloglint // what is measured is a log that is written
		if err != nil {
			b.Fatal(err)
		}
		return g
	}
	for _, bench := range []struct {
		name    string
		handler http.Handler
	}{
		{"ReverseProxy", &httputil.ReverseProxy{Transport: upstream, BufferPool: pool{make([]byte, 32<<10)}, Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = "http", "user-service"
			pr.SetXForwarded()
		}}},
		{"gateway", newGateway(func(*gateway.Config) {})},
		{"gateway, no timeout", newGateway(func(c *gateway.Config) {
			c.Routes = append([]gateway.Route(nil), c.Routes...)
			c.Routes[3].Timeout = -1
		})},
		{"gateway, log", newGateway(func(c *gateway.Config) { c.AccessLog = gateway.LogAll })},
		{"gateway, proxied", newGateway(func(c *gateway.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })},
	} {
		b.Run(bench.name, func(b *testing.B) {
			req := httptest.NewRequest("GET", "/api/users/7?full=1", nil)
			req.Header = http.Header{"Accept": {"*/*"}, "User-Agent": {"bench"}, "Accept-Encoding": {"gzip"}, "X-Forwarded-For": {"203.0.113.9"}, "Authorization": {"Bearer x"}}
			w := &discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				bench.handler.ServeHTTP(w, req)
			}
		})
	}
}

type pool struct{ buf []byte }

func (p pool) Get() []byte { return p.buf }
func (p pool) Put([]byte)  {}
