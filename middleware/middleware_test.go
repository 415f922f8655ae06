package middleware_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
)

func TestChainOrder(t *testing.T) {
	t.Parallel()
	var order []string
	note := func(name string) middleware.Middleware {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				order = append(order, name)
				next.ServeHTTP(w, r)
			})
		}
	}
	serve(middleware.Chain(http.NotFoundHandler(), note("a"), note("b"), note("c")), httptest.NewRequest("GET", "/", nil))
	if got := strings.Join(order, ""); got != "abc" {
		t.Errorf("order %s", got)
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 128)
	cases := []struct {
		name  string
		given []string
		kept  bool
	}{
		{"none", nil, false},
		{"sane", []string{"a-b_c.d:e/f+g=h@i~9"}, true},
		{"longest", []string{long}, true},
		{"too long", []string{long + "x"}, false},
		{"empty", []string{""}, false},
		{"blank", []string{"a b"}, false},
		{"line break", []string{"a\nb"}, false},
		{"quote", []string{`a"b`}, false},
		{"not ASCII", []string{"é"}, false},
		{"two", []string{"a", "b"}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var inContext, inRequest string
			h := middleware.RequestID()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inContext = telemetry.RequestID(r.Context())
				inRequest = strings.Join(r.Header["X-Request-Id"], "|")
			}))
			r := httptest.NewRequest("GET", "/", nil)
			if c.given != nil {
				r.Header["X-Request-Id"] = c.given
			}
			id := serve(h, r).Header().Get("X-Request-Id")
			if id != inContext || id != inRequest || id == "" {
				t.Errorf("response %q, context %q, request %q", id, inContext, inRequest)
			}
			if kept := c.given != nil && id == c.given[0]; kept != c.kept {
				t.Errorf("id is %q", id)
			}
			if !c.kept && len(id) != 32 {
				t.Errorf("new id %q", id)
			}
		})
	}
}

func FuzzRequestID(f *testing.F) {
	f.Add("abc-123")
	f.Add("a\r\nSet-Cookie: x")
	f.Fuzz(func(t *testing.T, given string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Request-Id"] = []string{given}
		id := serve(middleware.RequestID()(http.NotFoundHandler()), r).Header().Get("X-Request-Id")
		if id == "" || len(id) > 128 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`"'\<>%`, c) }) {
			t.Fatalf("%q gave %q", given, id)
		}
	})
}

func TestTrace(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	trusted := middleware.TrustTrace(func(*http.Request) bool { return true })
	strangers := middleware.TrustTrace(func(*http.Request) bool { return false })
	cases := []struct {
		name      string
		opts      []middleware.TraceOption
		parent    string
		continued bool
	}{
		{"parent", nil, parent, true},
		{"trusted", []middleware.TraceOption{trusted}, parent, true},
		{"stranger", []middleware.TraceOption{strangers}, parent, false},
		{"none", nil, "", false},
		{"bad", nil, strings.ToUpper(parent), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var traces []telemetry.Trace
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				trace, ok := telemetry.TraceFrom(r.Context())
				if !ok {
					t.Error("no trace")
				}
				traces = append(traces, trace)
				if left := r.Header.Get("Baggage") + r.Header.Get("Traceparent"); c.name == "stranger" && left != "" {
					t.Errorf("a stranger's headers are left: %s", left)
				}
			})
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Traceparent", c.parent)
			r.Header.Set("Tracestate", "a=1")
			r.Header.Set("Baggage", "user=1")
			serve(middleware.Trace(c.opts...)(h), r)
			trace := traces[0]
			if c.continued != (trace.TraceIDString() == "0af7651916cd43dd8448eb211c80319c") || c.continued != trace.Sampled || c.continued != (trace.State == "a=1") {
				t.Errorf("trace %s %+v", trace, trace)
			}
			if trace.SpanIDString() == "b7ad6b7169203331" {
				t.Error("the span is the caller's, not our own")
			}
		})
	}
}

// Two spans in one request: the second must not change the first's context.
func TestTraceTwice(t *testing.T) {
	t.Parallel()
	var outer context.Context
	h := middleware.Chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before, _ := telemetry.TraceFrom(outer)
		now, _ := telemetry.TraceFrom(r.Context())
		if before == now || !before.Valid() {
			t.Errorf("outer %s, inner %s", before, now)
		}
	}), middleware.Trace(), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outer = r.Context()
			next.ServeHTTP(w, r)
		})
	}, middleware.Trace())
	serve(h, httptest.NewRequest("GET", "/", nil))
}

// The access log finds the ids and the route whatever the order is.
func TestAccessLogOutside(t *testing.T) {
	t.Parallel()
	log := new(logs)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) {})
	h := middleware.Chain(mux,
		middleware.AccessLog(log.logger(), middleware.AccessLogOptions{Query: true}),
		middleware.Recover(log.logger()), middleware.Timeout(time.Minute), middleware.Trace(), middleware.RequestID())
	r := httptest.NewRequest("GET", "/users/7?a=b", nil)
	r.Header.Set("X-Request-Id", "r1")
	serve(h, r)
	got := log.records(t, "request")
	if len(got) != 1 || got[0]["request_id"] != "r1" || got[0]["trace_id"] == nil || got[0]["route"] != "/users/{id}" || got[0]["query"] != "a=b" {
		t.Errorf("log: %s", log)
	}
	if strings.Count(log.String(), "request_id") != 1 {
		t.Errorf("an id twice: %s", log)
	}
}

// The route comes out of a handler that panics, too.
func TestRouteOfAPanic(t *testing.T) {
	t.Parallel()
	log := new(logs)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) { panic("x") })
	serve(middleware.Chain(mux, middleware.AccessLog(log.logger(), middleware.AccessLogOptions{}),
		middleware.Recover(log.logger()), middleware.RequestID()), httptest.NewRequest("GET", "/users/7", nil))
	if got := log.records(t, "request"); len(got) != 1 || got[0]["route"] != "/users/{id}" {
		t.Errorf("log: %s", log)
	}
}

// A mux with an OPTIONS route names it in Allow by itself.
func TestRoutesAllowHasNoMethodTwice(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("OPTIONS /own", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("PUT /own", func(http.ResponseWriter, *http.Request) {})
	w := serve(middleware.Routes(mux), httptest.NewRequest("GET", "/own", nil))
	if got := w.Header().Get("Allow"); w.Code != 405 || got != "OPTIONS, PUT" {
		t.Errorf("%d, Allow %q", w.Code, got)
	}
}

func TestAccessLogOptions(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusBadGateway)
		}
		if r.URL.Path == "/slow" {
			time.Sleep(time.Second) // virtual time
		}
	})
	cases := []struct {
		name, path string
		opts       middleware.AccessLogOptions
		want       int // of 10
	}{
		{"all", "/", middleware.AccessLogOptions{}, 10},
		{"every fourth", "/", middleware.AccessLogOptions{Every: 4}, 3},
		{"failures always", "/fail", middleware.AccessLogOptions{Every: 4}, 10},
		{"slow always", "/slow", middleware.AccessLogOptions{Every: 4, Slow: time.Second}, 10},
		{"not that slow", "/slow", middleware.AccessLogOptions{Every: 4, Slow: time.Minute}, 3},
		{"skipped", "/healthz", middleware.AccessLogOptions{Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" }}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := new(logs)
				h := middleware.AccessLog(log.logger(), c.opts)(handler)
				for range 10 {
					serve(h, httptest.NewRequest("GET", c.path, nil))
				}
				if got := len(log.records(t, "request")); got != c.want {
					t.Errorf("%d records, want %d", got, c.want)
				}
			})
		})
	}
}

// A response that was cut off is logged whatever Every says, also when it was the
// client that left.
func TestAccessLogTellsEveryCut(t *testing.T) {
	t.Parallel()
	log := new(logs)
	var leave context.CancelFunc
	h := middleware.AccessLog(log.logger(), middleware.AccessLogOptions{Every: 4})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		leave()
		panic(http.ErrAbortHandler)
	}))
	for range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		leave = cancel
		func() {
			defer func() { _ = recover() }()
			serve(h, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		}()
	}
	if got := log.records(t, "request"); len(got) != 4 || got[1]["aborted"] != true {
		t.Errorf("log: %s", log)
	}
}

func TestAccessLogBoundsAndLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := middleware.AccessLog(slog.New(slog.NewJSONHandler(&out, nil)), middleware.AccessLogOptions{})(http.NotFoundHandler())
	serve(h, httptest.NewRequest("GET", "/"+strings.Repeat("x", 100_000), nil))
	if out.Len() > 2000 {
		t.Errorf("a record of %d bytes", out.Len())
	}
	out.Reset()
	quiet := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))
	serve(middleware.AccessLog(quiet, middleware.AccessLogOptions{})(http.NotFoundHandler()), httptest.NewRequest("GET", "/", nil))
	if out.Len() > 0 {
		t.Errorf("below the level: %s", &out)
	}
}

// Nested, the panic is logged once; without Recover the metrics see 500.
func TestRecoverNestedAndAbsent(t *testing.T) {
	t.Parallel()
	log, tel := new(logs), newTelemetry(t)
	cut := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		panic([]int{1}) // of a type that can't be compared
	})
	panics := func(h http.Handler) (cause any) {
		defer func() { cause = recover() }()
		serve(h, httptest.NewRequest("GET", "/", nil))
		return nil
	}
	if got := panics(middleware.Chain(cut, middleware.Recover(log.logger()), middleware.Recover(log.logger()))); got != http.ErrAbortHandler {
		t.Errorf("panic %v", got)
	}
	if n := len(log.records(t, "handler panicked")); n != 1 {
		t.Errorf("logged %d times", n)
	}
	boom := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })
	if got := panics(middleware.Metrics(tel)(boom)); got != "boom" {
		t.Errorf("panic %v", got)
	}
	if counts := seen(t, tel); counts["GET  500"] != 1 {
		t.Errorf("metrics %v", counts)
	}
	if got := panics(middleware.Metrics(nil)(boom)); got != "boom" {
		t.Errorf("without telemetry: panic %v", got)
	}
}

// What the handler had set for its own body must not spoil the problem.
func TestRecoverClearsTheHandlersHeaders(t *testing.T) {
	t.Parallel()
	srv, _, _ := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		panic("x")
	}))
	resp, body, err := do(t, srv, "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, resp, body, 500, "internal")
	if resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", resp.Header)
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	read := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			problem.Write(w, r, fmt.Errorf("read the body: %w", err))
			return
		}
		fmt.Fprint(w, len(body))
	}
	careless := func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	answered := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		io.Copy(io.Discard, r.Body)
	}
	never := func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }
	cases := []struct {
		name    string
		limit   int64
		size    int
		chunked bool
		handler http.HandlerFunc
		status  int
	}{
		{"within", 10, 10, false, read, 200},
		{"within, chunked", 10, 10, true, read, 200},
		{"no body", 10, 0, false, read, 200},
		{"declared too large", 10, 11, false, never, 413},
		{"chunked too large", 10, 11, true, read, 413},
		{"chunked too large, error not looked at", 10, 11, true, careless, 413},
		{"chunked too large, answered already", 10, 11, true, answered, 202},
		{"default", 0, middleware.DefaultBodyLimit, false, read, 200},
		{"over the default", 0, middleware.DefaultBodyLimit + 1, false, never, 413},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv, _, tel := stack(t, c.handler, middleware.BodyLimit(c.limit))
			var body io.Reader = bytes.NewReader(make([]byte, c.size))
			if c.chunked {
				body = io.MultiReader(body) // of unknown length
			}
			resp, got, err := do(t, srv, "POST", "/", body)
			if err != nil {
				t.Fatal(err)
			}
			if c.status == 413 {
				p := wantProblem(t, resp, got, 413, "payload_too_large")
				if !resp.Close {
					t.Error("the connection stays open, and the rest of the body has to be read")
				}
				if c.handler != nil && p.TraceID == "" && c.name != "chunked too large" {
					t.Errorf("problem %+v", p)
				}
			} else if resp.StatusCode != c.status {
				t.Errorf("%s %s", resp.Status, got)
			}
			srv.Close()
			if counts := seen(t, tel); counts[fmt.Sprintf("POST  %d", c.status)] != 1 {
				t.Errorf("metrics %v", counts)
			}
		})
	}
}

func TestMetricsCountsRequestsInProgress(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	active := func() (n float64) {
		families, err := tel.Registerer().(interface {
			Gather() ([]*family, error)
		}).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == telemetry.ServerActive {
				for _, m := range f.GetMetric() {
					n += math.Abs(m.GetGauge().GetValue())
				}
			}
		}
		return n
	}
	serve(middleware.Metrics(tel)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if got := active(); got != 1 {
			t.Errorf("%v in progress, want 1", got)
		}
	})), httptest.NewRequest("GET", "/", nil))
	if got := active(); got != 0 {
		t.Errorf("%v in progress at the end", got)
	}
	serve(middleware.Metrics(tel)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r.Method = http.MethodGet // as some serve HEAD
	})), httptest.NewRequest("HEAD", "/", nil))
	if counts := seen(t, tel); active() != 0 || counts["HEAD  200"] != 1 {
		t.Errorf("after a handler that changed the method: %v in progress, counts %v", active(), counts)
	}
}
