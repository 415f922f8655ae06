// Package gateway compares Keelson's gateway with what a team would write
// itself: a bare httputil.ReverseProxy.
package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/telemetry"
)

// BenchmarkProxy sends keep-alive GETs over loopback through each proxy to the
// same upstream, all in this process. cpu-ns/op is the whole process's CPU time
// for a request: client, proxy and upstream. What a proxy costs is the
// difference to "direct".
func BenchmarkProxy(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"7","name":"Ada"}`)
	}))
	defer upstream.Close()

	key, err := auth.LoadOrCreateDevKey(filepath.Join(b.TempDir(), "dev.key"))
	if err != nil {
		b.Fatal(err)
	}
	token, err := key.Mint(auth.TokenRequest{})
	if err != nil {
		b.Fatal(err)
	}
	cases := []struct {
		name  string
		serve func(b *testing.B) string
		path  string
	}{
		{"direct", func(*testing.B) string { return upstream.URL }, "/users/7"},
		{"reverseproxy", func(b *testing.B) string { return bare(b, upstream.URL) }, "/users/7"},
		{"keelson/public", func(b *testing.B) string { return keelson(b, upstream.URL, nil) }, "/api/users/7"},
		{"keelson/token", func(b *testing.B) string { return keelson(b, upstream.URL, key) }, "/api/users/7"},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			base := c.serve(b)
			transport := &http.Transport{MaxIdleConnsPerHost: 16}
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, base+c.path, nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				resp, err := transport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status)
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// bare is the least a Go program can do.
func bare(b *testing.B, upstream string) string {
	u, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	s := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u); r.SetXForwarded() },
		Transport: transport,
	})
	b.Cleanup(func() { s.Close(); transport.CloseIdleConnections() })
	return s.URL
}

// keelson is the whole gateway as `keelson up` sets it up: registry, balancing,
// rate limit, metrics, and authentication if there is a key.
func keelson(b *testing.B, upstream string, key *auth.DevKey) string {
	ctx := context.Background()
	reg := registry.Open(ctx, memregistry.New().Connect())
	b.Cleanup(reg.Close)
	if err := reg.WaitSynced(ctx); err != nil {
		b.Fatal(err)
	}
	if _, err := reg.Register(ctx, registry.Instance{Name: "users", Address: upstream}); err != nil {
		b.Fatal(err)
	}
	for reg.Endpoints("users").Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	tel, err := telemetry.New(telemetry.Config{Service: "gateway", Output: io.Discard, LogLevel: slog.LevelError})
	if err != nil {
		b.Fatal(err)
	}
	cfg := gateway.Config{
		RateLimit: &ratelimit.Limit{Requests: 1e9, Window: time.Second},
		AccessLog: gateway.LogErrors,
		Routes:    []gateway.Route{{Path: "/api/users/*", Service: "users", StripPrefix: "/api", Public: key == nil}},
	}
	if key != nil {
		jwt, err := auth.NewJWT(ctx, key.JWTConfig())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(jwt.Close)
		cfg.Authenticator = jwt
	}
	transport, err := client.New(reg, client.WithMetrics(tel.Client()))
	if err != nil {
		b.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Deps{Transport: transport, Telemetry: tel})
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewUnstartedServer(g)
	gateway.ServerDefaults(s.Config)
	s.Start()
	b.Cleanup(func() { s.Close(); transport.CloseIdleConnections() })
	return s.URL
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(fmt.Sprintf("getrusage: %v", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
