package middleware_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
)

func newLimiter(tb testing.TB, opts ...concurrency.Option) *concurrency.Limiter {
	tb.Helper()
	l, err := concurrency.New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// occupy takes places and gives them back when the test ends.
func occupy(t *testing.T, l *concurrency.Limiter, n int) {
	t.Helper()
	for range n {
		token, err := l.TryAcquire(concurrency.Critical)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(token.Ignore)
	}
}

func free(t *testing.T, l *concurrency.Limiter) {
	t.Helper()
	eventually(t, "all places are free", func() bool { return l.Snapshot().InFlight == 0 })
}

func TestShedRefuses(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, concurrency.Fixed(1))
	occupy(t, l, 1)
	srv, log, tel := stack(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was begun") }), middleware.Shed(l))
	after := map[string]bool{}
	for range 250 {
		resp, body, err := do(t, srv, "POST", "/users", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if p := wantProblem(t, resp, body, http.StatusServiceUnavailable, problem.CodeOverloaded); !p.Retryable || p.RequestID == "" {
			t.Errorf("%+v", p)
		}
		after[resp.Header.Get("Retry-After")] = true
	}
	if len(after) != 3 || !after["1"] || !after["2"] || !after["3"] {
		t.Errorf("Retry-After is one of %v, want 1, 2 and 3", after)
	}
	if got := seen(t, tel)["POST  503"]; got != 250 {
		t.Errorf("%d of 250 in the metrics: %v", got, seen(t, tel))
	}
	records := log.records(t, "request")
	if len(records) != 3 || records[0]["level"] != "WARN" || records[0]["shed"] != true || records[0]["status"] != 503.0 {
		t.Errorf("logged %v", records)
	}
	if s := l.Snapshot(); s.Rejected.Normal != 250 || s.InFlight != 1 {
		t.Errorf("%+v", s)
	}
}

// A client that left before there was room was not refused for overload.
func TestShedWhenTheClientHasLeft(t *testing.T) {
	t.Parallel()
	log := new(logs)
	h := middleware.Chain(http.NotFoundHandler(), middleware.AccessLog(log.logger(), middleware.AccessLogOptions{}), middleware.Shed(newLimiter(t)))
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range 2 {
		serve(h, httptest.NewRequestWithContext(gone, "GET", "/", nil))
	}
	records := log.records(t, "request")
	if len(records) != 2 || records[0]["status"] != 499.0 || records[0]["level"] != "INFO" || records[0]["shed"] != nil {
		t.Errorf("logged %v", records)
	}
}

// What is said by the header, or by PriorityBy, decides who has room, and is in
// the context.
func TestShedByPriority(t *testing.T) {
	t.Parallel()
	header := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[concurrency.Header] = values }
	}
	byPath := middleware.PriorityBy(func(r *http.Request) concurrency.Priority {
		if r.URL.Path == "/pay" {
			return concurrency.Critical
		}
		return concurrency.Low
	})
	for name, tt := range map[string]struct {
		opts    []middleware.ShedOption
		set     func(*http.Request)
		path    string
		inUse   int // of 10
		refused bool
		want    concurrency.Priority
	}{
		"nothing said":               {inUse: 8, want: concurrency.Normal},
		"nothing said, no room":      {inUse: 9, refused: true},
		"critical":                   {set: header("critical"), inUse: 9, want: concurrency.Critical},
		"critical, no room":          {set: header("Critical"), inUse: 10, refused: true},
		"low":                        {set: header("LOW"), inUse: 7, want: concurrency.Low},
		"low, no room":               {set: header("low"), inUse: 8, refused: true},
		"nonsense is normal":         {set: header("urgent"), inUse: 8, want: concurrency.Normal},
		"nonsense, no room":          {set: header("urgent"), inUse: 9, refused: true},
		"the first of several":       {set: header("critical", "low"), inUse: 9, want: concurrency.Critical},
		"by path":                    {opts: []middleware.ShedOption{byPath}, path: "/pay", inUse: 9, want: concurrency.Critical},
		"by path, whatever the head": {opts: []middleware.ShedOption{byPath}, set: header("critical"), inUse: 8, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLimiter(t, concurrency.Fixed(10))
			occupy(t, l, tt.inUse)
			got := concurrency.Priority(-100)
			h := middleware.Shed(l, tt.opts...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = concurrency.PriorityFrom(r.Context())
			}))
			r := httptest.NewRequest("GET", "/"+strings.TrimPrefix(tt.path, "/"), nil)
			if tt.set != nil {
				tt.set(r)
			}
			w := serve(h, r)
			if (w.Code == http.StatusServiceUnavailable) != tt.refused || !tt.refused && got != tt.want {
				t.Errorf("status %d, priority %v; want %v, refused: %t", w.Code, got, tt.want, tt.refused)
			}
		})
	}
}

func TestNeverShed(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, concurrency.Fixed(1))
	occupy(t, l, 1)
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	own := middleware.NeverShed(func(r *http.Request) bool { return r.URL.Path == "/ping" })
	for _, tt := range []struct {
		path string
		opts []middleware.ShedOption
		want int
	}{
		{"/livez", nil, 200}, {"/readyz", nil, 200}, {"/health", nil, 200}, {"/metrics", nil, 200}, {"/ping", nil, 503}, {"/health/x", nil, 503},
		{"/ping", []middleware.ShedOption{own}, 200}, {"/livez", []middleware.ShedOption{own}, 503},
	} {
		if got := serve(middleware.Shed(l, tt.opts...)(ok), httptest.NewRequest("GET", tt.path, nil)).Code; got != tt.want {
			t.Errorf("%s: %d, want %d", tt.path, got, tt.want)
		}
	}
	// None refuses nothing, and still passes the priority on.
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set(concurrency.Header, "low")
	serve(middleware.Shed(nil)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := concurrency.PriorityFrom(r.Context()); got != concurrency.Low {
			t.Errorf("priority %v", got)
		}
	})), r)
}

// However a request ends, its place is free.
func TestShedGivesPlacesBack(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	mux.HandleFunc("GET /fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	mux.HandleFunc("GET /panics", func(http.ResponseWriter, *http.Request) { panic("boom") })
	mux.HandleFunc("GET /cuts", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("GET /waits", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, opts := range [][]concurrency.Option{{concurrency.Fixed(1)}, {concurrency.Adaptive(concurrency.AdaptiveOptions{Max: 2, Initial: 2})}} {
		l := newLimiter(t, opts...)
		srv, _, _ := stack(t, middleware.Routes(mux), middleware.Timeout(0), middleware.Shed(l))
		for path, want := range map[string]int{"/ok": 200, "/bad": 400, "/fails": 502, "/panics": 500, "/cuts": 0, "/none": 404} {
			resp, _, err := do(t, srv, "GET", path, nil, concurrency.Header, "critical")
			if got := 0; err == nil && resp.StatusCode != want || err != nil && want != got {
				t.Errorf("%s: %v, %v", path, resp, err)
			}
			free(t, l)
		}
		if resp, body, err := do(t, srv, "GET", "/waits", nil, "Request-Timeout", "5"); err != nil || resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("%v %s %v", resp, body, err)
		}
		free(t, l)
		ctx, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/waits", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			eventually(t, "it is under way", func() bool { return l.Snapshot().InFlight == 1 })
			leave()
		}()
		if resp, err := srv.Client().Do(req); err == nil {
			resp.Body.Close()
			t.Error("it was answered")
		}
		free(t, l)
	}
}

// What streams does not count once it does.
func TestStreamsDoNotCount(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, concurrency.Fixed(1))
	mux := http.NewServeMux()
	stay := func(r *http.Request) { <-r.Context().Done() }
	flush := func(media string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", media)
			fmt.Fprint(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			stay(r)
		}
	}
	mux.HandleFunc("/events", flush("text/event-stream"))
	mux.HandleFunc("/events-utf8", flush("text/event-stream; charset=utf-8"))
	mux.HandleFunc("/download", flush("application/octet-stream"))
	mux.HandleFunc("/poll", func(w http.ResponseWriter, r *http.Request) {
		middleware.BeginStream(struct{ unwrapper }{unwrapper{w}})
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		stay(r)
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = rw.ReadByte() // until the client leaves
	})
	srv, _, _ := stack(t, middleware.Routes(mux), middleware.Shed(l))
	for path, counts := range map[string]int{"/events": 0, "/events-utf8": 0, "/download": 1, "/poll": 0, "/hijack": 0} {
		ctx, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s: %s", path, resp.Status)
		}
		if path != "/poll" && path != "/hijack" {
			if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		eventually(t, path+" is counted as it should be", func() bool { return l.Snapshot().InFlight == counts })
		if resp, _, err := do(t, srv, "GET", "/none", nil); err != nil || resp.StatusCode != http.StatusNotFound != (counts == 1) {
			t.Errorf("beside %s: %v %v", path, resp, err)
		}
		leave()
		resp.Body.Close()
		free(t, l)
	}
}

// unwrapper is somebody else's wrapper.
type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// A limit for all and one for a part: both are kept, and given back.
func TestShedInShed(t *testing.T) {
	t.Parallel()
	outer, inner := newLimiter(t, concurrency.Fixed(3)), newLimiter(t, concurrency.Fixed(1))
	occupy(t, outer, 1)
	var during []int
	h := middleware.Shed(outer)(middleware.Shed(inner)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		during = append(during, outer.Snapshot().InFlight, inner.Snapshot().InFlight)
		middleware.BeginStream(w)
		during = append(during, outer.Snapshot().InFlight, inner.Snapshot().InFlight)
		w.WriteHeader(http.StatusTeapot)
	})))
	w := serve(h, httptest.NewRequest("GET", "/", nil))
	if want := []int{2, 1, 1, 0}; w.Code != http.StatusTeapot || !slices.Equal(during, want) {
		t.Errorf("status %d, in flight %v, want %v", w.Code, during, want)
	}
	occupy(t, inner, 1)
	if w := serve(h, httptest.NewRequest("GET", "/", nil)); w.Code != http.StatusServiceUnavailable || outer.Snapshot().InFlight != 1 {
		t.Errorf("status %d, %+v", w.Code, outer.Snapshot())
	}
}

// Requests wait for room if they may, but not longer than their callers.
func TestShedQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, concurrency.Fixed(1), concurrency.Queue(10, time.Second))
		token, err := l.TryAcquire(concurrency.Normal)
		if err != nil {
			t.Fatal(err)
		}
		begun := 0
		h := middleware.Timeout(0)(middleware.Shed(l)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { begun++ })))
		ask := func(timeout time.Duration) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Request-Timeout", strconv.FormatInt(timeout.Milliseconds(), 10))
			return serve(h, r)
		}
		began := time.Now()
		w := ask(300 * time.Millisecond)
		resp := w.Result()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		wantProblem(t, resp, body, http.StatusGatewayTimeout, problem.CodeDeadline)
		if waited := time.Since(began); waited != 300*time.Millisecond || begun != 0 {
			t.Errorf("after %v, begun %d", waited, begun)
		}
		if w := ask(time.Minute); w.Code != http.StatusServiceUnavailable || time.Since(began) != 1300*time.Millisecond || begun != 0 {
			t.Errorf("%d after %v, begun %d", w.Code, time.Since(began), begun)
		}
		go func() {
			time.Sleep(500 * time.Millisecond)
			token.Success()
		}()
		if w := ask(time.Minute); w.Code != http.StatusOK || time.Since(began) != 1800*time.Millisecond || begun != 1 {
			t.Errorf("%d after %v, begun %d", w.Code, time.Since(began), begun)
		}
	})
}

// Beside the recorder, which others need too, an admitted request allocates nothing.
func TestShedAllocations(t *testing.T) {
	h := middleware.Shed(newLimiter(t))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := silent{http.Header{}}, httptest.NewRequest("GET", "/users/7", nil)
	h.ServeHTTP(w, r) // the first makes the kind
	if n := testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) }); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

// Requests that only compute are all seen by the limiter, though few can run.
func TestShedSeesWhoWaitsForACPU(t *testing.T) {
	t.Parallel()
	l := newLimiter(t)
	var most atomic.Int64
	h := middleware.Shed(l)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if n := int64(l.Snapshot().InFlight); n > most.Load() {
			most.Store(n)
		}
		for began := time.Now(); time.Since(began) < 2*time.Millisecond; {
		}
	}))
	n := 40 + 10*runtime.GOMAXPROCS(0)
	var all sync.WaitGroup
	for range n {
		all.Go(func() { serve(h, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)) })
	}
	all.Wait()
	if got := most.Load(); got < int64(n)/2 {
		t.Errorf("of %d at most %d were seen at once", n, got)
	}
}

func BenchmarkShed(b *testing.B) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	full := newLimiter(b, concurrency.Fixed(1))
	if _, err := full.TryAcquire(concurrency.Normal); err != nil {
		b.Fatal(err)
	}
	for name, h := range map[string]http.Handler{
		"bare":     middleware.Chain(ok, middleware.Trace()),
		"admitted": middleware.Chain(ok, middleware.Trace(), middleware.Shed(newLimiter(b))),
		"refused":  middleware.Chain(ok, middleware.Trace(), middleware.Shed(full)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest("GET", "/users/7", nil)
			for b.Loop() {
				h.ServeHTTP(silent{http.Header{}}, r)
			}
		})
	}
}
