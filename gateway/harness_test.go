package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// fleet is a transport over services by name: the least of what client.Transport does.
type fleet struct {
	addrs map[string]string // service → host:port
	http1 *http.Transport
	http2 *http.Transport
}

func newFleet(t testing.TB, services map[string]http.Handler) *fleet {
	f := &fleet{addrs: map[string]string{}, http1: &http.Transport{DisableCompression: true, ExpectContinueTimeout: time.Second}}
	f.http2 = f.http1.Clone()
	f.http2.Protocols = new(http.Protocols)
	f.http2.Protocols.SetUnencryptedHTTP2(true)
	for name, h := range services {
		f.addrs[name] = serve(t, h)
	}
	t.Cleanup(f.http1.CloseIdleConnections)
	t.Cleanup(f.http2.CloseIdleConnections)
	return f
}

func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	addr, ok := f.addrs[r.URL.Host]
	if !ok {
		return nil, &registry.NoInstanceError{Service: r.URL.Host}
	}
	out := *r
	u := *r.URL
	u.Host = addr
	out.URL = &u
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return f.http2.RoundTrip(&out)
	}
	return f.http1.RoundTrip(&out)
}

// serve runs h on a server with the edge's settings and returns its address.
func serve(t testing.TB, h http.Handler) string {
	srv := httptest.NewUnstartedServer(h)
	gateway.ServerDefaults(srv.Config)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// echo tells what arrived.
type echoed struct {
	Method, Host, URI string
	Header            http.Header
	Trailer           http.Header
	Body              []byte
}

var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Upstream", "echo")
	_ = json.NewEncoder(w).Encode(echoed{r.Method, r.Host, r.RequestURI, r.Header, r.Trailer, body})
})

// logs collects the access log.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// edge is a running gateway.
type edge struct {
	*gateway.Gateway
	t    testing.TB
	addr string
	url  string
	logs *logs
	http *http.Client
}

func newEdge(t testing.TB, cfg gateway.Config, deps gateway.Deps) *edge {
	t.Helper()
	e := &edge{t: t, logs: &logs{}}
	deps.Logger = slog.New(slog.NewJSONHandler(e.logs, nil))
	g, err := gateway.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	e.Gateway = g
	e.addr = serve(t, g)
	e.url = "http://" + e.addr
	tr := &http.Transport{DisableCompression: true, ExpectContinueTimeout: time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	e.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return e
}

// do sends a request; header is pairs of name and value.
func (e *edge) do(method, path, body string, header ...string) (*http.Response, string) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	res, err := e.http.Do(req)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatalf("%s %s: read: %v", method, path, err)
	}
	return res, string(text)
}

// echo sends a request to an echoing service.
func (e *edge) echo(method, path, body string, header ...string) (*http.Response, echoed) {
	e.t.Helper()
	res, text := e.do(method, path, body, header...)
	var got echoed
	if err := json.Unmarshal([]byte(text), &got); err != nil || res.StatusCode != http.StatusOK {
		e.t.Fatalf("%s %s: %d %s: %v", method, path, res.StatusCode, text, err)
	}
	return res, got
}

// wantProblem checks an answer of the gateway itself.
func wantProblem(t testing.TB, res *http.Response, body string, status int, code string) {
	t.Helper()
	var p problem.Problem
	err := json.Unmarshal([]byte(body), &p)
	if err != nil || res.StatusCode != status || p.Code != code || p.Status != status || res.Header.Get("Content-Type") != problem.ContentType {
		t.Errorf("got %d %s %s (%v), want %d %s", res.StatusCode, res.Header.Get("Content-Type"), body, err, status, code)
	}
	if p.RequestID == "" || p.RequestID != res.Header.Get("X-Request-Id") || len(p.TraceID) != 32 {
		t.Errorf("request id %q, header %q, trace id %q", p.RequestID, res.Header.Get("X-Request-Id"), p.TraceID)
	}
	if strings.Contains(body, "127.0.0.1") || strings.Contains(body, "dial") {
		t.Errorf("the answer tells internals: %s", body)
	}
}

// raw sends bytes and returns what comes back until the connection ends or the
// answer is complete.
func raw(t testing.TB, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// eventually polls until ok, for at most 10 s.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// tokens mints and verifies with a development key.
func tokens(t testing.TB) (auth.Authenticator, func(ttl time.Duration, scopes ...string) string) {
	t.Helper()
	key, err := auth.LoadOrCreateDevKey(t.TempDir() + "/dev.key")
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := auth.NewJWT(context.Background(), key.JWTConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(jwt.Close)
	return jwt, func(ttl time.Duration, scopes ...string) string {
		token, err := key.Mint(auth.TokenRequest{Subject: "ann", Scopes: scopes, TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + token
	}
}
