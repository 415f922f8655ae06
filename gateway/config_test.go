package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/ratelimit"
)

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	none := roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("none") })
	route := func(change func(*gateway.Route)) gateway.Config {
		r := gateway.Route{Path: "/x/*", Service: "s", Public: true}
		change(&r)
		return gateway.Config{Routes: []gateway.Route{r}}
	}
	limit := ratelimit.Limit{Requests: 1, Window: time.Second}
	tests := []struct {
		field string
		cfg   gateway.Config
	}{
		{"routes[0].public", route(func(r *gateway.Route) { r.Public = false })}, // no authenticator
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "x" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "/a/*/b" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "/a*" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "/users/{id}" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "/a//*" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "/../x" })},
		{"routes[0].path", route(func(r *gateway.Route) { r.Path = "/health" })},
		{"routes[0].stripPrefix", route(func(r *gateway.Route) { r.StripPrefix = "/y" })},
		{"routes[0].stripPrefix", route(func(r *gateway.Route) { r.StripPrefix = "/x/" })},
		{"routes[0].stripPrefix", route(func(r *gateway.Route) { r.Path, r.StripPrefix = "/xy/*", "/x" })},
		{"routes[0].host", route(func(r *gateway.Route) { r.Host = "a.org:80" })},
		{"routes[0].host", route(func(r *gateway.Route) { r.Host = "*a.org" })},
		{"routes[0].host", route(func(r *gateway.Route) { r.Host = "a/b" })},
		{"routes[0].methods", route(func(r *gateway.Route) { r.Methods = []string{"GE T"} })},
		{"routes[0].methods", route(func(r *gateway.Route) { r.Methods = []string{"CONNECT"} })},
		{"routes[0].headers", route(func(r *gateway.Route) { r.Headers = map[string]string{"host": "x"} })},
		{"routes[0].service", route(func(r *gateway.Route) { r.Service = "" })},
		{"routes[0].service", route(func(r *gateway.Route) { r.Service = "User Service" })},
		{"routes[0].service", route(func(r *gateway.Route) { r.Backends = []gateway.Backend{{Service: "s", Weight: 1}} })},
		{"routes[0].backends", route(func(r *gateway.Route) { r.Service, r.Backends = "", []gateway.Backend{{Service: "s"}} })},
		{"routes[0].backends[0].weight", route(func(r *gateway.Route) { r.Service, r.Backends = "", []gateway.Backend{{Service: "s", Weight: -1}} })},
		{"routes[0].scopes", route(func(r *gateway.Route) { r.Scopes = []string{"a"} })},
		{"routes[0].rateLimit", route(func(r *gateway.Route) { r.RateLimit = &gateway.RouteLimit{} })},
		{"routes[0].rateLimit.by", route(func(r *gateway.Route) { r.RateLimit = &gateway.RouteLimit{Limit: limit, By: "moon"} })},
		{"routes[0].rateLimit.by", route(func(r *gateway.Route) { r.RateLimit = &gateway.RouteLimit{Limit: limit, By: gateway.BySubject} })},
		{"routes[0].allow/deny", route(func(r *gateway.Route) { r.Allow = []netip.Prefix{{}} })},
		{"routes[1].path", gateway.Config{Routes: []gateway.Route{{Path: "/x", Service: "a", Public: true}, {Path: "/%78", Service: "b", Public: true}}}},
		{"rateLimit", gateway.Config{RateLimit: &ratelimit.Limit{}}},
		{"trustedProxies[0]", gateway.Config{TrustedProxies: []netip.Prefix{{}}}},
		{"cors.origins[0]", gateway.Config{CORS: gateway.CORS{Origins: []string{"app.example"}}}},
		{"cors.credentials", gateway.Config{CORS: gateway.CORS{Origins: []string{"*"}, Credentials: true}}},
		{"cors.maxAge", gateway.Config{CORS: gateway.CORS{Origins: []string{"*"}, MaxAge: -1}}},
		{"policies[0]", gateway.Config{Policies: []gateway.Policy{nil}}},
		{"accessLog", gateway.Config{AccessLog: 9}},
	}
	for _, tt := range tests {
		_, err := gateway.New(tt.cfg, gateway.Deps{Transport: none, Health: http.NotFoundHandler()})
		fault, ok := errors.AsType[*gateway.ConfigError](err)
		if !ok || fault.Field != tt.field {
			t.Errorf("want an error at %s, got %v", tt.field, err)
		}
	}
	if _, err := gateway.New(gateway.Config{}, gateway.Deps{}); err == nil || !strings.Contains(err.Error(), "Transport") {
		t.Errorf("no transport: %v", err)
	}
	// The same path for other methods, hosts or headers is another route.
	cfg := gateway.Config{Routes: []gateway.Route{
		{Path: "/x", Service: "a", Public: true, Methods: []string{"GET"}}, {Path: "/x", Service: "b", Public: true, Methods: []string{"POST"}},
		{Path: "/x", Service: "c", Public: true, Host: "a.org"}, {Path: "/x", Service: "d", Public: true, Host: "*.a.org"},
		{Path: "/x", Service: "e", Public: true, Headers: map[string]string{"A": "1"}}, {Path: "/x/*", Service: "f", Public: true},
	}}
	if _, err := gateway.New(cfg, gateway.Deps{Transport: none}); err != nil {
		t.Error(err)
	}
}

func TestReloadKeepsWhatIsGood(t *testing.T) {
	t.Parallel()
	cfg := gateway.Config{
		RateLimit: &ratelimit.Limit{Requests: 3, Window: time.Hour},
		Routes: []gateway.Route{{Path: "/a", Service: "echo", Public: true,
			RateLimit: &gateway.RouteLimit{Limit: ratelimit.Limit{Requests: 2, Window: time.Hour}}}},
	}
	e := newEdge(t, cfg, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	status := func() int { res, _ := e.do("GET", "/a", ""); return res.StatusCode }
	if got := status(); got != 200 {
		t.Fatal(got)
	}
	bad := cfg
	bad.Routes = []gateway.Route{{Path: "/a", Service: "echo"}}
	if err := e.Reload(bad); err == nil {
		t.Error("a route without authenticator is accepted")
	}
	// An unchanged limit goes on counting, whatever else changes.
	cfg.Routes = append(cfg.Routes, gateway.Route{Path: "/b", Service: "echo", Public: true})
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if got := [2]int{status(), status()}; got != [2]int{200, 429} {
		t.Errorf("%v", got)
	}
	// Another limit starts anew.
	cfg.RateLimit = &ratelimit.Limit{Requests: 4, Window: time.Hour}
	cfg.Routes[0].RateLimit = nil
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if got := [5]int{status(), status(), status(), status(), status()}; got != [5]int{200, 200, 200, 200, 429} {
		t.Errorf("%v", got)
	}
}

// Requests under way finish with the table they began with; none is lost.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	blue := gateway.Config{AccessLog: gateway.LogErrors, Routes: []gateway.Route{{Path: "/*", Service: "blue", Public: true}}}
	green := gateway.Config{AccessLog: gateway.LogErrors, Routes: []gateway.Route{{Path: "/*", Service: "green", Public: true}}}
	name := func(n string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s", n, r.URL.Path, body)
		})
	}
	slowArrived, slowGo := make(chan struct{}), make(chan struct{})
	fleet := newFleet(t, map[string]http.Handler{"blue": name("blue"), "green": name("green"), "slow": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(slowArrived)
		<-slowGo
		fmt.Fprint(w, "old table")
	})})
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{{Path: "/slow", Service: "slow", Public: true}}}, gateway.Deps{Transport: fleet})
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := e.http.Get(e.url + "/slow")
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		if text, _ := io.ReadAll(res.Body); string(text) != "old table" || res.Header.Get("X-Service-Name") != "slow" {
			t.Errorf("%d %s", res.StatusCode, text)
		}
	})
	<-slowArrived
	if err := e.Reload(blue); err != nil { // /slow is gone
		t.Fatal(err)
	}
	var stop atomic.Bool
	var reloads sync.WaitGroup
	for _, cfg := range []gateway.Config{blue, green} {
		reloads.Go(func() {
			for !stop.Load() {
				if err := e.Reload(cfg); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for worker := range 8 {
		wg.Go(func() {
			for i := range 100 {
				path := fmt.Sprintf("/%d/%d", worker, i)
				res, err := e.http.Post(e.url+path, "text/plain", strings.NewReader("body"))
				if err != nil {
					t.Error(err)
					return
				}
				text, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if want := fmt.Sprintf("%s %s body", res.Header.Get("X-Service-Name"), path); res.StatusCode != 200 || string(text) != want {
					t.Errorf("%d %s, want %s", res.StatusCode, text, want)
				}
			}
		})
		if worker == 4 {
			close(slowGo)
		}
	}
	wg.Wait()
	stop.Store(true)
	reloads.Wait()
}

// Without a server around it the gateway still answers.
func TestRecorder(t *testing.T) {
	t.Parallel()
	g, err := gateway.New(gateway.Config{}, gateway.Deps{Transport: roundTripper(nil)})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	g.ServeHTTP(rec, httptest.NewRequest("GET", "/x", nil))
	wantProblem(t, rec.Result(), rec.Body.String(), 404, "not_found")
}
