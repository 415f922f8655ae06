package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
)

func TestCORS(t *testing.T) {
	t.Parallel()
	verifier, _ := tokens(t)
	upstream := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://upstream.example")
		w.Header().Set("Access-Control-Allow-Methods", "TRACE")
		w.Header().Set("Vary", "Accept")
	})
	cfg := gateway.Config{
		Authenticator: verifier,
		CORS:          gateway.CORS{Origins: []string{"https://App.example"}, Credentials: true},
		Routes:        []gateway.Route{{Path: "/api/*", Service: "up"}, {Path: "/public", Service: "up", Public: true}},
	}
	e := newEdge(t, cfg, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"up": upstream})})
	preflight := []string{"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization, x-a"}

	// Before match and authentication.
	for _, path := range []string{"/api/x", "/nowhere", "/health"} {
		res, _ := e.do("OPTIONS", path, "", append(preflight, "Origin", "https://app.example")...)
		h := res.Header
		if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" ||
			h.Get("Access-Control-Allow-Headers") != "authorization, x-a" || h.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST, PUT, PATCH, DELETE" ||
			h.Get("Access-Control-Max-Age") != "600" || strings.Join(h.Values("Vary"), ",") != "Origin,Access-Control-Request-Headers" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d %v", path, res.StatusCode, h)
		}
	}
	res, text := e.do("OPTIONS", "/api/x", "", append(preflight, "Origin", "https://evil.example")...)
	wantProblem(t, res, text, 403, problem.CodeForbidden)
	if res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a stranger's origin is allowed")
	}
	// A page may read refusals too, and what the service says is replaced.
	res, _ = e.do("GET", "/api/x", "", "Origin", "https://app.example")
	if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	res, _ = e.do("GET", "/public", "", "Origin", "https://app.example")
	if h := res.Header; h.Get("Access-Control-Allow-Origin") != "https://app.example" || len(h.Values("Access-Control-Allow-Origin")) != 1 ||
		h.Get("Access-Control-Allow-Methods") != "" || strings.Join(h.Values("Vary"), ",") != "Accept,Origin" {
		t.Errorf("%v", h)
	}
	res, _ = e.do("GET", "/public", "", "Origin", "https://evil.example")
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("for a stranger: %s", got)
	}
	cfg.CORS = gateway.CORS{Origins: []string{"*"}}
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	res, _ = e.do("GET", "/public", "", "Origin", "null")
	if h := res.Header; h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Vary") != "Accept" {
		t.Errorf("%v", h)
	}
	// Without CORS a preflight is a request like others, and services speak for themselves.
	cfg.CORS = gateway.CORS{}
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	res, text = e.do("OPTIONS", "/api/x", "", append(preflight, "Origin", "https://app.example")...)
	wantProblem(t, res, text, 405, problem.CodeMethodNotAllowed)
	res, _ = e.do("GET", "/public", "", "Origin", "https://app.example")
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "https://upstream.example" {
		t.Errorf("%v", got)
	}
}
