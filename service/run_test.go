package service_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
)

// The listener is up first, then the critical checks pass, and only then is the
// service registered.
func TestStartOrder(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	s, _ := newService(t, "users", service.WithRegistry(r))
	var open, asked atomic.Bool
	database := func(context.Context) error {
		if s.Addr() != nil {
			asked.Store(true)
		}
		if !open.Load() {
			return errors.New("no route to host")
		}
		return nil
	}
	if err := s.Health().Add("database", database, health.Critical(), health.Interval(5*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var seen []string
	s.Add("first", func(ctx context.Context, ready func()) error {
		if s.Addr() != nil {
			seen = append(seen, "listening too early")
		}
		ready()
		<-ctx.Done()
		return nil
	})
	p := run(t, s)
	<-s.Listening()
	url := "http://" + s.Addr().String()
	eventually(t, "the check runs while the service listens", asked.Load)
	if got := status(t, url+"/livez"); got != http.StatusOK {
		t.Errorf("/livez %d while starting", got)
	}
	if resp, body := must(t, "GET", url+"/readyz", nil); resp.StatusCode != http.StatusServiceUnavailable || body != "starting\n" {
		t.Errorf("/readyz %s %q while starting", resp.Status, body)
	}
	if all := r.List(); len(all) != 0 {
		t.Fatalf("registered before it was ready: %v", all)
	}
	open.Store(true)
	eventually(t, "the service is registered", func() bool {
		in, ok := only(r, "users")
		return ok && in.Status == health.Healthy
	})
	in, _ := only(r, "users")
	if in.Address != url || in.Health != url+"/health" || in.ID != s.Instance() {
		t.Errorf("registered as %+v, listening on %s as %s", in, url, s.Instance())
	}
	if err := p.stop(t); err != nil || len(seen) > 0 {
		t.Errorf("Run: %v; %v", err, seen)
	}
	if err := s.Run(t.Context()); !errors.Is(err, lifecycle.ErrRan) {
		t.Errorf("a second Run: %v", err)
	}
}

func TestListenError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, _ := newService(t, "users", service.WithPort(l.Addr().(*net.TCPAddr).Port))
	err = s.Run(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), `"users"`) {
		t.Errorf("Run: %v, want the busy address and the service's name", err)
	}
	if s.Addr() != nil {
		t.Errorf("Addr is %v of a service that could not listen", s.Addr())
	}
}

// What prevents the registration for good stops the service.
func TestRegistrationRefused(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	first, _ := newService(t, "users", service.WithRegistry(r), service.WithInstance("one"))
	start(t, first)
	second, _ := newService(t, "users", service.WithRegistry(r), service.WithInstance("one"))
	if err := second.Run(t.Context()); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("Run: %v, want that the id is taken", err)
	}
}

// A component that fails stops the service, and Run says which.
func TestComponentFails(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	fail := make(chan struct{})
	broken := errors.New("broken pipe")
	s.Add("consumer", func(ctx context.Context, ready func()) error {
		ready()
		<-fail
		return broken
	})
	p := start(t, s)
	close(fail)
	if err := p.wait(t); !errors.Is(err, broken) || !strings.Contains(err.Error(), "consumer") {
		t.Errorf("Run: %v", err)
	}
	if got := status(t, p.url+"/livez"); got != 0 {
		t.Errorf("it still answers: %d", got)
	}
}

// A service that was told to stop before it was ready stops.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	s, _ := newService(t, "users", service.WithRegistry(r))
	never := func(context.Context) error { return errors.New("not yet") }
	if err := s.Health().Add("database", never, health.Critical()); err != nil {
		t.Fatal(err)
	}
	p := run(t, s)
	<-s.Listening()
	if err := p.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if s.Health().Status() != health.Draining {
		t.Errorf("status %s", s.Health().Status())
	}
}

// That a service waits, and for what, gets into the log.
func TestTellsWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	s, log := newService(t, "users")
	never := func(context.Context) error { return errors.New("no route to host") }
	if err := s.Health().Add("database", never, health.Critical()); err != nil {
		t.Fatal(err)
	}
	p := run(t, s)
	const told = "not ready to serve yet"
	eventually(t, "the log tells", func() bool { return strings.Contains(log.String(), told) })
	if err := p.stop(t); err != nil {
		t.Error(err)
	}
	if got := log.record(t, told)["error"]; !strings.Contains(got.(string), "database (no route to host)") {
		t.Errorf("logged %v", got)
	}
}

// Hooks and components stop after the last request, last added first.
func TestStopOrder(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	var order []string
	note := func(what string) {
		if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
			conn.Close()
			what += " while it listens"
		}
		order = append(order, what)
	}
	s.OnStop("close the database", time.Second, func(context.Context) error { note("database"); return nil })
	s.Add("consumer", func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		note("consumer")
		return nil
	})
	s.OnStop("flush", time.Second, func(context.Context) error { note("flush"); return nil })
	if err := start(t, s).stop(t); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ", "); got != "flush, consumer, database" {
		t.Errorf("stopped %s", got)
	}
}

func TestTwoServicesInOneProcess(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	r, _ := fleet(t, hub)
	users, _ := newService(t, "users", service.WithRegistry(r))
	orders, _ := newService(t, "orders", service.WithRegistry(r))
	users.HandleFunc("GET /who", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write([]byte(users.Name()))
		return err
	})
	orders.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) error {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://users/who", nil)
		if err != nil {
			return err
		}
		resp, err := orders.Client().Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return resp.Write(w)
	})
	first, second := start(t, users), start(t, orders)
	eventually(t, "both are in rotation", func() bool { return r.Endpoints("users").Len() == 1 && r.Endpoints("orders").Len() == 1 })
	if _, body := must(t, "GET", second.url+"/who", nil); !strings.HasSuffix(body, "users") {
		t.Errorf("orders' call of users: %q", body)
	}
	if err := first.stop(t); err != nil {
		t.Error(err)
	}
	if got := status(t, second.url+"/readyz"); got != http.StatusOK {
		t.Errorf("the other service answers %d", got)
	}
	if err := second.stop(t); err != nil {
		t.Error(err)
	}
}
