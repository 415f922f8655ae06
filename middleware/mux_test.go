package middleware_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.PathValue("id")) })
	mux.HandleFunc("/tree/", func(http.ResponseWriter, *http.Request) {})
	// Somebody's middleware works on a copy, with a writer of its own.
	copies := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&wrapper{w}, r.WithContext(context.WithValue(r.Context(), wrapper{}, 1)))
		})
	}
	srv, log, tel := stack(t, middleware.Routes(mux), copies)
	for _, tc := range []struct {
		method, path string
		status       int
		code, allow  string
	}{
		{"GET", "/users/7", 200, "", ""},
		{"HEAD", "/users/7", 200, "", ""},
		{"PUT", "/users/7", 405, problem.CodeMethodNotAllowed, "GET, HEAD, OPTIONS"},
		{"OPTIONS", "/users/7", 204, "", "GET, HEAD, OPTIONS"},
		{"OPTIONS", "/nothing", 404, problem.CodeNotFound, ""},
		{"GET", "/nothing", 404, problem.CodeNotFound, ""},
		{"GET", "/tree", 200, "", ""}, // redirected by the mux
	} {
		resp, body, err := do(t, srv, tc.method, tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != tc.status || resp.Header.Get("Allow") != tc.allow {
			t.Errorf("%s %s: %s, Allow %q", tc.method, tc.path, resp.Status, resp.Header.Get("Allow"))
		}
		if tc.code != "" {
			if p := wantProblem(t, resp, body, tc.status, tc.code); p.TraceID == "" {
				t.Errorf("%s %s: no trace id in %s", tc.method, tc.path, body)
			}
		}
	}
	want := map[string]uint64{
		"GET /users/{id} 200": 1, "HEAD /users/{id} 200": 1, "PUT  405": 1, "OPTIONS  204": 1, "OPTIONS  404": 1,
		"GET  404": 1, "GET /tree/ 307": 1, "GET /tree/ 200": 1,
	}
	eventually(t, "all are logged", func() bool { return len(log.records(t, "request")) == 8 })
	if diff := cmp.Diff(want, seen(t, tel)); diff != "" {
		t.Error(diff)
	}
	if got := log.records(t, "request")[0]["route"]; got != "/users/{id}" {
		t.Errorf("logged the route %v", got)
	}
}

// wrapper is somebody's ResponseWriter.
type wrapper struct{ http.ResponseWriter }

func (w *wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestFail(t *testing.T) {
	t.Parallel()
	conflict := problem.New(http.StatusConflict, problem.CodeConflict, "Taken.")
	srv, log, _ := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp := middleware.Record(w, r)
		if r.URL.Path == "/late" {
			io.WriteString(resp, strings.Repeat("x", 10_000))
		}
		if resp.Begun() != (r.URL.Path == "/late") {
			t.Errorf("%s: begun %v", r.URL.Path, resp.Begun())
		}
		middleware.Fail(resp, r, map[string]error{"/any": errors.New("secret"), "/conflict": conflict}[r.URL.Path])
	}))
	for path, status := range map[string]int{"/any": 500, "/conflict": 409, "/nil": 500} {
		resp, body, err := do(t, srv, "GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		code := map[int]string{409: problem.CodeConflict, 500: problem.CodeInternal}[status]
		if p := wantProblem(t, resp, body, status, code); p.TraceID == "" || p.RequestID == "" || strings.Contains(string(body), "secret") {
			t.Errorf("%s: %s", path, body)
		}
	}
	if conflict.TraceID != "" {
		t.Error("a shared problem was changed")
	}
	if _, body, err := do(t, srv, "GET", "/late", nil); err == nil {
		t.Errorf("a response of %d bytes that failed looks whole", len(body))
	}
	if panics := log.records(t, "handler panicked"); len(panics) > 0 {
		t.Errorf("the cut was logged as a panic: %v", panics)
	}
}

func BenchmarkRoutes(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) {})
	for name, h := range map[string]http.Handler{"mux": mux, "Routes": middleware.Routes(mux)} {
		b.Run(name, func(b *testing.B) {
			r, w := httptest.NewRequest("GET", "/users/7", nil), httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
