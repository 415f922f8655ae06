package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // for what takes milliseconds on an idle machine

var loopback = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3100}

// fleet opens a registry on a hub of its own.
func fleet(t *testing.T) *registry.Registry {
	t.Helper()
	r := registry.Open(context.Background(), memregistry.New().Connect())
	t.Cleanup(r.Close)
	if err := r.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// register registers an instance and waits until the registry shows it.
func register(t *testing.T, r *registry.Registry, in registry.Instance) *registry.Registration {
	t.Helper()
	in.Address = "http://10.0.0.1:8080"
	reg, err := r.Register(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registry shows it", func() bool { _, ok := r.Get(reg.Instance().Key()); return ok })
	return reg
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func newConsole(t *testing.T, cfg console.Config) *console.Console {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = loopback
	}
	c, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask asks without a network, as localhost unless a Host is given.
func ask(c http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	return askWith(c, method, target, "", header...)
}

// askWith sends a body, too; it is JSON unless a Content-Type is given.
func askWith(c http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = "localhost:3100", "127.0.0.1:40000"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		switch header[i] {
		case "Host":
			r.Host = header[i+1]
		case "RemoteAddr":
			r.RemoteAddr = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

func decode(t *testing.T, w *httptest.ResponseRecorder) *problem.Problem {
	t.Helper()
	p, err := problem.Decode(w.Result())
	if err != nil {
		t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	return p
}

func TestServices(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	empty := func(path string) {
		t.Helper()
		if w := ask(c, "GET", path); w.Code != 200 || w.Body.String() != "[]\n" {
			t.Errorf("%s of an empty registry: %d %q", path, w.Code, w.Body)
		}
	}
	empty("/v1/services")
	empty("/v1/services/users")
	register(t, r, registry.Instance{Name: "users", ID: "users-1", Tags: []string{"blue", "canary"}})
	register(t, r, registry.Instance{Name: "users", ID: "users-2", Tags: []string{"blue"}, Status: health.Unhealthy})
	register(t, r, registry.Instance{Name: "orders", ID: "orders-1", Status: health.Degraded})
	register(t, r, registry.Instance{Name: "orders", ID: "orders-2", Status: health.Starting})
	for path, want := range map[string][]string{
		"/v1/services":                                 {"orders-1", "orders-2", "users-1", "users-2"},
		"/v1/services?tag=blue":                        {"users-1", "users-2"},
		"/v1/services?tag=blue&tag=canary":             {"users-1"},
		"/v1/services?tag=green":                       {},
		"/v1/services?status=healthy":                  {"users-1"},
		"/v1/services?status=healthy&status=degraded":  {"orders-1", "users-1"},
		"/v1/services?status=draining":                 {},
		"/v1/services?tag=blue&status=unhealthy":       {"users-2"},
		"/v1/services/users":                           {"users-1", "users-2"},
		"/v1/services/users?tag=canary":                {"users-1"},
		"/v1/services/orders?status=starting":          {"orders-2"},
		"/v1/services/payments":                        {},
		"/v1/services/No%20Name":                       {},
		"/v1/services/users?tag=blue&tag=blue&other=1": {"users-1", "users-2"},
	} {
		w := ask(c, "GET", path)
		var got []registry.Instance
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
			continue
		}
		ids := []string{}
		for _, in := range got {
			ids = append(ids, in.ID)
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
		if h := w.Header(); h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: %v", path, h)
		}
	}
	if w := ask(c, "HEAD", "/v1/services"); w.Code != http.StatusOK {
		t.Errorf("HEAD: %d", w.Code)
	}
}

// The whole record, under the contract's names.
func TestInstanceAsJSON(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	c := newConsole(t, console.Config{Registry: r, LastHeartbeat: func(k registry.Key) time.Time {
		if k != (registry.Key{Service: "users", ID: "users-1"}) {
			t.Errorf("asked for the heartbeat of %s", k)
		}
		return at.Add(time.Minute)
	}})
	register(t, r, registry.Instance{Name: "users", ID: "users-1", Version: "1.2.3", Zone: "north", Health: "/health",
		Tags: []string{"blue"}, Metadata: map[string]string{"team": "accounts"}, RegisteredAt: at})
	var got any
	if err := json.Unmarshal(ask(c, "GET", "/v1/services/users").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := []any{map[string]any{
		"id": "users-1", "name": "users", "address": "http://10.0.0.1:8080", "port": 8080.0, "health": "http://10.0.0.1:8080/health",
		"version": "1.2.3", "tags": []any{"blue"}, "metadata": map[string]any{"team": "accounts"}, "zone": "north",
		"status": "healthy", "registeredAt": "2026-11-22T16:00:00Z", "lastHeartbeat": "2026-11-22T16:01:00Z",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t)})
	for _, tc := range []struct {
		method, path string
		status       int
		code         string
		allow        string
		pointer      string
	}{
		{"GET", "/v1/services?status=well", 400, problem.CodeInvalid, "", "#query/status"},
		{"GET", "/v1/services/users?status=", 400, problem.CodeInvalid, "", "#query/status"},
		{"GET", "/v1/watch?service=No%20Name", 400, problem.CodeInvalid, "", "#query/service"},
		{"GET", "/", 404, problem.CodeNotFound, "", ""},
		{"GET", "/v1", 404, problem.CodeNotFound, "", ""},
		{"GET", "/v1/services/", 404, problem.CodeNotFound, "", ""},
		{"GET", "/v1/services/users/1", 404, problem.CodeNotFound, "", ""},
		{"GET", "/v1/services/users/1/2", 404, problem.CodeNotFound, "", ""},
		{"GET", "/v1/services?tag=%zz", 400, problem.CodeInvalid, "", "#query"},
		{"GET", "/v1/services/users?a;b", 400, problem.CodeInvalid, "", "#query"},
		{"PUT", "/v1/services/users/1/heartbeat", 404, problem.CodeNotFound, "", ""},
		{"POST", "/v1/services/users/1/drain", 404, problem.CodeNotFound, "", ""},
		{"DELETE", "/v1/services/users/1/drain", 404, problem.CodeNotFound, "", ""},
		{"DELETE", "/v1/services", 405, problem.CodeMethodNotAllowed, "GET, HEAD, POST, OPTIONS", ""},
		{"POST", "/v1/services/users", 405, problem.CodeMethodNotAllowed, "GET, HEAD, OPTIONS", ""},
		{"PATCH", "/v1/services/users/1", 405, problem.CodeMethodNotAllowed, "DELETE, GET, HEAD, OPTIONS", ""},
		{"GET", "/v1/services/users/1/heartbeat", 405, problem.CodeMethodNotAllowed, "PUT, OPTIONS", ""},
		{"GET", "/v1/services/users/1/drain", 405, problem.CodeMethodNotAllowed, "DELETE, POST, OPTIONS", ""},
		{"PUT", "/v1/targets", 405, problem.CodeMethodNotAllowed, "GET, HEAD, OPTIONS", ""},
		{"PUT", "/v1/openapi.json", 405, problem.CodeMethodNotAllowed, "GET, HEAD, OPTIONS", ""},
		{"GET", "/openapi.json", 404, problem.CodeNotFound, "", ""},
		{"POST", "/v1/watch", 405, problem.CodeMethodNotAllowed, "GET, HEAD, OPTIONS", ""},
		{"PUT", "/livez", 405, problem.CodeMethodNotAllowed, "GET, HEAD, OPTIONS", ""},
	} {
		w := ask(c, tc.method, tc.path)
		p := decode(t, w)
		if w.Code != tc.status || p.Code != tc.code || w.Header().Get("Allow") != tc.allow || p.RequestID == "" {
			t.Errorf("%s %s: %d Allow %q %s", tc.method, tc.path, w.Code, w.Header().Get("Allow"), w.Body)
		}
		if tc.pointer != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != tc.pointer || p.Errors[0].Detail == "") {
			t.Errorf("%s %s: errors %v", tc.method, tc.path, p.Errors)
		}
	}
	if w := ask(c, "GET", "/livez"); w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("/livez %d %q", w.Code, w.Body)
	}
}

// A web page can't get at it through a name that leads to loopback.
func TestHosts(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t), Listen: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 3100}})
	for host, want := range map[string]int{
		"localhost": 200, "localhost:3100": 200, "LOCALHOST:9": 200, "127.0.0.1": 200, "127.0.0.1:3100": 200,
		"[::1]": 200, "[::1]:3100": 200, "127.0.0.2:3100": 200,
		"evil.example": 403, "evil.example:3100": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:3100": 403,
		"127.0.0.3:3100": 403, "10.0.0.1": 403, "": 403, "[::1": 403, "localhost:3100:1": 403, "0.0.0.0:3100": 403,
		"[localhost]": 403, "[[::1]]": 403,
	} {
		for _, path := range []string{"/v1/services", "/livez", "/nothing"} {
			w := ask(c, "GET", path, "Host", host)
			if path == "/nothing" && want == 200 {
				want = 404
			}
			if w.Code != want {
				t.Errorf("Host %q, %s: %d, want %d", host, path, w.Code, want)
			}
			if want == 404 {
				want = 200
			}
			if w.Code == 403 && decode(t, w).Code != problem.CodeForbidden {
				t.Errorf("Host %q: %s", host, w.Body)
			}
		}
	}
}

// Pages of other origins can't change anything; what only reads goes on to the
// browser's own rule, which is that they can't read it.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t)})
	for _, header := range [][]string{
		{"Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
	} {
		if w := ask(c, "POST", "/v1/services", header...); w.Code != http.StatusForbidden || decode(t, w).Code != problem.CodeForbidden {
			t.Errorf("POST with %q: %d %s", header, w.Code, w.Body)
		}
		if w := ask(c, "GET", "/v1/services", header...); w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("GET with %q: %d %v", header, w.Code, w.Header())
		}
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {}} { // a page of its own, and curl
		if w := ask(c, "POST", "/v1/services", header...); w.Code != http.StatusBadRequest {
			t.Errorf("POST without a body with %q: %d", header, w.Code)
		}
	}
}

func TestOffLoopback(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	for _, addr := range []net.Addr{
		&net.TCPAddr{IP: net.IPv4zero, Port: 3100}, &net.TCPAddr{IP: net.IPv6zero, Port: 3100}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 3100},
	} {
		if _, err := console.New(console.Config{Registry: r, Listen: addr}); !errors.Is(err, console.ErrOpenToOthers) {
			t.Errorf("%s without an authenticator: %v", addr, err)
		}
	}
	for _, cfg := range []console.Config{{Registry: r}, {Listen: loopback}, {Registry: r, Listen: &net.UnixAddr{Name: "/run/x", Net: "unix"}}} {
		if _, err := console.New(cfg); err == nil {
			t.Errorf("New took %+v", cfg)
		}
	}
	var who string
	c := newConsole(t, console.Config{Registry: r, Listen: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 3100},
		Authenticator: auth.Func(func(_ context.Context, creds auth.Credentials) (*auth.Identity, error) {
			switch who = creds.Header("Authorization"); who {
			case "":
				return nil, auth.ErrNoCredentials
			case "Bearer good":
				return &auth.Identity{Subject: "ada", Scopes: []string{"orders:read", console.ScopeAdmin}}, nil
			case "Bearer other":
				return &auth.Identity{Subject: "bob", Scopes: []string{"keelson", "admin", "keelson:administer"}}, nil
			case "Bearer later":
				return nil, auth.ErrUnavailable
			}
			return nil, auth.ErrInvalidToken
		})})
	for _, tc := range []struct {
		token  string
		status int
		code   string
	}{
		{"Bearer good", 200, ""},
		{"", 401, problem.CodeUnauthenticated},
		{"Bearer bad", 401, problem.CodeUnauthenticated},
		{"Bearer other", 403, problem.CodeForbidden},
		{"Bearer later", 503, problem.CodeUnavailable},
	} {
		if w := ask(c, "GET", "/livez", "Authorization", tc.token, "Host", "console.example"); w.Code != http.StatusOK {
			t.Errorf("/livez, %q: %d", tc.token, w.Code)
		}
		for _, path := range []string{"/v1/services", "/v1/nothing", "/v1/openapi.json", "/v1/targets", "/livez/", "//livez"} {
			w := ask(c, "GET", path, "Authorization", tc.token, "Host", "console.example")
			if tc.status == 200 {
				if want := map[string]int{"/v1/nothing": 404, "/livez/": 404, "//livez": 307}[path]; w.Code != max(want, 200) {
					t.Errorf("%s with a good token: %d", path, w.Code)
				}
				continue
			}
			if p := decode(t, w); w.Code != tc.status || p.Code != tc.code {
				t.Errorf("%s, %q: %d %s", path, tc.token, w.Code, w.Body)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); strings.HasPrefix(challenge, "Bearer") != (tc.status == 401 || tc.status == 403) {
				t.Errorf("%s, %q: challenge %q", path, tc.token, challenge)
			}
		}
	}
}

// Over a real server too, with its real Host header.
func TestServed(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newConsole(t, console.Config{Registry: fleet(t)}))
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/v1/services")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(body) != "[]\n" {
		t.Errorf("%s %q", resp.Status, body)
	}
}
