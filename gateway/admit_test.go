package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/ratelimit"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	verifier, mint := tokens(t)
	_, mintOther := tokens(t)
	e := newEdge(t, gateway.Config{
		Authenticator: verifier,
		Routes: []gateway.Route{
			{Path: "/api/*", Service: "echo"},
			{Path: "/admin", Service: "echo", Scopes: []string{"admin", "write"}},
			{Path: "/public", Service: "echo", Public: true},
		},
	}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})

	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	good := mint(time.Hour, "read")
	head, rest, _ := strings.Cut(strings.TrimPrefix(good, "Bearer "), ".")
	body, signature, _ := strings.Cut(rest, ".")
	claims, _ := base64.RawURLEncoding.DecodeString(body)
	audience := strings.Replace(string(claims), `"keelson"`, `"another"`, 1)
	if audience == string(claims) {
		t.Fatalf("no audience in %s", claims)
	}
	tests := []struct {
		name, path, token string
		status            int
		challenge         string
	}{
		{"good", "/api/x", good, 200, ""},
		{"lower-case scheme", "/api/x", "bearer" + strings.TrimPrefix(good, "Bearer"), 200, ""},
		{"missing", "/api/x", "", 401, "Bearer"},
		{"other scheme", "/api/x", "Basic YTpi", 401, "Bearer"},
		{"malformed", "/api/x", "Bearer a.b", 401, `Bearer error="invalid_token"`},
		{"none algorithm", "/api/x", "Bearer " + segment(`{"alg":"none"}`) + "." + body + ".", 401, `Bearer error="invalid_token"`},
		{"changed claims", "/api/x", "Bearer " + head + "." + segment(audience) + "." + signature, 401, `Bearer error="invalid_token"`},
		{"another key", "/api/x", mintOther(time.Hour), 401, `Bearer error="invalid_token"`},
		{"token on an unknown route", "/nowhere", good, 404, ""},
		{"no token on an unknown route", "/nowhere", "", 404, ""},
		{"scope missing", "/admin", good, 403, `Bearer error="insufficient_scope"`},
		{"scope in part", "/admin", mint(time.Hour, "admin"), 403, `Bearer error="insufficient_scope"`},
		{"scopes", "/admin", mint(time.Hour, "write", "read", "admin"), 200, ""},
		{"public", "/public", "", 200, ""},
		{"public with a bad token", "/public", "Bearer x", 200, ""},
	}
	codes := map[int]string{401: problem.CodeUnauthenticated, 403: problem.CodeForbidden, 404: problem.CodeNotFound}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var header []string
			if tt.token != "" {
				header = []string{"Authorization", tt.token}
			}
			res, text := e.do("GET", tt.path, "", header...)
			if tt.status != 200 {
				wantProblem(t, res, text, tt.status, codes[tt.status])
			} else if res.StatusCode != 200 {
				t.Errorf("%d %s", res.StatusCode, text)
			}
			challenge := res.Header.Get("Www-Authenticate")
			if tt.challenge == "Bearer" && challenge != "Bearer" || !strings.HasPrefix(challenge, tt.challenge) || tt.challenge == "" && challenge != "" {
				t.Errorf("WWW-Authenticate: %s, want %s", challenge, tt.challenge)
			}
		})
	}
	if strings.Contains(e.logs.String(), signature) {
		t.Error("a token is in the log")
	}
}

// Expiry and audience are the authenticator's; the gateway has to tell its errors.
func TestAuthenticatorErrors(t *testing.T) {
	t.Parallel()
	var answer error
	e := newEdge(t, gateway.Config{
		Authenticator: auth.Func(func(context.Context, auth.Credentials) (*auth.Identity, error) { return nil, answer }),
		Routes:        []gateway.Route{{Path: "/*", Service: "echo"}},
	}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	tests := []struct {
		err    error
		status int
		code   string
		detail string
	}{
		{auth.ErrExpired, 401, problem.CodeUnauthenticated, "expired"},
		{fmt.Errorf("%w: aud", auth.ErrInvalidToken), 401, problem.CodeUnauthenticated, "not valid"},
		{auth.ErrUnavailable, 503, problem.CodeUnavailable, "right now"},
		{errors.New("secret detail"), 401, problem.CodeUnauthenticated, "not valid"},
		{nil, 401, problem.CodeUnauthenticated, "not valid"}, // no identity, no error: fail closed
	}
	for _, tt := range tests {
		answer = tt.err
		res, text := e.do("GET", "/", "")
		wantProblem(t, res, text, tt.status, tt.code)
		if !strings.Contains(text, tt.detail) || strings.Contains(text, "secret") {
			t.Errorf("%v: %s", tt.err, text)
		}
		if retry := res.Header.Get("Retry-After"); (retry == "1") != (tt.status == 503) {
			t.Errorf("%v: Retry-After %q", tt.err, retry)
		}
	}
}

func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/api/users/*", Service: "echo", StripPrefix: "/api", Public: true},
		{Path: "/read", Service: "echo", Methods: []string{"GET"}, Public: true},
	}}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})

	res, text := e.do("POST", "/read", "x")
	wantProblem(t, res, text, 405, problem.CodeMethodNotAllowed)
	if got := res.Header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow: %s", got)
	}
	res, text = e.do("OPTIONS", "/api/users/7", "")
	wantProblem(t, res, text, 405, problem.CodeMethodNotAllowed)
	if got := res.Header.Get("Allow"); got != "DELETE, GET, HEAD, PATCH, POST, PUT" {
		t.Errorf("Allow: %s", got)
	}
	for uri, want := range map[string]string{
		"/api/users/7":                    "/users/7",
		"/api/users":                      "/users",
		"/api/users/":                     "/users/",
		"/api/users/7?b=2&a=1&a=%2f;x&&=": "/users/7?b=2&a=1&a=%2f;x&&=",
		"/api/users/?":                    "/users/?",
		"/api/users/a%20b%3f%C3%A9":       "/users/a%20b%3f%C3%A9",
		"/%61pi/%75sers/%37":              "/%75sers/%37",
	} {
		_, got := e.echo("GET", uri, "")
		if got.URI != want {
			t.Errorf("%s reached the service as %s, want %s", uri, got.URI, want)
		}
	}
	for _, uri := range []string{
		"/api/users/../admin", "/api/users/%2e%2e/admin", "/api//users", "//api/users", "/api/users/..%2f..%2fadmin",
		"/api/users%2f..", "/api/users/.%2e;/x", "/api/users/%5c..", "/./api/users",
	} {
		answer := raw(t, e.addr, "GET "+uri+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, `"bad_request"`) {
			t.Errorf("%s: %s", uri, answer)
		}
	}
	answer := raw(t, e.addr, "GET /read HTTP/1.1\r\nHost: a'b\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
		t.Errorf("bad host: %s", answer)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	verifier, mint := tokens(t)
	cfg := gateway.Config{
		Authenticator:  verifier,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}, // not our clients
		RateLimit:      &ratelimit.Limit{Requests: 2, Window: time.Hour},
		Routes:         []gateway.Route{{Path: "/*", Service: "echo"}},
		ExposeServices: true,
	}
	h := health.New("1")
	h.Started()
	deps := gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo}), Health: h.Detail(), Services: func() any { return []string{"echo"} }}
	e := newEdge(t, cfg, deps)

	for i := range 2 {
		res, text := e.do("GET", "/x", "")
		wantProblem(t, res, text, 401, problem.CodeUnauthenticated)
		if want := fmt.Sprintf(`"default";r=%d;t=`, 1-i); !strings.HasPrefix(res.Header.Get("Ratelimit"), want) {
			t.Errorf("RateLimit: %s, want %s", res.Header.Get("Ratelimit"), want)
		}
	}
	// Neither another name nor a token makes another client.
	for _, spoof := range [][]string{
		{"X-Forwarded-For", "203.0.113.1"}, {"Forwarded", "for=203.0.113.2"}, {"X-Real-Ip", "203.0.113.3"}, {"Authorization", mint(time.Hour)},
	} {
		res, text := e.do("GET", "/x", "", spoof...)
		wantProblem(t, res, text, 429, problem.CodeRateLimited)
		if res.Header.Get("Retry-After") == "" || res.Header.Get("Ratelimit-Policy") != `"default";q=2;w=3600` {
			t.Errorf("%v: %v", spoof, res.Header)
		}
	}
	for range 5 {
		if res, text := e.do("GET", "/health", ""); res.StatusCode != 200 || !strings.Contains(text, `"status"`) {
			t.Errorf("/health: %d %s", res.StatusCode, text)
		}
		if res, text := e.do("GET", "/services", ""); res.StatusCode != 200 || strings.TrimSpace(text) != `["echo"]` {
			t.Errorf("/services: %d %s", res.StatusCode, text)
		}
	}
	res, text := e.do("POST", "/health", "")
	wantProblem(t, res, text, 405, problem.CodeMethodNotAllowed)
	// 404 comes before the limit.
	cfg.Routes = nil
	cfg.ExposeServices = false
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	res, text = e.do("GET", "/services", "")
	wantProblem(t, res, text, 404, problem.CodeNotFound)
}

func TestLimitsBehindProxy(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		RateLimit:      &ratelimit.Limit{Requests: 1, Window: time.Hour},
		Routes:         []gateway.Route{{Path: "/*", Service: "echo", Public: true}},
	}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	status := func(client string) int {
		res, _ := e.do("GET", "/", "", "X-Forwarded-For", client)
		return res.StatusCode
	}
	for _, tt := range []struct {
		client string
		want   int
	}{
		{"203.0.113.1", 200}, {"203.0.113.1", 429}, {"9.9.9.9, 203.0.113.1", 429}, {"203.0.113.2", 200},
		{"2001:db8:0:1::1", 200}, {"2001:db8:0:1::2", 429}, {"2001:db8:0:2::1", 200}, // an IPv6 client is a /64
		{"unknown", 200}, {"_hidden", 429}, // all unknown ones are one client
	} {
		if got := status(tt.client); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.client, got, tt.want)
		}
	}
	res, text := e.do("GET", "/", "", "X-Forwarded-For", "203.0.113.7", "Forwarded", "for=203.0.113.8")
	wantProblem(t, res, text, 400, problem.CodeBadRequest)
}

func TestRouteLimits(t *testing.T) {
	t.Parallel()
	verifier, mint := tokens(t)
	one := ratelimit.Limit{Requests: 1, Window: time.Hour}
	e := newEdge(t, gateway.Config{
		Authenticator: verifier,
		RateLimit:     &ratelimit.Limit{Requests: 100, Window: time.Hour},
		Routes: []gateway.Route{
			{Path: "/subject", Service: "echo", RateLimit: &gateway.RouteLimit{Limit: one, By: gateway.BySubject}},
			{Path: "/route", Service: "echo", Public: true, RateLimit: &gateway.RouteLimit{Limit: one, By: gateway.ByRoute}},
			{Path: "/client", Service: "echo", Public: true, RateLimit: &gateway.RouteLimit{Limit: one}},
		},
	}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	token := mint(time.Hour)
	for _, path := range []string{"/subject", "/route", "/client"} {
		res, _ := e.do("GET", path, "", "Authorization", token)
		if got := res.Header.Values("Ratelimit-Policy"); res.StatusCode != 200 || len(got) != 2 || got[1] != `"route";q=1;w=3600` {
			t.Errorf("%s: %d %v", path, res.StatusCode, got)
		}
		res, text := e.do("GET", path, "", "Authorization", token)
		wantProblem(t, res, text, 429, problem.CodeRateLimited)
	}
}

func TestAddressRules(t *testing.T) {
	t.Parallel()
	loopback, docs := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("203.0.113.0/24")
	cfg := gateway.Config{Routes: []gateway.Route{
		{Path: "/open", Service: "echo", Public: true},
		{Path: "/ours", Service: "echo", Public: true, Allow: []netip.Prefix{loopback}},
		{Path: "/theirs", Service: "echo", Public: true, Allow: []netip.Prefix{docs}},
		{Path: "/denied", Service: "echo", Public: true, Deny: []netip.Prefix{loopback}},
		{Path: "/both", Service: "echo", Public: true, Allow: []netip.Prefix{loopback}, Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
	}}
	e := newEdge(t, cfg, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	for path, want := range map[string]int{"/open": 200, "/ours": 200, "/theirs": 403, "/denied": 403, "/both": 403} {
		// An untrusted peer can't choose its address.
		res, text := e.do("GET", path, "", "X-Forwarded-For", "203.0.113.5")
		if res.StatusCode != want {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		if want == 403 {
			wantProblem(t, res, text, 403, problem.CodeForbidden)
		}
	}
	cfg.TrustedProxies = []netip.Prefix{loopback}
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/ours": 403, "/theirs": 200, "/denied": 200} {
		if res, _ := e.do("GET", path, "", "X-Forwarded-For", "203.0.113.5"); res.StatusCode != want {
			t.Errorf("behind the proxy, %s: %d", path, res.StatusCode)
		}
	}
	// Who is not known passes neither kind of list.
	for _, path := range []string{"/ours", "/denied"} {
		if res, _ := e.do("GET", path, "", "X-Forwarded-For", "unknown"); res.StatusCode != 403 {
			t.Errorf("unknown client, %s: %d", path, res.StatusCode)
		}
	}
}

type policyFunc func(context.Context, *gateway.Request, gateway.Header) error

func (policyFunc) Name() string { return "mine" }
func (f policyFunc) Check(ctx context.Context, r *gateway.Request, h gateway.Header) error {
	return f(ctx, r, h)
}

func TestOwnPolicies(t *testing.T) {
	t.Parallel()
	verifier, mint := tokens(t)
	policy := func(_ context.Context, r *gateway.Request, resp gateway.Header) error {
		resp.Set("X-Mine", r.Identity.Subject+" "+r.Service)
		resp.Set("X-Gone", "1")
		resp.Del("X-Gone")
		switch r.Header.Get("X-Want") {
		case "problem":
			return problem.New(http.StatusTeapot, "teapot", "Short and stout.")
		case "error":
			return errors.New("secret detail")
		case "panic":
			panic("secret detail")
		case "answer":
			return &gateway.Answer{Status: http.StatusAccepted}
		}
		r.Header.Del("Authorization")
		return nil
	}
	e := newEdge(t, gateway.Config{
		Authenticator: verifier, Policies: []gateway.Policy{policyFunc(policy)},
		Routes: []gateway.Route{{Path: "/*", Service: "echo"}},
	}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	token := mint(time.Hour)
	for want, status := range map[string]int{"": 200, "problem": 418, "error": 500, "panic": 500, "answer": 202} {
		res, text := e.do("GET", "/", "", "Authorization", token, "X-Want", want)
		if res.StatusCode != status || res.Header.Get("X-Mine") != "ann echo" || res.Header.Get("X-Gone") != "" || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %v %s", want, res.StatusCode, res.Header, text)
		}
		if want == "" {
			var got echoed
			if err := json.Unmarshal([]byte(text), &got); err != nil || got.Header.Get("Authorization") != "" {
				t.Errorf("the policy's change did not reach the service: %v %s", err, text)
			}
		}
	}
	if text := e.logs.String(); strings.Count(text, "secret detail") != 2 || !strings.Contains(text, `"refused_by":"mine"`) {
		t.Errorf("log: %s", text)
	}
}
