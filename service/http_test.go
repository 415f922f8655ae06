package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/service"
)

// echo answers with the path value of that name.
func echo(name string) service.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		_, err := fmt.Fprintf(w, "%s %s", r.Method, r.PathValue(name))
		return err
	}
}

func TestRouting(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	s.HandleFunc("GET /users/{id}", echo("id"))
	s.HandleFunc("PATCH /users/{id}", echo("id"))
	s.HandleFunc("DELETE /users/{id}", echo("id"))
	s.HandleFunc("GET /files/{path...}", echo("path"))
	s.HandleFunc("OPTIONS /own", echo(""))
	s.HandleFunc("GET /a.c", echo(""))
	s.HandleFunc("GET /folder/", echo(""))
	for _, tc := range []struct {
		method, path string
		status       int
		body         string // of 200
		allow        string
	}{
		{"GET", "/users/7", 200, "GET 7", ""},
		{"GET", "/users/7?x=1", 200, "GET 7", ""},
		{"GET", "/users/a%20b%2Fc", 200, "GET a b/c", ""},
		{"GET", "/users/%C3%BC", 200, "GET ü", ""},
		{"PATCH", "/users/7", 200, "PATCH 7", ""},
		{"DELETE", "/users/7", 200, "DELETE 7", ""},
		{"HEAD", "/users/7", 200, "", ""},
		{"POST", "/users/7", 405, "", "DELETE, GET, HEAD, PATCH, OPTIONS"},
		{"OPTIONS", "/users/7", 204, "", "DELETE, GET, HEAD, PATCH, OPTIONS"},
		{"OPTIONS", "/own", 200, "OPTIONS ", ""},
		{"OPTIONS", "/nothing", 404, "", ""},
		{"GET", "/users", 404, "", ""},
		{"GET", "/users/7/8", 404, "", ""},
		{"GET", "/", 404, "", ""},
		{"HEAD", "/nothing", 404, "", ""},
		{"GET", "/files/a/b/c.txt", 200, "GET a/b/c.txt", ""},
		{"GET", "/files/", 200, "GET ", ""},
		{"GET", "/abc", 404, "", ""}, // a dot is a dot
		{"GET", "/folder", 200, "GET ", ""},
		{"GET", "//nothing", 404, "", ""},
	} {
		resp, body := ask(s, tc.method, tc.path, nil)
		if resp.StatusCode == http.StatusTemporaryRedirect {
			resp, body = ask(s, tc.method, resp.Header.Get("Location"), nil)
		}
		what := tc.method + " " + tc.path
		if resp.StatusCode != tc.status || resp.Header.Get("Allow") != tc.allow {
			t.Errorf("%s: %s, Allow %q", what, resp.Status, resp.Header.Get("Allow"))
		}
		switch {
		case tc.status >= 400 && tc.method != "HEAD":
			code := map[int]string{404: problem.CodeNotFound, 405: problem.CodeMethodNotAllowed}[tc.status]
			p := decode(t, resp, body)
			if p.Code != code || p.RequestID == "" || p.TraceID == "" || p.RequestID != resp.Header.Get("X-Request-Id") {
				t.Errorf("%s: %s", what, body)
			}
		case tc.method == "HEAD": // net/http drops the body, a recorder does not
		case body != tc.body:
			t.Errorf("%s: body %q, want %q", what, body, tc.body)
		}
	}
}

// ask asks the service without a network.
func ask(s *service.Service, method, target string, body io.Reader, header ...string) (*http.Response, string) {
	r := httptest.NewRequest(method, target, body)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func decode(t *testing.T, resp *http.Response, body string) *problem.Problem {
	t.Helper()
	resp.Body = io.NopCloser(strings.NewReader(body))
	p, err := problem.Decode(resp)
	if err != nil {
		t.Fatalf("%s %q: %v", resp.Status, body, err)
	}
	return p
}

// tag adds a letter to a response header, to see the order of middleware.
func tag(letter string) middleware.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["X-Order"] = []string{w.Header().Get("X-Order") + letter}
			next.ServeHTTP(w, r)
		})
	}
}

func TestMiddlewareAndMounting(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	s.Use(tag("a"), tag("b"))
	s.Use(tag("c"))
	s.HandleFunc("GET /one", echo(""), tag("d"), tag("e"))
	app := http.NewServeMux() // an application there was before
	app.HandleFunc("GET /legacy/{page}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("page")) })
	s.Handle("/", app)
	for path, want := range map[string]struct{ order, body string }{
		"/one":         {"abcde", "GET "},
		"/legacy/home": {"abc", "home"},
		"/missing":     {"abc", "404 page not found\n"}, // the application's own answer
	} {
		resp, body := ask(s, "GET", path, nil)
		if got := resp.Header.Get("X-Order"); got != want.order || body != want.body {
			t.Errorf("%s: order %q, body %q", path, got, body)
		}
	}
	// What the mux answers itself went through the middleware too.
	if resp, _ := ask(s, "GET", "/livez", nil); resp.StatusCode != http.StatusOK || resp.Header.Get("X-Order") != "" {
		t.Errorf("/livez: %s %v", resp.Status, resp.Header)
	}
}

func TestTakenPatterns(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"/health", "GET /livez", "/readyz", "/metrics", "not a pattern"} {
		s, _ := newService(t, "users")
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", pattern)
				}
			}()
			s.HandleFunc(pattern, echo(""))
		}()
	}
}

func TestErrorsOfHandlers(t *testing.T) {
	t.Parallel()
	const secret = "password=hunter2"
	conflict := problem.New(http.StatusConflict, problem.CodeConflict, "The email is taken.")
	for name, tc := range map[string]struct {
		err    error
		status int
		code   string
		logged bool
	}{
		"any":               {errors.New(secret), 500, problem.CodeInternal, true},
		"problem":           {conflict, 409, problem.CodeConflict, false},
		"wrapped problem":   {fmt.Errorf("%s: %w", secret, conflict), 409, problem.CodeConflict, false},
		"problem of ours":   {problem.New(503, problem.CodeUnavailable, "Later."), 503, problem.CodeUnavailable, true},
		"too large":         {&http.MaxBytesError{Limit: 5}, 413, problem.CodeTooLarge, false},
		"not even an error": {nil, 200, "", false},
	} {
		s, log := newService(t, "users")
		s.HandleFunc("POST /x/{id}", func(http.ResponseWriter, *http.Request) error { return tc.err })
		resp, body := ask(s, "POST", "/x/1", nil)
		if resp.StatusCode != tc.status || strings.Contains(body, secret) {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
		if tc.code != "" {
			if p := decode(t, resp, body); p.Code != tc.code || p.TraceID == "" {
				t.Errorf("%s: %s", name, body)
			}
		}
		if !tc.logged {
			if strings.Contains(log.String(), "request failed") {
				t.Errorf("%s: logged\n%s", name, log)
			}
			continue
		}
		rec := log.record(t, "request failed")
		if rec["error"] != tc.err.Error() || rec["route"] != "POST /x/{id}" || rec["trace_id"] == nil || rec["request_id"] == nil {
			t.Errorf("%s: logged %v", name, rec)
		}
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	s, log := newService(t, "users")
	s.Handle("GET /x", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret") }))
	resp, body := ask(s, "GET", "/x", nil)
	if p := decode(t, resp, body); p.Status != 500 || p.Code != problem.CodeInternal || strings.Contains(body, "secret") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if log.record(t, "handler panicked")["panic"] != "secret" {
		t.Errorf("logged\n%s", log)
	}
}

// A client can't take a part for the whole: the connection is cut, whatever
// middleware wraps the response.
func TestErrorAfterTheHeader(t *testing.T) {
	t.Parallel()
	gone := problem.New(http.StatusGone, "", "It was deleted meanwhile.") // too late to say so
	for name, wrap := range map[string]middleware.Middleware{
		"plain": func(next http.Handler) http.Handler { return next },
		"wrapped by others": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
			})
		},
	} {
		s, log := newService(t, "users")
		s.Use(wrap)
		s.HandleFunc("GET /x", func(w http.ResponseWriter, _ *http.Request) error {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 100_000)); err != nil {
				return err
			}
			return gone
		})
		p := start(t, s)
		resp, body, err := send(t, "GET", p.url+"/x", nil)
		if err == nil || resp == nil || resp.StatusCode != http.StatusOK || strings.Contains(body, "problem") {
			t.Errorf("%s: %v %q… %v, want a broken body", name, resp, body[:min(len(body), 20)], err)
		}
		eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), `"aborted":true`) })
		if log.record(t, "request failed")["error"] != gone.Error() {
			t.Errorf("%s: logged\n%s", name, log)
		}
	}
}

// That a client left is nobody's error.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	s, log := newService(t, "users")
	began := make(chan struct{})
	s.HandleFunc("GET /x", func(_ http.ResponseWriter, r *http.Request) error {
		close(began)
		<-r.Context().Done()
		return r.Context().Err()
	})
	p := start(t, s)
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-began
	leave()
	<-done
	eventually(t, "the access log has it", func() bool { return strings.Contains(log.String(), `"msg":"request"`) })
	if rec := log.record(t, "request"); rec["status"] != 499.0 || rec["level"] != "INFO" {
		t.Errorf("logged %v", rec)
	}
	if sum := s.Telemetry().Server().Summary(); sum.ErrorCount != 0 {
		t.Errorf("counted as an error: %+v", sum)
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	read := func(w http.ResponseWriter, r *http.Request) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(w, len(b))
		return err
	}
	for _, tc := range []struct {
		opts   []service.Option
		size   int
		status int
	}{
		{nil, service.DefaultBodyLimit, 200},
		{nil, service.DefaultBodyLimit + 1, 413},
		{[]service.Option{service.WithBodyLimit(10)}, 10, 200},
		{[]service.Option{service.WithBodyLimit(10)}, 11, 413},
		{[]service.Option{service.WithBodyLimit(0)}, service.DefaultBodyLimit + 1, 200},
	} {
		for _, chunked := range []bool{false, true} {
			s, _ := newService(t, "users", tc.opts...)
			s.HandleFunc("POST /x", read)
			var body io.Reader = bytes.NewReader(make([]byte, tc.size))
			if chunked {
				body = io.MultiReader(body) // no Content-Length
			}
			resp, got := ask(s, "POST", "/x", body)
			if resp.StatusCode != tc.status {
				t.Errorf("%d bytes, chunked %v: %s, want %d", tc.size, chunked, resp.Status, tc.status)
			}
			if tc.status == 413 && decode(t, resp, got).Code != problem.CodeTooLarge {
				t.Errorf("%s", got)
			}
		}
	}
}

func TestRequestTimeoutAndCORS(t *testing.T) {
	t.Parallel()
	cors, err := middleware.CORS(middleware.CORSOptions{Origins: []string{"https://shop.example"}})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newService(t, "users", service.WithRequestTimeout(20*time.Millisecond), service.WithCORS(cors))
	s.HandleFunc("GET /x", func(_ http.ResponseWriter, r *http.Request) error {
		<-r.Context().Done()
		return r.Context().Err()
	})
	resp, body := ask(s, "GET", "/x", nil)
	if p := decode(t, resp, body); p.Status != http.StatusGatewayTimeout || p.Code != problem.CodeDeadline {
		t.Errorf("%s %s", resp.Status, body)
	}
	// A preflight is answered before routing.
	resp, _ = ask(s, "OPTIONS", "/x", nil, "Origin", "https://shop.example", "Access-Control-Request-Method", "GET")
	if resp.StatusCode/100 != 2 || resp.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("preflight: %s %v", resp.Status, resp.Header)
	}
}

// The handlers of libraries that want a mux.
func TestMux(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	s.Mux().HandleFunc("GET /lib", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode([]int{}) })
	if _, body := ask(s, "GET", "/lib", nil); body != "[]\n" {
		t.Errorf("%q", body)
	}
}
