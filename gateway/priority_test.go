package gateway_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/gateway"
)

// A route's requests are told to the service with its priority; a stranger's own
// word does not count, and a trusted proxy's does.
func TestPriority(t *testing.T) {
	t.Parallel()
	const header = "X-Request-Priority"
	fleet := newFleet(t, map[string]http.Handler{"up": echo})
	inContext := make(chan concurrency.Priority, 1)
	deps := gateway.Deps{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		inContext <- concurrency.PriorityFrom(r.Context())
		return fleet.RoundTrip(r)
	})}
	cfg := gateway.Config{Routes: []gateway.Route{
		{Path: "/low", Service: "up", Public: true, Priority: concurrency.Low},
		{Path: "/normal", Service: "up", Public: true},
		{Path: "/critical", Service: "up", Public: true, Priority: concurrency.Critical},
	}}
	strangers := newEdge(t, cfg, deps)
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	trusted := newEdge(t, cfg, deps)
	for _, c := range []struct {
		e    *edge
		path string
		sent []string
		want concurrency.Priority
	}{
		{strangers, "/low", nil, concurrency.Low},
		{strangers, "/normal", nil, concurrency.Normal},
		{strangers, "/critical", nil, concurrency.Critical},
		{strangers, "/low", []string{header, "critical"}, concurrency.Low},
		{strangers, "/normal", []string{header, "critical", "X_Request_Priority", "critical", "x-request_priority", "critical"}, concurrency.Normal},
		{trusted, "/low", nil, concurrency.Low},
		{trusted, "/low", []string{header, "Critical"}, concurrency.Critical},
		{trusted, "/critical", []string{header, "normal"}, concurrency.Normal},
		{trusted, "/critical", []string{header, "low"}, concurrency.Low},
		{trusted, "/critical", []string{header, "urgent"}, concurrency.Critical},
		{trusted, "/normal", []string{header, "low", header, "critical"}, concurrency.Normal},
		{trusted, "/normal", []string{"X_Request_Priority", "critical"}, concurrency.Normal},
	} {
		_, got := c.e.echo("GET", c.path, "", c.sent...)
		want := c.want.String()
		if c.want == concurrency.Normal {
			want = ""
		}
		if p := <-inContext; got.Header.Get(header) != want || len(got.Header[header]) > 1 || p != c.want {
			t.Errorf("%s %v: %v, and %v in the context; want %v", c.path, c.sent, got.Header[header], p, c.want)
		}
		for name := range got.Header {
			if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), header) && name != header {
				t.Errorf("%s passed", name)
			}
		}
	}
}

func TestPriorityIsChecked(t *testing.T) {
	t.Parallel()
	for _, p := range []concurrency.Priority{-2, 2} {
		_, err := gateway.New(gateway.Config{Routes: []gateway.Route{{Path: "/", Service: "up", Public: true, Priority: p}}}, gateway.Deps{Transport: http.DefaultTransport})
		if fault, ok := errors.AsType[*gateway.ConfigError](err); !ok || fault.Field != "routes[0].priority" {
			t.Errorf("%d: %v", p, err)
		}
	}
}
