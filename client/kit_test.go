package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
)

// carrier is a base that answers from memory.
type carrier func(req *http.Request) (*http.Response, error)

func (c carrier) RoundTrip(req *http.Request) (*http.Response, error) { return c(req) }

// answering answers at once.
func answering(f func(req *http.Request) (status int, body string)) carrier {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_, _ = io.Copy(io.Discard, req.Body)
			_ = req.Body.Close()
		}
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		status, body := f(req)
		return response(req, status, body), nil
	}
}

func response(req *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{}, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
}

// world is a base over instances in memory, each of which replies by a script. It
// counts what it is asked and which bodies are open.
type world struct {
	script func(host string, n int, req *http.Request) reply

	mu    sync.Mutex
	calls map[string]int // by host
	open  int
	ended map[string]error // why the last cancelled try of a host was
}

// reply comes after a time. Without status and err it never comes.
type reply struct {
	after  time.Duration
	status int
	header http.Header
	body   string
	err    error
}

func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		defer req.Body.Close()
	}
	host := req.URL.Host
	w.mu.Lock()
	if w.calls == nil {
		w.calls, w.ended = map[string]int{}, map[string]error{}
	}
	w.calls[host]++
	n := w.calls[host]
	w.mu.Unlock()
	r := w.script(host, n, req)
	var timer <-chan time.Time
	if r.status != 0 || r.err != nil {
		timer = time.After(r.after)
	}
	select {
	case <-timer:
	case <-req.Context().Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended[host] = context.Cause(req.Context())
		return nil, context.Cause(req.Context())
	}
	if r.err != nil {
		return nil, r.err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	resp := response(req, r.status, r.body)
	resp.Body = &tracked{resp.Body, req.Context(), w, sync.Once{}}
	if r.header != nil {
		resp.Header = r.header.Clone()
	}
	return resp, nil
}

func (w *world) total() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.calls {
		n += c
	}
	return n
}

// tracked is a body that fails once its request's context is over, as one over a
// connection does.
type tracked struct {
	io.ReadCloser
	ctx  context.Context
	w    *world
	once sync.Once
}

func (b *tracked) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.ReadCloser.Read(p)
}

func (b *tracked) Close() error {
	b.once.Do(func() {
		b.w.mu.Lock()
		defer b.w.mu.Unlock()
		b.w.open--
	})
	return b.ReadCloser.Close()
}

// stage is a service "users" of n instances on hosts 0, 1, …, in a world, in virtual
// time.
type stage struct {
	*testing.T
	*world
	tr  *client.Transport
	eps []*balance.Endpoint
}

// play runs f in virtual time. After it nothing may be left over: no goroutine, no open
// body, no call in flight.
func play(t *testing.T, instances int, script func(host string, n int, req *http.Request) reply, f func(s *stage), opts ...client.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var addresses []string
		for i := range instances {
			addresses = append(addresses, "http://"+strconv.Itoa(i))
		}
		fleet, eps := users(addresses...)
		w := &world{script: script}
		s := &stage{T: t, world: w, tr: newTransport(t, fleet, append([]client.Option{client.WithBase(w)}, opts...)...), eps: eps}
		f(s)
		synctest.Wait()
		for _, ep := range eps {
			if n := ep.InFlight(); n != 0 {
				t.Errorf("%s has %d calls in flight", ep.ID, n)
			}
		}
		if w.open != 0 {
			t.Errorf("%d bodies are open", w.open)
		}
		if got := s.stats(); got.InFlight != 0 {
			t.Errorf("%d calls in flight by the limiter", got.InFlight)
		}
	})
}

// do sends a request and returns status and body, or the error.
func (s *stage) do(req *http.Request) (int, string, error) {
	resp, err := s.tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (s *stage) get() (int, string, error) {
	return s.do(request(s.T, http.MethodGet, "http://users/", nil))
}

func (s *stage) stats() client.Stats {
	for name, stats := range s.tr.Services() {
		if name == "users" {
			return stats
		}
	}
	return client.Stats{}
}

// fine answers at once.
func fine(host string, _ int, _ *http.Request) reply { return reply{status: 200, body: host} }

// refusal is the error of a connection that could not be opened.
func refusal() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// kindOf returns the kind of a *client.Error, 0 for anything else.
func kindOf(err error) client.Kind {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Kind
	}
	return 0
}

func fleetOf(eps []*balance.Endpoint) fleet { return fleet{"users": balance.NewSet(eps)} }
