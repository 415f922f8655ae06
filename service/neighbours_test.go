package service_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/keelson-go/keelson/inprocess"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
)

// neighbour starts a service that is called without a socket, and returns how others
// of its process call it.
func neighbour(t *testing.T, h service.HandlerFunc, opts ...service.Option) (*process, http.RoundTripper, *inprocess.Directory) {
	t.Helper()
	d := new(inprocess.Directory)
	s, _ := newService(t, "users", append(opts, service.WithInProcess(d), service.WithInstance("users-1"))...)
	s.HandleFunc("GET /users", h)
	p := start(t, s)
	rt := d.Local("users-1")
	if rt == nil {
		t.Fatal("the service is not in the directory")
	}
	return p, rt, d
}

func askUsers(t *testing.T, p *process) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/users", nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// Calls from the same process are seen as all others are, and finish when the service
// stops.
func TestNeighboursAreDrained(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	p, rt, d := neighbour(t, func(w http.ResponseWriter, r *http.Request) error {
		if addr := r.Context().Value(http.LocalAddrContextKey); addr == nil {
			t.Error("the handler does not know its own address")
		}
		if _, ok := r.Context().Value(http.ServerContextKey).(*http.Server); !ok {
			t.Error("the handler does not know its server")
		}
		drain := service.Draining(r.Context())
		close(entered)
		<-drain
		<-release
		_, err := io.WriteString(w, "done")
		return err
	})
	got := make(chan string, 1)
	go func() {
		resp, err := rt.RoundTrip(askUsers(t, p))
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		got <- string(b)
	}()
	<-entered
	p.cancel()
	eventually(t, "the service has left the directory", func() bool { return d.Local("users-1") == nil })
	eventually(t, "it refuses calls", func() bool {
		resp, err := rt.RoundTrip(askUsers(t, p))
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	close(release)
	if body := <-got; body != "done" {
		t.Errorf("the call under way got %q", body)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, body, err := send(t, http.MethodGet, p.url+"/users", nil); err == nil {
		t.Errorf("it still answers: %s", body)
	}
}

// A call that does not end is cut when the time of the stop is over, and Run says so.
func TestNeighboursAreCut(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	entered := make(chan struct{})
	p, rt, _ := neighbour(t, func(_ http.ResponseWriter, r *http.Request) error {
		close(entered)
		<-r.Context().Done()
		ended <- r.Context().Err()
		return r.Context().Err()
	}, service.WithStopTimeout(200*time.Millisecond))
	failed := make(chan error, 1)
	go func() {
		resp, err := rt.RoundTrip(askUsers(t, p))
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	if err := p.stop(t); err == nil {
		t.Error("Run is content though a call was cut")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the caller got an answer")
	}
}

// A service calls another one of its process through its client, by name.
func TestClientCallsNeighbours(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	d := new(inprocess.Directory)
	usersRegistry, _ := fleet(t, hub)
	ordersRegistry, _ := fleet(t, hub)
	users, _ := newService(t, "users", service.WithRegistry(usersRegistry), service.WithInProcess(d))
	users.HandleFunc("GET /users", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, r.RemoteAddr)
		return err
	})
	orders, _ := newService(t, "orders", service.WithRegistry(ordersRegistry), service.WithInProcess(d))
	start(t, users)
	start(t, orders)
	var got string
	eventually(t, "the users are found", func() bool {
		resp, err := orders.Client().Get("http://users/users")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		got = string(b)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	if got != "127.0.0.1:0" {
		t.Errorf("the call came from %s, over a connection", got)
	}
}
