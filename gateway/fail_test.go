package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
)

// refused is where nobody listens: a port of our own that we give back may be
// another test's by then.
const refused = "127.0.0.1:1"

// tcpService is a service that does with a connection what handle does.
func tcpService(t *testing.T, handle func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { _ = conn.Close() }) // a connection nobody uses
			handle(conn)
			stop()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// answering reads a request's header, writes text and hangs up.
func answering(text string) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, text)
	}
}

func TestUpstreamFailures(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, nil)
	fleet.addrs["refused"] = refused
	fleet.addrs["closes"] = tcpService(t, answering(""))
	fleet.addrs["babbles"] = tcpService(t, answering("SSH-2.0-OpenSSH_9.9\r\n"))
	fleet.addrs["half-header"] = tcpService(t, answering("HTTP/1.1 200 OK\r\nContent-Len"))
	fleet.addrs["hangs"] = serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else net/http does not look whether the caller is there
		<-r.Context().Done()
	}))
	fleet.addrs["no-status"] = tcpService(t, answering("HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nhi"))
	routes := []gateway.Route{{Path: "/hangs", Service: "hangs", Public: true, Timeout: time.Second}}
	for _, name := range []string{"nobody", "refused", "closes", "babbles", "half-header", "no-status"} {
		routes = append(routes, gateway.Route{Path: "/" + name, Service: name, Public: true})
	}
	e := newEdge(t, gateway.Config{Routes: routes}, gateway.Deps{Transport: fleet})
	for _, tt := range []struct {
		service string
		status  int
		code    string
	}{
		{"nobody", 503, problem.CodeNoHealthyInstance},
		{"refused", 502, problem.CodeUpstreamFailed},
		{"closes", 502, problem.CodeUpstreamFailed},
		{"babbles", 502, problem.CodeUpstreamFailed},
		{"half-header", 502, problem.CodeUpstreamFailed},
		{"no-status", 502, problem.CodeUpstreamFailed},
		{"hangs", 504, problem.CodeUpstreamTimeout},
	} {
		res, text := e.do("POST", "/"+tt.service, "x")
		wantProblem(t, res, text, tt.status, tt.code)
		if retry := res.Header.Get("Retry-After"); (retry == "1") != (tt.status == 503) {
			t.Errorf("%s: Retry-After %q", tt.service, retry)
		}
		if res.Header.Get("X-Service-Name") != tt.service {
			t.Errorf("%s: %v", tt.service, res.Header)
		}
		if tt.status == 504 && !strings.Contains(text, "hangs did not begin to answer within 1s.") {
			t.Error(text)
		}
	}
	// The log has what the client is not told.
	if text := e.logs.String(); !strings.Contains(text, refused) || !strings.Contains(text, `"refused_by":"upstream"`) {
		t.Error(text)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	mine := errors.New("breaker open")
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{open("/*")}}, gateway.Deps{
		Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, mine }),
		Classify: func(err error) *problem.Problem {
			if errors.Is(err, mine) {
				return problem.New(http.StatusServiceUnavailable, "breaker_open", "Too many failures.")
			}
			return nil
		},
	})
	res, text := e.do("GET", "/", "")
	wantProblem(t, res, text, 503, "breaker_open")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A truncated answer must never look complete.
func TestUpstreamDiesMidBody(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, nil)
	fleet.addrs["length"] = tcpService(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"))
	fleet.addrs["chunked"] = tcpService(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"))
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/length", Service: "length", Public: true}, {Path: "/chunked", Service: "chunked", Public: true},
	}}, gateway.Deps{Transport: fleet})
	for _, path := range []string{"/length", "/chunked"} {
		res, err := e.http.Get(e.url + path)
		if err != nil {
			continue // cut before the header went out: fine too
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err == nil {
			t.Errorf("%s: %d %q looks complete", path, res.StatusCode, body)
		}
	}
	eventually(t, "both are logged as cut", func() bool { return strings.Count(e.logs.String(), `"cut":true`) == 2 })
	if text := e.logs.String(); !strings.Contains(text, "unexpected EOF") {
		t.Error(text)
	}
}

func TestClientGone(t *testing.T) {
	t.Parallel()
	arrived, left := make(chan struct{}), make(chan struct{})
	e := oneService(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(left)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, _ := http.NewRequestWithContext(ctx, "GET", e.url+"/", nil)
	if res, err := e.http.Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("an answer")
	}
	<-left
	eventually(t, "499 is logged", func() bool { return strings.Contains(e.logs.String(), `"status":499`) })
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/echo", Service: "echo", Public: true, Timeout: 10 * time.Second},
		{Path: "/hang", Service: "hang", Public: true},
	}}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{
		"echo": echo,
		"hang": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	})})
	for sent, limits := range map[string][2]string{"2000": {"1", "1900"}, "3600000": {"9000", "9900"}} {
		_, got := e.echo("GET", "/echo", "", "Request-Timeout", sent)
		v := got.Header.Get("Request-Timeout")
		if len(v) != 4 || v < limits[0] || v > limits[1] {
			t.Errorf("%s ms went on as %s ms, want %v", sent, v, limits)
		}
	}
	for _, path := range []string{"/echo", "/hang"} {
		res, text := e.do("GET", path, "", "Request-Timeout", "0")
		wantProblem(t, res, text, 504, problem.CodeDeadline)
	}
	res, text := e.do("GET", "/hang", "", "Request-Timeout", "50")
	wantProblem(t, res, text, 504, problem.CodeDeadline)
}

// The wait for an answer begins when the request is complete.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if n == 1 {
			w.WriteHeader(http.StatusTeapot)
		}
	}, gateway.Route{Path: "/*", Service: "up", Public: true, Timeout: time.Second})
	pr, pw := io.Pipe()
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range 15 {
			<-tick.C
			_, _ = io.WriteString(pw, "x")
		}
		_ = pw.Close()
	}()
	res, err := e.http.Post(e.url+"/", "text/plain", pr)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("an upload of 1.5 s: %d", res.StatusCode)
	}
	// A client that stops in the middle is told, and does not keep the connection.
	answer := raw(t, e.addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx")
	if !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "Connection: close") || !strings.Contains(answer, problem.CodeRequestTimeout) {
		t.Errorf("%q", answer)
	}
	// One whose body is broken is not the upstream's fault.
	answer = raw(t, e.addr, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, problem.CodeMalformed) {
		t.Errorf("%q", answer)
	}
}

// An answer before the end of the request is passed on at once, and the client
// may not keep the connection by not sending the rest.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusForbidden)
	})
	for _, length := range []string{"5", "1000000"} {
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "+length+"\r\n\r\nx")
		start := time.Now()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != 403 || !res.Close {
			t.Fatalf("%+v, %v", res, err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: the answer took %v", length, took)
		}
		if _, err := io.ReadAll(conn); err != nil { // until the connection ends
			t.Errorf("%s: %v", length, err)
		}
	}
	// What the gateway refuses itself: after the body, or at the end of its patience.
	answer := raw(t, e.addr, "POST /.. HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx")
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "Connection: close") {
		t.Errorf("%q", answer)
	}
	answer = raw(t, e.addr, "POST /.. HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nxPOST /.. HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
	if strings.Count(answer, "HTTP/1.1 400 ") != 2 {
		t.Errorf("a refusal ends the connection: %q", answer)
	}
}

func TestMetricsAndLog(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(telemetry.Config{Service: "gateway", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	cfg := gateway.Config{Routes: []gateway.Route{{Path: "/api/users/*", Service: "up", Public: true}, {Path: "/none", Service: "none", Public: true}}}
	e := newEdge(t, cfg, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"up": echo}), Telemetry: tel})
	e.do("GET", "/api/users/7?token=secret", "")
	e.do("GET", "/api/users/8", "")
	e.do("GET", "/nowhere", "")
	e.do("GET", "/none", "")
	eventually(t, "all are measured", func() bool { return tel.Server().Summary().RequestCount == 4 })
	if s := tel.Server().Summary(); s.ErrorCount != 1 {
		t.Errorf("%+v", s)
	}
	rec := httptest.NewRecorder()
	tel.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/api/users/*"} 2`,
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="404",http_route=""} 1`,
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="503",http_route="/none"} 1`,
		`http_server_active_requests{http_request_method="GET"} 0`,
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("no %s in\n%s", want, rec.Body)
		}
	}
	text := e.logs.String()
	for _, want := range []string{`"method":"GET"`, `"path":"/api/users/7"`, `"status":200`, `"route":"/api/users/*"`, `"service":"up"`, `"client":"127.0.0.1"`, `"refused_by":"routing"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the log: %s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("the query is in the log")
	}
	cfg.AccessLog = gateway.LogErrors
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	e.do("GET", "/api/users/9", "")
	e.do("GET", "/nowhere/else", "")
	eventually(t, "the error is logged", func() bool { return strings.Contains(e.logs.String(), "/nowhere/else") })
	if strings.Contains(e.logs.String(), "/api/users/9") {
		t.Error("LogErrors logs all")
	}
}

// The gateway reads the caller's time as a service does, all values of it.
func TestCallersTimeIsOver(t *testing.T) {
	t.Parallel()
	e := oneService(t, echo)
	for _, header := range [][]string{
		{"Request-Timeout", "-20"},
		{"Request-Timeout", "5000", "Request-Timeout", "0"},
		{"Grpc-Timeout", "0S"},
	} {
		res, body := e.do(http.MethodGet, "/", "", header...)
		wantProblem(t, res, body, http.StatusGatewayTimeout, problem.CodeDeadline)
	}
}
