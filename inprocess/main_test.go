package inprocess_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/inprocess"
)

// patience is for what takes microseconds on an idle machine.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is a logger that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve returns a server of h that has nothing left under way when the test ends.
func serve(t testing.TB, h http.HandlerFunc, opts ...inprocess.Option) *inprocess.Server {
	t.Helper()
	s := inprocess.NewServer(h, append([]inprocess.Option{inprocess.WithLogger(quiet())}, opts...)...)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("after Close: %v", err)
		}
	})
	return s
}

// way is one of the ways to call a handler.
type way struct {
	name  string
	start func(t testing.TB, h http.HandlerFunc) http.RoundTripper
}

// ways are over a connection, which is how it has to be, and without one.
var ways = []way{
	{"loopback", func(t testing.TB, h http.HandlerFunc) http.RoundTripper {
		t.Helper()
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		s.Start()
		base := &http.Transport{DisableCompression: true, ExpectContinueTimeout: time.Minute, MaxIdleConnsPerHost: 64}
		t.Cleanup(func() {
			base.CloseIdleConnections()
			s.Close()
		})
		return loopback{s.Listener.Addr().String(), base}
	}},
	{"inprocess", func(t testing.TB, h http.HandlerFunc) http.RoundTripper {
		t.Helper()
		return serve(t, h)
	}},
}

// loopback sends requests for any host to one address.
type loopback struct {
	addr string
	base *http.Transport
}

func (l loopback) RoundTrip(req *http.Request) (*http.Response, error) {
	out := *req
	if req.URL != nil && req.URL.Host != "" {
		u := *req.URL
		if out.Host == "" {
			out.Host = u.Host
		}
		u.Host = l.addr
		out.URL = &u
	}
	resp, err := l.base.RoundTrip(&out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// eachWay runs a test both ways.
func eachWay(t *testing.T, f func(t *testing.T, w way)) {
	t.Helper()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			f(t, w)
		})
	}
}

// request makes a request for the service.
func request(t testing.TB, method, target string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://users"+target, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// stream hides what a body is, so that its length is not known and it can't be had again.
type stream struct{ io.Reader }

// do sends a request and reads the answer.
func do(t testing.TB, rt http.RoundTripper, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read the answer: %v", err)
	}
	return resp, string(b)
}

// wait takes what comes, and ends the test if nothing does.
func wait[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
