package main

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// rig is a running system: a real admin API over a registry in memory, with what
// it tells of itself up to the test.
type rig struct {
	t       *testing.T
	url     string
	reg     *registry.Registry
	server  *httptest.Server
	serving atomic.Pointer[http.Handler]

	mu        sync.Mutex
	system    console.System
	processes []console.Process
	headers   []http.Header // of the requests so far
}

func newRig(t *testing.T, change func(*console.Config)) *rig {
	t.Helper()
	r := &rig{t: t, reg: registry.Open(t.Context(), memregistry.New().Connect())}
	t.Cleanup(r.reg.Close)
	if err := r.reg.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.system = console.System{
		Version: "v1.2.3", PID: 42, StartedAt: time.Now().Add(-time.Minute), Status: health.Healthy,
		Engine: console.Engine{Kind: "embedded", Durability: "fast"}, Registry: console.RegistryState{Leading: true},
	}
	cfg := console.Config{
		Listen: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Registry: r.reg, Processes: r,
		System: func() console.System {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.system
		},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.headers = append(r.headers, req.Header.Clone())
		r.mu.Unlock()
		if h := r.serving.Load(); h != nil {
			(*h).ServeHTTP(w, req)
			return
		}
		c.ServeHTTP(w, req)
	}))
	t.Cleanup(func() { r.server.CloseClientConnections(); r.server.Close() })
	r.url = r.server.URL
	return r
}

// instead has h answer in place of the admin API, nil the admin API again.
func (r *rig) instead(h http.HandlerFunc) {
	if h == nil {
		r.serving.Store(nil)
		return
	}
	var handler http.Handler = h
	r.serving.Store(&handler)
}

// run runs a command against the system.
func (r *rig) run(args ...string) result {
	r.t.Helper()
	return keelson(r.t, map[string]string{"KEELSON_URL": r.url}, args...)
}

// service runs a program with /health, and registers it.
func (r *rig) service(name, id string, report func() health.Report) *registry.Registration {
	r.t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rep := health.Report{Status: health.Healthy, Uptime: 60}
		if report != nil {
			rep = report()
		}
		w.Header().Set(registry.InstanceHeader, id)
		w.Header().Set("Content-Type", "application/json")
		if !rep.Status.Serving() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = writeJSON(w, rep)
	}))
	r.t.Cleanup(s.Close)
	g, err := r.reg.Register(r.t.Context(), registry.Instance{Name: name, ID: id, Address: s.URL, Health: "/health", Version: "v1"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.awaits(name, id, true)
	return g
}

// awaits waits until an instance is there, or is not.
func (r *rig) awaits(name, id string, there bool) {
	r.t.Helper()
	eventually(r.t, name+"."+id, func() bool {
		_, ok := r.reg.Get(registry.Key{Service: name, ID: id})
		return ok == there
	})
}

func (r *rig) status(name, id string) registry.Status {
	in, _ := r.reg.Get(registry.Key{Service: name, ID: id})
	return in.Status
}

// List implements console.Processes.
func (r *rig) List() []console.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.processes
}

// Restart implements console.Processes.
func (r *rig) Restart(context.Context, string) error { return errors.New("not asked for here") }

// Logs implements console.Processes.
func (r *rig) Logs(context.Context, string, int, bool) (iter.Seq[console.LogLine], error) {
	return nil, console.ErrUnknownService
}

// newStub runs a server that answers with h.
func newStub(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// newSilent runs a server that takes connections and answers nothing.
func newSilent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}
