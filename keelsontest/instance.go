package keelsontest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/workspace"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

// drainDelay is enough for callers on the same machine, and makes tests quick.
const drainDelay = 50 * time.Millisecond

// Instance is one instance of a service of a fleet. Its methods are safe for
// concurrent use; those that may end the test say so, and must be called by the
// test's own goroutine.
type Instance struct {
	fleet  *Fleet
	member *member
	id     string
	failed chan error    // why it ended by itself
	first  chan struct{} // closed when it has been launched once

	starting sync.Mutex // one launch or end at a time
	mu       sync.Mutex
	process  *process // nil while it does not run
}

// process is an instance while it runs: what a process of its own would have.
type process struct {
	service  *service.Service
	registry *registry.Registry
	engine   *engine.Engine
	listener *listener
	cancel   context.CancelFunc
	killed   context.Context // ends when the instance is killed
	kill     context.CancelFunc
	asked    atomic.Bool // to end
	done     chan struct{}
	err      error
}

func newInstance(f *Fleet, m *member, n int) *Instance {
	return &Instance{fleet: f, member: m, id: fmt.Sprintf("%s-%d", m.name, n), failed: make(chan error, 1), first: make(chan struct{})}
}

// ID returns the instance's id, the service's name and a number from 1:
// "user-service-1". It stays the same when the instance is started again.
func (i *Instance) ID() string { return i.id }

// URL returns the instance's own base URL, to call it past the gateway, or "" if
// it does not run. Each start takes another port.
func (i *Instance) URL() string {
	if p := i.current(); p != nil {
		return "http://" + p.listener.Addr().String()
	}
	return ""
}

// Service returns the service of the instance, or nil if it does not run.
func (i *Instance) Service() *service.Service {
	if p := i.current(); p != nil {
		return p.service
	}
	return nil
}

// Kill ends the instance as kill -9 does, as far as others can see: its
// connections are reset, its port refuses new ones, and its connection to the
// engine is gone, without a word to the registry. Its code can't be killed: the
// contexts of requests end, stop hooks run, and Kill waits for all of it; but
// answers reach nobody. It does nothing if the instance does not run.
func (i *Instance) Kill() {
	i.starting.Lock()
	defer i.starting.Unlock()
	p := i.take()
	if p == nil {
		return
	}
	p.listener.kill()
	p.engine.Conn().Close() // at once; its Close says goodbye
	p.kill()                // what handlers are at
	p.cancel()
	<-p.done // with an error, most likely: it could not leave the registry
	p.registry.Close()
	p.engine.Close()
}

// Stop ends the instance as SIGTERM does: it leaves the registry, lets requests
// finish, and stops. If that is not clean, the test fails. It does nothing if the
// instance does not run.
func (i *Instance) Stop() {
	i.fleet.t.Helper()
	if err := i.end(); err != nil {
		i.fleet.t.Errorf("keelsontest: %s did not stop cleanly: %v", i.id, err)
	}
}

// Start runs the instance again after Kill or Stop, and returns when it is in
// rotation. It ends the test if that fails, or takes more than 30 s. It does
// nothing if the instance runs.
func (i *Instance) Start() {
	i.fleet.t.Helper()
	if err := i.launch(i.fleet.life); err != nil {
		i.fleet.t.Fatalf("keelsontest: start %s: %v", i.id, err)
	}
	if err := i.fleet.ready(i); err != nil {
		i.fleet.t.Fatalf("keelsontest: start %s: %v", i.id, err)
	}
}

// run is the instance as a component of the fleet.
func (i *Instance) run(ctx context.Context, ready func()) error {
	ready()
	if err := i.launch(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop before it ran: it has
		}
		return err
	}
	select {
	case <-ctx.Done():
		return i.end()
	case err := <-i.failed:
		i.fleet.broken.Store(true)
		_ = i.end() // its error is that same one
		return err
	}
}

func (i *Instance) current() *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.process
}

// take returns the process, which then is on its own.
func (i *Instance) take() *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.process
	i.process = nil
	if p != nil {
		p.asked.Store(true)
	}
	return p
}

// end stops the process, if there is one, in order.
func (i *Instance) end() error {
	i.starting.Lock()
	defer i.starting.Unlock()
	p := i.take()
	if p == nil {
		return nil
	}
	p.cancel()
	<-p.done
	p.registry.Close()
	p.engine.Close()
	return p.err
}

// launch connects to the engine, makes the service and runs it. ctx bounds no more
// than that.
func (i *Instance) launch(ctx context.Context) (err error) {
	i.starting.Lock()
	defer i.starting.Unlock()
	if i.current() != nil {
		return nil
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &process{cancel: cancel, done: make(chan struct{})}
	p.killed, p.kill = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	dial, cancelDial := context.WithTimeout(ctx, patience)
	defer cancelDial()
	url, credentials := i.fleet.platform.Engine()
	if p.engine, err = engine.Connect(dial, engine.Config{URL: url, Credentials: credentials, Name: i.id}); err != nil {
		return err
	}
	driver, err := p.engine.RegistryDriver(dial, nil)
	if err != nil {
		return err
	}
	// It ends after the service, which leaves through it.
	p.registry = registry.Open(context.WithoutCancel(ctx), driver)
	if err := p.registry.WaitSynced(dial); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(dial, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.listener = newListener(l)
	if p.service, err = i.member.construct(life, i.options(p)...); err != nil {
		return err
	}
	if got := p.service.Name(); got != i.member.name {
		return fmt.Errorf("its constructor made the service %q: give both the same name", got)
	}
	err = p.service.Health().Add("engine", p.engine.Check, health.Interval(5*time.Second))
	if err != nil && !errors.Is(err, health.ErrDuplicate) { // its own check of that name will do
		return err
	}
	p.service.Use(p.mortal)
	go func() {
		defer close(p.done)
		defer p.kill() // there is nothing left of it
		p.err = p.service.Run(life)
		if !p.asked.Load() {
			i.failed <- cmp.Or(p.err, errEnded)
		}
	}()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.process = p
	select {
	case <-i.first:
	default:
		close(i.first)
	}
	return nil
}

var errEnded = errors.New("it ended before it was told to")

// mortal ends requests' contexts with the process. A server alone would not notice
// that a connection is gone whose request has a body nobody reads.
func (p *process) mortal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(p.killed, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// abandon gives back what a process has that could not be started.
func (p *process) abandon() {
	p.cancel()
	p.kill()
	if p.listener != nil {
		_ = p.listener.Close() // nobody has used it
	}
	if p.registry != nil {
		p.registry.Close()
	}
	if p.engine != nil {
		p.engine.Close()
	}
}

// options are what the fleet says to the service, around what the test says.
func (i *Instance) options(p *process) []service.Option {
	opts := []service.Option{service.WithDrainDelay(drainDelay), service.FromEnvironment()}
	opts = append(opts, i.member.options...)
	return append(opts, service.WithEnvironment(i.environment), service.WithInstance(i.id), service.WithRegistry(p.registry),
		service.WithListener(p.listener), service.WithLogOutput(i.fleet.output.writer(i.id)))
}

// environment is what the test sets, what the surroundings tell every service, and
// the rest of the test's own environment.
func (i *Instance) environment(name string) string {
	if v, ok := i.member.env[name]; ok {
		return v
	}
	engineURL, credentials := i.fleet.platform.Engine()
	switch name {
	case "KEELSON_SERVICE":
		return i.member.name
	case "KEELSON_INSTANCE":
		return i.id
	case "KEELSON_ADMIN_URL":
		return i.fleet.AdminURL
	case "KEELSON_ENGINE_URL":
		return engineURL
	case "KEELSON_ENGINE_CREDENTIALS":
		return credentials
	case "KEELSON_DATABASE_URL":
		return workspace.DatabaseURL(i.fleet.data, i.member.name)
	case "KEELSON_LOG_FORMAT":
		return "text"
	case "PORT":
		return ""
	}
	if strings.HasPrefix(name, "KEELSON_") {
		return ""
	}
	return os.Getenv(name)
}

// launched waits for the first launch.
func (i *Instance) launched(ctx context.Context) error {
	select {
	case <-i.first:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is still being made: %w", i.id, context.Cause(ctx))
	}
}

// awaitRotation waits until a view has the instance in rotation, where it is now.
func (i *Instance) awaitRotation(ctx context.Context, view *registry.Registry) error {
	url := i.URL()
	for range view.Watch(ctx, i.member.name) {
		if in, ok := view.Get(registry.Key{Service: i.member.name, ID: i.id}); ok && in.Address == url && in.Status.Serving() {
			return nil
		}
	}
	err := fmt.Errorf("%s is not in rotation: %w", i.id, cmp.Or(context.Cause(ctx), errOver))
	if s := i.Service(); s != nil {
		report := s.Health().Report()
		err = fmt.Errorf("%s is not in rotation but %s: %w", i.id, report.Status, context.Cause(ctx))
		for name, d := range report.Dependencies {
			if d.Error != "" {
				err = fmt.Errorf("%w (%s: %s)", err, name, d.Error)
			}
		}
	}
	return err
}
