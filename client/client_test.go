package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a Discoverer with a fixed set of instances.
type fleet map[string]*balance.Set

func (f fleet) Endpoints(service string) *balance.Set { return f[service] }

// inOrder picks the first endpoint by id, so that tests know who is first.
type inOrder struct{}

func (inOrder) Pick(s *balance.Set) *balance.Endpoint {
	if s.Len() == 0 {
		return nil
	}
	return s.At(0)
}

func users(addresses ...string) (fleet, []*balance.Endpoint) {
	var eps []*balance.Endpoint
	for i, a := range addresses {
		eps = append(eps, balance.NewEndpoint(fmt.Sprintf("users-%d", i), a))
	}
	return fleet{"users": balance.NewSet(eps)}, eps
}

// newTransport picks in order.
func newTransport(t *testing.T, f client.Discoverer, opts ...client.Option) *client.Transport {
	t.Helper()
	return plainTransport(t, f, append([]client.Option{client.WithPicker(func() balance.Picker { return inOrder{} })}, opts...)...)
}

func plainTransport(t *testing.T, f client.Discoverer, opts ...client.Option) *client.Transport {
	t.Helper()
	tr, err := client.New(f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(w, r.Body)
}

// refusing returns an address nobody listens at.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return "http://" + l.Addr().String()
}

// dying accepts, reads the request's head and cuts the connection.
func dying(t *testing.T, calls *atomic.Int32) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})
}

func do(t *testing.T, rt http.RoundTripper, req *http.Request) (string, error) {
	t.Helper()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// once is a body that can't be rewound and knows whether it was closed.
type once struct {
	io.Reader
	closed atomic.Int32
}

func (o *once) Close() error {
	o.closed.Add(1)
	return nil
}

func TestAnotherInstance(t *testing.T) {
	t.Parallel()
	var cuts atomic.Int32
	ok, dead, dies := serve(t, echo), refusing(t), dying(t, &cuts)
	tests := []struct {
		name      string
		first     string
		method    string
		body      func() io.Reader
		header    string
		want      string
		wantKind  client.Kind
		wantTries int
	}{
		{name: "refused get", first: dead, method: "GET"},
		{name: "refused post keeps its body", first: dead, method: "POST", body: plain, want: "hello"},
		{name: "refused post whose body can't be rewound", first: dead, method: "POST", body: stream, want: "hello"},
		{name: "broken get", first: dies, method: "GET"},
		{name: "broken put with a body that can be sent again", first: dies, method: "PUT", body: plain, want: "hello"},
		{name: "broken put with a body that can't", first: dies, method: "PUT", body: stream, wantKind: client.Broken, wantTries: 1},
		{name: "broken post is not repeated", first: dies, method: "POST", body: plain, wantKind: client.Broken, wantTries: 1},
		{name: "broken post with a key is", first: dies, method: "POST", body: plain, header: "Idempotency-Key", want: "hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, eps := users(tt.first, ok)
			var body io.Reader
			if tt.body != nil {
				body = tt.body()
			}
			req := request(t, tt.method, "http://users/x", body)
			if tt.header != "" {
				req.Header.Set(tt.header, "1")
			}
			got, err := do(t, newTransport(t, f), req)
			if tt.wantKind != 0 {
				e, ok := errors.AsType[*client.Error](err)
				if !ok || e.Kind != tt.wantKind || e.Attempts != tt.wantTries || e.Service != "users" {
					t.Fatalf("error %#v, want kind %v after %d attempts", err, tt.wantKind, tt.wantTries)
				}
			} else if err != nil || got != tt.want {
				t.Fatalf("got %q, %v; want %q", got, err, tt.want)
			}
			if o, ok := body.(*once); ok {
				eventually(t, "the body to be closed once", func() bool { return o.closed.Load() == 1 })
			}
			for _, ep := range eps {
				if n := ep.InFlight(); n != 0 {
					t.Errorf("%s still has %d calls in flight", ep.ID, n)
				}
			}
		})
	}
}

func plain() io.Reader  { return strings.NewReader("hello") }
func stream() io.Reader { return &once{Reader: strings.NewReader("hello")} }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func TestNoInstance(t *testing.T) {
	t.Parallel()
	body := &once{Reader: strings.NewReader("x")}
	_, err := newTransport(t, fleet{}).RoundTrip(request(t, "POST", "http://users/", body))
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Kind != client.NoInstance || !errors.Is(err, registry.ErrNoInstance) || e.Attempts != 0 {
		t.Fatalf("error %#v, want NoInstance", err)
	}
	if body.closed.Load() != 1 {
		t.Errorf("the body was closed %d times, want once: a RoundTripper must", body.closed.Load())
	}
}

func TestAllRefuse(t *testing.T) {
	t.Parallel()
	f, _ := users(refusing(t), refusing(t), refusing(t), refusing(t))
	body := &once{Reader: strings.NewReader("x")}
	_, err := newTransport(t, f).RoundTrip(request(t, "POST", "http://users/", body))
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Kind != client.Refused || e.Attempts != client.DefaultAttempts || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("error %#v, want Refused after %d attempts", err, client.DefaultAttempts)
	}
	eventually(t, "the body to be closed once", func() bool { return body.closed.Load() == 1 })
}

func TestCallerGone(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 8)
	hang := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	f, eps := users(hang, serve(t, echo))
	tr := newTransport(t, f)

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	_, err := tr.RoundTrip(request(t, "GET", "http://users/", nil).WithContext(ctx))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Kind != client.Canceled || e.Attempts != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("error %#v, want Canceled after 1 attempt", err)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = tr.RoundTrip(request(t, "GET", "http://users/", nil).WithContext(ctx))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Kind != client.Timeout || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %#v, want Timeout", err)
	}
	if eps[0].InFlight() != 0 {
		t.Errorf("%d calls in flight, want 0", eps[0].InFlight())
	}
	if l := eps[0].Latency(); l >= time.Second {
		t.Errorf("latency %v: a caller's own short deadline counts as the instance's failure", l)
	}

	gaveUp, giveUp := context.WithCancelCause(t.Context())
	go func() {
		<-entered
		<-entered // of the request before
		giveUp(fmt.Errorf("the route's time is over: %w", context.DeadlineExceeded))
	}()
	_, err = tr.RoundTrip(request(t, "GET", "http://users/", nil).WithContext(gaveUp))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Kind != client.Timeout {
		t.Errorf("error %#v, want Timeout", err)
	}
}

func TestInFlightUntilTheBodyIsRead(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f, eps := users(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	resp, err := newTransport(t, f).RoundTrip(request(t, "GET", "http://users/", nil))
	if err != nil {
		t.Fatal(err)
	}
	if n := eps[0].InFlight(); n != 1 {
		t.Errorf("%d calls in flight while the answer streams, want 1", n)
	}
	close(release)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if n := eps[0].InFlight(); n != 0 {
		t.Errorf("%d calls in flight at the answer's end, want 0", n)
	}
	resp.Body.Close()
	if n := eps[0].InFlight(); n != 0 {
		t.Errorf("closing counted twice: %d in flight", n)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	f, _ := users(serve(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
	tr := newTransport(t, f)
	trace := telemetry.NewTrace()
	ctx := telemetry.ContextWithRequestID(telemetry.ContextWithTrace(t.Context(), trace), "req-1")

	req := request(t, "GET", "http://users/a%2Fb?q=1&q=2", nil).WithContext(ctx)
	if _, err := do(t, tr, req); err != nil {
		t.Fatal(err)
	}
	got := <-seen
	child, ok := telemetry.ParseTraceparent(got.Header.Get("Traceparent"))
	if !ok || child.TraceID != trace.TraceID || child.SpanID == trace.SpanID {
		t.Errorf("traceparent %q is no child of %s", got.Header.Get("Traceparent"), trace)
	}
	if got.Header.Get("X-Request-Id") != "req-1" || got.RequestURI != "/a%2Fb?q=1&q=2" {
		t.Errorf("request id %q, uri %q", got.Header.Get("X-Request-Id"), got.RequestURI)
	}
	if len(req.Header) != 0 || req.URL.Host != "users" {
		t.Errorf("the caller's request was changed: %v %v", req.Header, req.URL)
	}

	req = request(t, "GET", "http://users/", nil).WithContext(ctx)
	req.Header.Set("Traceparent", trace.String())
	req.Host = "shop.example"
	if _, err := do(t, tr, req); err != nil {
		t.Fatal(err)
	}
	got = <-seen
	if got.Header.Get("Traceparent") != trace.String() || got.Host != "shop.example" {
		t.Errorf("traceparent %q and host %q were not kept", got.Header.Get("Traceparent"), got.Host)
	}
}

func TestDeadlineGoesAlong(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	f, _ := users(serve(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Request-Timeout") }))
	tr := newTransport(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := do(t, tr, request(t, "GET", "http://users/", nil).WithContext(ctx)); err != nil {
		t.Fatal(err)
	}
	if ms, err := strconv.Atoi(<-seen); err != nil || ms < 30_000 || ms >= 60_000 {
		t.Errorf("Request-Timeout %d, %v; want a little less than a minute", ms, err)
	}
	req := request(t, "GET", "http://users/", nil).WithContext(ctx)
	req.Header.Set("Request-Timeout", "7")
	if _, err := do(t, tr, req); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "7" {
		t.Errorf("Request-Timeout %q, want the caller's own 7", got)
	}
}

func TestHTTPSIsNotSentInClear(t *testing.T) {
	t.Parallel()
	f, _ := users(serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") }))
	body := &once{Reader: strings.NewReader("secret")}
	_, err := newTransport(t, f).RoundTrip(request(t, "POST", "https://users/", body))
	if !errors.Is(err, client.ErrScheme) || body.closed.Load() != 1 {
		t.Errorf("error %v, body closed %d times", err, body.closed.Load())
	}
}

func TestTLSInstance(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.TLS != nil) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	base := s.Client().Transport.(*http.Transport).Clone()
	f, _ := users(s.URL)
	tr := newTransport(t, f, client.WithBase(base))
	for _, content := range []string{"text/plain", "application/grpc"} {
		req := request(t, "POST", "http://users/", strings.NewReader("x"))
		req.Header.Set("Content-Type", content)
		if got, err := do(t, tr, req); err != nil || got != "HTTP/2.0 true" {
			t.Errorf("%s: got %q, %v", content, got, err)
		}
	}
}

// An answer that breaks off says as much about an instance as no answer.
func TestAnswerThatBreaksOff(t *testing.T) {
	t.Parallel()
	f, eps := users(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	resp, err := newTransport(t, f).RoundTrip(request(t, "GET", "http://users/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Fatal("the answer was whole")
	}
	if eps[0].InFlight() != 0 || eps[0].Latency() < time.Second {
		t.Errorf("in flight %d, latency %v: it does not count as a failure", eps[0].InFlight(), eps[0].Latency())
	}
}

func TestOtherHostsAreCalledAsWritten(t *testing.T) {
	t.Parallel()
	url := serve(t, echo)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	tr := newTransport(t, fleet{})
	for _, u := range []string{url, "http://localhost:" + port} {
		if got, err := do(t, tr, request(t, "POST", u, strings.NewReader("x"))); err != nil || got != "x" {
			t.Errorf("%s: got %q, %v", u, got, err)
		}
	}
}

func TestSwitchedProtocolsGoBothWays(t *testing.T) {
	t.Parallel()
	f, _ := users(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString(line)
		_ = rw.Flush()
	}))
	req := request(t, "GET", "http://users/", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := newTransport(t, f).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	rw, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatal("the body of a 101 can't be written to")
	}
	if _, err := io.WriteString(rw, "ping\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(rw); err != nil || !bytes.Equal(b, []byte("ping\n")) {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestGRPCGoesOverHTTP2(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		fmt.Fprint(w, r.Proto)
		w.Header().Set("Grpc-Status", "0")
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	f, _ := users(s.URL)
	tr := newTransport(t, f)
	for content, proto := range map[string]string{
		"application/grpc": "HTTP/2.0", "application/grpc+proto": "HTTP/2.0", "application/grpc; x=y": "HTTP/2.0",
		"application/grpc-web": "HTTP/1.1", "text/plain": "HTTP/1.1",
	} {
		req := request(t, "POST", "http://users/pkg.Service/Method", strings.NewReader("x"))
		req.Header.Set("Content-Type", content)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != proto || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s went over %s with trailers %v, want %s and a trailer", content, b, resp.Trailer, proto)
		}
	}
	tr.CloseIdleConnections()
}
