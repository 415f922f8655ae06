//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestUsersThroughTheGateway(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 1))
	p.up().ready()
	t.Run("life", func(t *testing.T) { userLife(t, p) })
	t.Run("pages", func(t *testing.T) { userPages(t, p) })
	t.Run("bad requests", func(t *testing.T) { badRequests(t, p) })
	t.Run("large bodies", func(t *testing.T) { largeBodies(t, p) })
	t.Run("tokens", func(t *testing.T) { badTokens(t, p) })
}

func userLife(t *testing.T, p *project) {
	made := p.call("POST", "/api/users", `{"name":" Ann ","email":"ann@example.org"}`)
	var u map[string]any
	if err := json.Unmarshal([]byte(made.body), &u); err != nil || made.status != 201 {
		t.Fatalf("create: %d %s (%v)", made.status, made.body, err)
	}
	id, _ := u["id"].(string)
	if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 7 {
		t.Errorf("id %q is no UUIDv7", id)
	}
	if u["name"] != "Ann" || u["email"] != "ann@example.org" || u["createdAt"] == nil || u["updatedAt"] == nil {
		t.Errorf("created: %v", u)
	}
	// The Location works as it is, through the gateway.
	location := made.header.Get("Location")
	if location != "/api/users/"+id {
		t.Errorf("Location %q", location)
	}
	got := p.call("GET", location, "")
	if got.status != 200 || got.body != made.body {
		t.Errorf("get: %d %s, created %s", got.status, got.body, made.body)
	}
	put := p.call("PUT", location, `{"name":"Anna","email":"anna@example.org"}`)
	var v map[string]any
	if err := json.Unmarshal([]byte(put.body), &v); err != nil || put.status != 200 {
		t.Fatalf("put: %d %s (%v)", put.status, put.body, err)
	}
	if v["id"] != id || v["name"] != "Anna" || v["createdAt"] != u["createdAt"] || v["updatedAt"] == u["updatedAt"] {
		t.Errorf("replaced: %v, was %v", v, u)
	}
	if del := p.call("DELETE", location, ""); del.status != 204 || del.body != "" {
		t.Errorf("delete: %d %s", del.status, del.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if got := p.call(method, location, ""); got.status != 404 {
			t.Errorf("%s of the deleted: %d", method, got.status)
		}
	}
}

func userPages(t *testing.T, p *project) {
	for i := range 7 {
		p.makeUser(fmt.Sprintf("page%d@example.org", i))
	}
	var emails []string
	path := "/api/users?limit=3"
	for path != "" {
		got := p.call("GET", path, "")
		var page []user
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || got.status != 200 {
			t.Fatalf("%s: %d %s (%v)", path, got.status, got.body, err)
		}
		for _, u := range page {
			emails = append(emails, u.Email)
		}
		// The link too works as it is.
		link, rel, _ := strings.Cut(got.header.Get("Link"), ">; ")
		if path = strings.TrimPrefix(link, "<"); path != "" && (rel != `rel="next"` || !strings.HasPrefix(path, "/api/users?")) {
			t.Fatalf("Link: %q", got.header.Get("Link"))
		}
	}
	want := make([]string, 7)
	for i := range want {
		want[i] = fmt.Sprintf("page%d@example.org", i)
	}
	if diff := cmp.Diff(want, emails); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func badRequests(t *testing.T, p *project) {
	p.makeUser("taken@example.org")
	bearer := p.bearer()
	const good = `{"name":"Bob","email":"bob@example.org"}`
	tests := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     string
		pointers                 []string
		want                     map[string]string // header
	}{
		{"malformed JSON", "POST", "/api/users", `{"name":`, bearer, 400, "malformed_body", nil, nil},
		{"two values", "POST", "/api/users", good + good, bearer, 400, "malformed_body", nil, nil},
		{"no body", "POST", "/api/users", "", bearer, 400, "malformed_body", nil, nil},
		{"wrong type", "POST", "/api/users", `{"name":7,"email":"bob@example.org"}`, bearer, 422, "invalid", []string{"/name"}, nil},
		{"all fields wrong", "POST", "/api/users", `{"name":"","email":"bob"}`, bearer, 422, "invalid", []string{"/email", "/name"}, nil},
		{"missing field", "POST", "/api/users", `{"name":"Bob"}`, bearer, 422, "invalid", []string{"/email"}, nil},
		{"unknown field", "POST", "/api/users", `{"name":"Bob","email":"bob@example.org","role":"admin"}`, bearer, 422, "invalid", []string{"/role"}, nil},
		{"id is not a client's", "POST", "/api/users", `{"name":"Bob","email":"bob@example.org","id":"1"}`, bearer, 422, "invalid", []string{"/id"}, nil},
		{"createdAt is not either", "POST", "/api/users", `{"name":"Bob","email":"bob@example.org","createdAt":"now"}`, bearer, 422, "invalid", []string{"/createdAt"}, nil},
		{"another case", "POST", "/api/users", `{"Name":"Bob","email":"bob@example.org"}`, bearer, 422, "invalid", []string{"/Name", "/name"}, nil},
		{"an array", "POST", "/api/users", `[]`, bearer, 422, "invalid", []string{""}, nil},
		{"taken email", "POST", "/api/users", `{"name":"Bob","email":"TAKEN@example.org"}`, bearer, 409, "conflict", []string{"/email"}, nil},
		{"wrong media type", "POST", "/api/users", good, append([]string{"Content-Type", "text/plain"}, bearer...), 415, "unsupported_media_type", nil, nil},
		{"bad limit", "GET", "/api/users?limit=0", "", bearer, 422, "invalid", []string{"#query/limit"}, nil},
		{"bad after", "GET", "/api/users?after=x", "", bearer, 422, "invalid", []string{"#query/after"}, nil},
		{"unknown user", "GET", "/api/users/nobody", "", bearer, 404, "not_found", nil, nil},
		{"put to nobody", "PUT", "/api/users/nobody", good, bearer, 404, "not_found", nil, nil},

		{"unknown route", "GET", "/nowhere", "", bearer, 404, "not_found", nil, nil},
		{"unknown route without token", "GET", "/nowhere", "", nil, 404, "not_found", nil, nil},
		{"no segment's end", "GET", "/api/usersX", "", bearer, 404, "not_found", nil, nil},
		{"method no route takes", "PROPFIND", "/api/users", "", bearer, 405, "method_not_allowed", nil, map[string]string{"Allow": "DELETE, GET, HEAD, PATCH, POST, PUT"}},
		{"method the service does not take", "PATCH", "/api/users", "", bearer, 405, "method_not_allowed", nil, map[string]string{"Allow": "GET, HEAD, POST, OPTIONS"}},
		{"method of /health", "POST", "/health", "", nil, 405, "method_not_allowed", nil, map[string]string{"Allow": "GET, HEAD"}},
		{"dots", "GET", "/api/users/%2e%2e/health", "", bearer, 400, "bad_request", nil, nil},
		{"an empty segment", "GET", "/api//users", "", bearer, 400, "bad_request", nil, nil},
		{"a hidden slash", "GET", "/api/users/..%2fhealth", "", bearer, 400, "bad_request", nil, nil},

		{"no token", "GET", "/api/users", "", nil, 401, "unauthenticated", nil, map[string]string{"Www-Authenticate": "Bearer"}},
		{"another scheme", "GET", "/api/users", "", []string{"Authorization", "Basic ZGV2OmRldg=="}, 401, "unauthenticated", nil, map[string]string{"Www-Authenticate": "Bearer"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := p.send(tt.method, tt.path, tt.body, tt.header...)
			if err != nil {
				t.Fatal(err)
			}
			problem, err := got.problem()
			if err != nil || got.status != tt.status || problem.Status != tt.status || problem.Code != tt.code {
				t.Errorf("%d %s (%v), want %d %s", got.status, got.body, err, tt.status, tt.code)
			}
			var pointers []string
			for _, e := range problem.Errors {
				pointers = append(pointers, e.Pointer)
			}
			slices.Sort(pointers)
			if diff := cmp.Diff(tt.pointers, pointers); diff != "" {
				t.Errorf("pointers (-want +got):\n%s\n%s", diff, got.body)
			}
			for name, want := range tt.want {
				if values := got.header[name]; len(values) != 1 || values[0] != want {
					t.Errorf("%s: %q, want %q", name, values, want)
				}
			}
			if id := got.header.Get("X-Request-Id"); id == "" || problem.RequestID != id {
				t.Errorf("request id %q in the header, %q in the body", id, problem.RequestID)
			}
		})
	}
}

// largeBodies: the answer comes although the body was not read, again and again.
func largeBodies(t *testing.T, p *project) {
	bearer := p.bearer()
	body := `{"name":"` + strings.Repeat("x", 10<<20) + `"}`
	for _, chunked := range []bool{false, true} {
		for range 10 {
			var r io.Reader = strings.NewReader(body)
			if chunked {
				r = io.MultiReader(r) // of a length nobody knows
			}
			req, err := http.NewRequest("POST", "http://"+p.gateway+"/api/users", r)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(bearer[0], bearer[1])
			req.Header.Set("Content-Type", "application/json")
			began := time.Now()
			got, err := p.roundTrip(req)
			if err != nil {
				t.Fatalf("chunked %t, after %v: %v", chunked, time.Since(began), err)
			}
			problem, err := got.problem()
			if err != nil || got.status != 413 || problem.Code != "payload_too_large" {
				t.Fatalf("chunked %t: %d %s (%v), want 413", chunked, got.status, got.body, err)
			}
		}
	}
}

func badTokens(t *testing.T, p *project) {
	f := newForge(p)
	if got, err := p.send("GET", "/api/users", "", "Authorization", "Bearer "+f.sign(nil)); err != nil || got.status != 200 {
		t.Fatalf("a good token of the forge: %d %s (%v)", got.status, got.body, err)
	}
	for name, token := range f.forgeries() {
		got, err := p.send("GET", "/api/users", "", "Authorization", "Bearer "+token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		problem, err := got.problem()
		challenge := got.header.Get("Www-Authenticate")
		if err != nil || got.status != 401 || problem.Code != "unauthenticated" || !strings.HasPrefix(challenge, `Bearer error="invalid_token"`) {
			t.Errorf("%s: %d %q %s (%v), want 401", name, got.status, challenge, got.body, err)
		}
		if strings.Contains(got.body, token) && len(token) > 1 {
			t.Errorf("%s: the answer has the token", name)
		}
	}
	for name, header := range map[string][]string{
		"two tokens":        {"Authorization", "Bearer " + p.token, "Authorization", "Bearer x"},
		"a token elsewhere": {"Cookie", "access_token=" + p.token},
	} {
		if got, err := p.send("GET", "/api/users?access_token="+p.token, "", header...); err != nil || got.status != 401 {
			t.Errorf("%s: %d %s (%v), want 401", name, got.status, got.body, err)
		}
	}
	if got, err := p.send("GET", "/api/users", "", "Authorization", "bearer "+p.token); err != nil || got.status != 200 {
		t.Errorf("the scheme in lower case: %d %s (%v)", got.status, got.body, err)
	}
}

// TestIdentityCannotBeSpoofed: what a service is told of the caller, the gateway
// has verified.
func TestIdentityCannotBeSpoofed(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(echoRoute+"    - {path: /open/*, service: echo, stripPrefix: /open, public: true}\n"+
		"    - {path: /scoped/*, service: echo, stripPrefix: /scoped, scopes: [write]}\n", role(t, "echo"))
	p.up().ready()
	ask := func(path string, header ...string) heard {
		t.Helper()
		got, err := p.send("GET", path, "", header...)
		if err != nil {
			t.Fatal(err)
		}
		var h heard
		if err := json.Unmarshal([]byte(got.body), &h); err != nil || got.status != 200 {
			t.Fatalf("%s: %d %s (%v)", path, got.status, got.body, err)
		}
		return h
	}
	spoofed := []string{
		"X-Auth-Subject", "root", "x-auth-subject", "root", "X_Auth_Subject", "root", "X-Auth_Subject", "root", "X.Auth.Subject", "root",
		"X-Auth-Scopes", "admin", "X_AUTH_SCOPES", "admin", "X-Forwarded-For", "10.1.2.3", "X-Real-Ip", "10.1.2.3", "Forwarded", "for=10.1.2.3",
		"X-Service-Name", "evil", "X-Original-Url", "/admin", "X-Kept", "yes",
	}
	alice := p.keelson("token", "--subject", "alice", "--scope", "read", "--scope", "write")
	h := ask("/api/echo/a%20b?q=%2F&q", append(spoofed, "Authorization", "Bearer "+strings.TrimSpace(alice.stdout))...)
	if h.Method != "GET" || h.Path != "/echo/a%20b" || h.Query != "q=%2F&q" || h.Instance != "echo-1" {
		t.Errorf("passed on: %+v", h)
	}
	want := map[string]string{
		"X-Auth-Subject": "alice", "X-Auth-Scopes": "read write", "X-Forwarded-For": "127.0.0.1", "X-Service-Name": "echo", "X-Kept": "yes",
		"X-Forwarded-Prefix": "/api", "X-Forwarded-Proto": "http", "X-Forwarded-Host": p.gateway,
	}
	for name, value := range want {
		if diff := cmp.Diff([]string{value}, h.Header[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	plain := strings.NewReplacer("_", "-", ".", "-")
	for name, values := range h.Header {
		if slices.ContainsFunc(values, func(v string) bool {
			return v == "root" || v == "admin" || strings.Contains(v, "10.1.2.3") || v == "/admin"
		}) {
			t.Errorf("%s: %q got through", name, values)
		}
		if canonical := http.CanonicalHeaderKey(plain.Replace(name)); canonical != name && h.Header[canonical] != nil {
			t.Errorf("%s stands beside %s", name, canonical)
		}
	}
	for name := range ask("/open/echo/x", spoofed...).Header {
		if strings.HasPrefix(strings.ToLower(plain.Replace(name)), "x-auth-") {
			t.Errorf("a public route passes on %s", name)
		}
	}
	if got := p.call("GET", "/scoped/echo/x", ""); got.status != 403 || got.header.Get("Www-Authenticate") != `Bearer error="insufficient_scope", error_description="the token lacks a scope", scope="write"` {
		t.Errorf("without the scope: %d %q %s", got.status, got.header.Get("Www-Authenticate"), got.body)
	}
}

// TestClientLimit: it holds for the real client whatever it claims to be.
func TestClientLimit(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.limited(5, userRoute, userService(t, 1))
	p.up().ready()
	p.bearer()
	for i := range 8 {
		address := fmt.Sprintf("10.0.0.%d", i)
		// Without a token too: guessing tokens is limited.
		header := []string{"X-Forwarded-For", address, "X-Real-Ip", address, "Forwarded", "for=" + address}
		if i%2 == 0 {
			header = append(header, p.bearer()...)
		}
		got, err := p.send("GET", "/api/users", "", header...)
		if err != nil {
			t.Fatal(err)
		}
		if policy := got.header.Get("RateLimit-Policy"); policy != `"default";q=5;w=60` {
			// net/http puts names into canonical form.
			t.Errorf("RateLimit-Policy %q in %v", policy, got.header)
		}
		want := 200 + i%2*201
		if i >= 5 {
			want = 429
		}
		if got.status != want {
			t.Errorf("request %d: %d %s, want %d", i, got.status, got.body, want)
		}
		limit := got.header.Get("RateLimit")
		if prefix := fmt.Sprintf(`"default";r=%d;t=`, max(0, 4-i)); !strings.HasPrefix(limit, prefix) {
			t.Errorf("request %d: RateLimit %q, want %s…", i, limit, prefix)
		}
		after, err := strconv.Atoi(got.header.Get("Retry-After"))
		if limited := err == nil && after >= 1 && after <= 60; limited != (i >= 5) {
			t.Errorf("request %d: Retry-After %q", i, got.header.Get("Retry-After"))
		}
		if problem, err := got.problem(); i >= 5 && (err != nil || problem.Code != "rate_limited" || !problem.Retryable) {
			t.Errorf("request %d: %s (%v)", i, got.body, err)
		}
	}
	for _, path := range []string{"/health", "/services"} {
		if got, err := p.send("GET", path, ""); err != nil || got.status != 200 {
			t.Errorf("%s beyond the limit: %d %s (%v)", path, got.status, got.body, err)
		}
	}
	if got, err := p.send("GET", "/nowhere", ""); err != nil || got.status != 404 {
		t.Errorf("an unknown route beyond the limit: %d %s (%v)", got.status, got.body, err)
	}
}
