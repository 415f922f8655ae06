package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/ratelimit"
)

// What the service is told is what the gateway is going to wait for it.
func TestServiceIsToldTheTimeLeft(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/ten", Service: "echo", Public: true, Timeout: 10 * time.Second},
		{Path: "/default", Service: "echo", Public: true},
		{Path: "/none", Service: "echo", Public: true, Timeout: -1},
	}}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		most                     int // milliseconds; 0: it is not told
	}{
		{"the route's", "GET", "/ten", "", nil, 9900},
		{"the default", "GET", "/default", "", nil, 29900},
		{"no body, though it may have one", "POST", "/ten", "", nil, 9900},
		{"none", "GET", "/none", "", nil, 0},
		{"a body's end is not known", "POST", "/ten", "x", nil, 0},
		{"the caller's is less", "GET", "/ten", "", []string{"Request-Timeout", "5000"}, 4900},
		{"the caller's is more", "GET", "/ten", "", []string{"Request-Timeout", "60000"}, 9900},
		{"the caller's, with a body", "POST", "/ten", "x", []string{"Request-Timeout", "60000"}, 59900},
		{"the caller's alone", "GET", "/none", "", []string{"Request-Timeout", "60000"}, 59900},
		{"gRPC's way of saying it", "POST", "/none", "x", []string{"Grpc-Timeout", "3S"}, 2900},
		{"gRPC-Web", "POST", "/none", "x", []string{"Grpc-Timeout", "3S", "Content-Type", "application/grpc-web+proto"}, 2900},
	} {
		_, echoed := e.echo(c.method, c.path, c.body, c.header...)
		got := echoed.Header
		told, _ := strconv.Atoi(got.Get("Request-Timeout"))
		grpc := strings.TrimSuffix(got.Get("Grpc-Timeout"), "u")
		if c.name == "gRPC-Web" { // whose servers read this one
			if us, _ := strconv.Atoi(grpc); us > c.most*1000 || us < c.most*900 {
				t.Errorf("%s: %v, want %d", c.name, got, c.most)
			}
			grpc = ""
		}
		if told > c.most || told < c.most*9/10 || len(got["Request-Timeout"]) > 1 || grpc != "" {
			t.Errorf("%s: %v, want %d", c.name, got, c.most)
		}
	}
}

// A gRPC server heeds grpc-timeout alone, so that one has to shrink too.
func TestGRPCIsToldTheTimeLeft(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Header
		w.Header().Set("Content-Type", "application/grpc")
	})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for _, c := range []struct{ sent, told, grpc string }{{"2S", "1900", "u"}, {"", "", ""}, {"99999999H", "99", "M"}} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", e.url+"/shop.Users/Get", io.MultiReader(strings.NewReader("x")))
		req.Header.Set("Content-Type", "application/grpc")
		if c.sent != "" {
			req.Header.Set("Grpc-Timeout", c.sent)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		h := <-seen
		told, grpc := h.Get("Request-Timeout"), h.Get("Grpc-Timeout")
		if len(told) < len(c.told) || c.told == "" && told != "" || !strings.HasSuffix(grpc, c.grpc) || grpc == c.sent && c.sent != "" || len(h["Grpc-Timeout"]) > 1 {
			t.Errorf("grpc-timeout %q went on as %q and %q", c.sent, grpc, told)
		}
		if c.sent == "2S" && (grpc > "1900000u" || grpc < "1500000u" || len(grpc) != 8) {
			t.Errorf("2 s went on as %s", grpc)
		}
	}
}

// The transport sees how long the gateway waits, so that it does not try again for
// nothing; but a deadline of the context would end a stream.
func TestTransportSeesTheDeadline(t *testing.T) {
	t.Parallel()
	type seen struct {
		left          time.Duration
		before, after bool
	}
	results := make(chan seen, 1)
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/timed", Service: "up", Public: true, Timeout: time.Minute}, {Path: "/free", Service: "up", Public: true, Timeout: -1},
	}}, gateway.Deps{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		var s seen
		at, ok := r.Context().Deadline()
		s.left, s.before = time.Until(at), ok
		ctx := r.Context()
		body := readerFunc(func([]byte) (int, error) {
			_, s.after = ctx.Deadline()
			results <- s
			return 0, io.EOF
		})
		return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(body), Request: r}, nil
	})})
	for _, c := range []struct {
		path, body string
		header     []string
		most       time.Duration
	}{
		{"/timed", "", nil, time.Minute},
		{"/timed", "", []string{"Request-Timeout", "1000"}, time.Second},
		{"/timed", "x", nil, 0},
		{"/timed", "x", []string{"Request-Timeout", "1000"}, time.Second},
		{"/free", "", nil, 0},
	} {
		e.do("POST", c.path, c.body, c.header...)
		s := <-results
		if s.before != (c.most > 0) || s.before && (s.left > c.most || s.left < c.most/2) || s.after {
			t.Errorf("%+v: %+v", c, s)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Whatever a stranger calls it, nothing but the gateway's own word goes on: a service
// may read other spellings as the same name.
func TestStrangersTimeInOtherSpellings(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{{Path: "/*", Service: "echo", Public: true, Timeout: 10 * time.Second}}},
		gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	for _, name := range []string{"Request_Timeout", "request-timeout", "Request.Timeout", "Grpc_Timeout", "X_Envoy-Expected_Rq-Timeout_Ms", "X-Envoy-Expected-Rq-Timeout-Ms"} {
		_, echoed := e.echo("GET", "/", "", name, "8000m", name, "8000")
		for sent, values := range echoed.Header {
			lower := strings.ToLower(sent)
			told, _ := strconv.Atoi(values[0])
			if strings.Contains(lower, "timeout") && (sent != "Request-Timeout" || len(values) != 1 || told < 7000 || told > 9900) {
				t.Errorf("%s went on as %s: %v", name, sent, values)
			}
		}
		if len(echoed.Header["Request-Timeout"]) != 1 {
			t.Errorf("%s: the service is not told", name)
		}
	}
}

// A service that is told 0 refuses, and that would count as its failure: anybody in a
// hurry could take it out of rotation. So the gateway refuses itself, after its limits.
func TestNoTimeIsNotPassedOn(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/open", Service: "up", Public: true},
		{Path: "/few", Service: "up", Public: true, RateLimit: &gateway.RouteLimit{Limit: ratelimit.Limit{Requests: 1, Window: time.Hour}}},
	}}, gateway.Deps{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		called.Add(1)
		return nil, io.ErrUnexpectedEOF
	})})
	for _, header := range [][]string{{"Request-Timeout", "0"}, {"Request-Timeout", "1"}, {"Grpc-Timeout", "999u"}, {"X-Envoy-Expected-Rq-Timeout-Ms", "1"}} {
		res, text := e.do("GET", "/open", "", header...)
		wantProblem(t, res, text, http.StatusGatewayTimeout, problem.CodeDeadline)
	}
	if n := called.Load(); n != 0 {
		t.Errorf("the service was called %d times", n)
	}
	res, text := e.do("GET", "/few", "", "Request-Timeout", "0")
	wantProblem(t, res, text, http.StatusGatewayTimeout, problem.CodeDeadline)
	res, text = e.do("GET", "/few", "", "Request-Timeout", "0")
	wantProblem(t, res, text, http.StatusTooManyRequests, problem.CodeRateLimited)
}

// A policy that takes longer than the caller waits leaves nothing to do.
func TestDeadlineOverAfterThePolicies(t *testing.T) {
	t.Parallel()
	var called atomic.Bool
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{open("/*")}, Policies: []gateway.Policy{slow{}}}, gateway.Deps{
		Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			called.Store(true)
			return nil, io.ErrUnexpectedEOF
		}),
	})
	res, text := e.do("GET", "/", "", "Request-Timeout", "20")
	wantProblem(t, res, text, http.StatusGatewayTimeout, problem.CodeDeadline)
	eventually(t, "it is logged", func() bool { return strings.Contains(e.logs.String(), `"refused_by":"deadline"`) })
	if called.Load() {
		t.Error("the service was called")
	}
}

// slow lets a request pass when its time is over.
type slow struct{}

func (slow) Name() string { return "slow" }

func (slow) Check(_ context.Context, r *gateway.Request, _ gateway.Header) error {
	<-time.After(time.Until(r.Deadline) + time.Millisecond)
	return nil
}

// Two services behind the gateway, the second called by the first: each hop sees
// less than the one before, and what is over is not begun.
func TestDeadlineOverHops(t *testing.T) {
	t.Parallel()
	type hop struct {
		told int
		left time.Duration
	}
	look := func(r *http.Request) hop {
		told, _ := strconv.Atoi(r.Header.Get("Request-Timeout"))
		at, _ := r.Context().Deadline()
		return hop{told, time.Until(at)}
	}
	first, last := make(chan hop, 16), make(chan hop, 16)
	var spend atomic.Int64 // how long the first service takes before it calls
	services := endpoints{}
	tr, err := client.New(services)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	services["last"] = serve(t, middleware.Timeout(0)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { last <- look(r) })))
	services["first"] = serve(t, middleware.Timeout(0)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first <- look(r)
		select {
		case <-time.After(time.Duration(spend.Load())):
		case <-r.Context().Done():
		}
		req, _ := http.NewRequestWithContext(r.Context(), "GET", "http://last/", nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			problem.Write(w, r, err)
			return
		}
		_ = res.Body.Close()
	})))
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{{Path: "/*", Service: "first", Public: true, Timeout: 20 * time.Second}}}, gateway.Deps{Transport: tr})

	for _, header := range [][]string{nil, {"Request-Timeout", "10000"}} {
		spend.Store(int64(20 * time.Millisecond))
		res, text := e.do("GET", "/", "", header...)
		a, b := <-first, <-last
		given := 20000
		if header != nil {
			given = 10000
		}
		if res.StatusCode != 200 || a.told > given-100 || a.told < given/2 || b.told > a.told-120 || b.told < given/2 ||
			a.left > time.Duration(a.told)*time.Millisecond || b.left > time.Duration(b.told)*time.Millisecond || b.left >= a.left {
			t.Errorf("%v: %d %s: %+v, then %+v", header, res.StatusCode, text, a, b)
		}
	}

	// The first service takes longer than the caller waits, so the last is not called.
	// Who waits less, the service, is the one to say so; its time is over before ours.
	spend.Store(int64(time.Minute))
	res, text := e.do("GET", "/", "", "Request-Timeout", "300")
	if res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(text, `"code":"`+problem.CodeDeadline+`"`) {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	if len(first) == 0 || len(last) > 0 {
		t.Errorf("the first was called %d times, the last %d", len(first), len(last))
	}
	begun := len(first)
	// Nor does a service begin what is over when it arrives, however it comes.
	for service, addr := range services {
		req := httptest.NewRequest("GET", "http://"+addr+"/", nil)
		req.RequestURI = ""
		req.Header.Set("Request-Timeout", "0")
		res, err := e.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusGatewayTimeout || len(first) != begun || len(last) > 0 {
			t.Errorf("%s: %d", service, res.StatusCode)
		}
	}
}

// A download that takes longer than its route's timeout is not cut, though the
// service is told of that and heeds its context.
func TestLongDownload(t *testing.T) {
	t.Parallel()
	e := oneService(t, middleware.Timeout(0)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range 16 {
			if _, err := io.WriteString(w, "x"); err != nil || http.NewResponseController(w).Flush() != nil {
				panic(http.ErrAbortHandler)
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
	})).ServeHTTP, gateway.Route{Path: "/*", Service: "up", Public: true, Timeout: 400 * time.Millisecond})
	if res, text := e.do("GET", "/", ""); res.StatusCode != 200 || len(text) != 16 {
		t.Errorf("%d, %q", res.StatusCode, text)
	}
}

// Whose time is over decides what the transport is told: the route's is the service's
// fault, the client's own says nothing about the service.
func TestWhoseTimeIsOver(t *testing.T) {
	t.Parallel()
	causes := make(chan error, 1)
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/short", Service: "hangs", Public: true, Timeout: 20 * time.Millisecond},
		{Path: "/long", Service: "hangs", Public: true, Timeout: time.Minute},
	}}, gateway.Deps{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
		return nil, r.Context().Err()
	})})
	res, text := e.do("GET", "/short", "")
	wantProblem(t, res, text, http.StatusGatewayTimeout, problem.CodeUpstreamTimeout)
	if cause := <-causes; !errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("the route's time is over, and the transport is told: %v", cause)
	}
	res, text = e.do("GET", "/long", "", "Request-Timeout", "20")
	wantProblem(t, res, text, http.StatusGatewayTimeout, problem.CodeDeadline)
	if cause := <-causes; errors.Is(cause, context.DeadlineExceeded) || !errors.Is(cause, context.Canceled) {
		t.Errorf("the client's time is over, and the transport is told: %v", cause)
	}
}

// A stream's handler has limits of its own, which a deadline would cut.
func TestStreamIsToldTheClientsTimeOnly(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{{Path: "/*", Service: "echo", Public: true, Timeout: 10 * time.Second}}},
		gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"echo": echo})})
	if _, echoed := e.echo("GET", "/", "", "Accept", "text/event-stream"); echoed.Header.Get("Request-Timeout") != "" {
		t.Errorf("told %v", echoed.Header)
	}
	if _, echoed := e.echo("GET", "/", "", "Accept", "text/event-stream", "Request-Timeout", "5000"); echoed.Header.Get("Request-Timeout") == "" {
		t.Error("not told the client's own")
	}
}
