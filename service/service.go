package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/telemetry"
)

// Service is one microservice. Set it up from one goroutine, then call Run
// once; what is safe to call later says so.
type Service struct {
	name      string
	options   options
	mux       *http.ServeMux
	use       []middleware.Middleware
	health    *health.Health
	telemetry *telemetry.Telemetry
	transport *client.Transport
	group     *lifecycle.Group
	breakers  breakers
	limiter   *concurrency.Limiter // of requests; nil for none
	listening chan struct{}        // closed when addr and self are set
	addr      net.Addr
	self      registry.Instance

	ran      atomic.Bool
	leaving  atomic.Bool // the instance is out of rotation
	stopOnce sync.Once
	stopBy   time.Time
}

// New returns a service that does nothing yet. The name must be
// [a-z0-9][a-z0-9-]{0,62}. The error joins everything that is wrong with the
// options.
func New(name string, opts ...Option) (*Service, error) {
	o := apply(opts)
	limiter, err := o.limiter()
	if err := errors.Join(o.err, o.check(name), err); err != nil {
		return nil, fmt.Errorf("service %q: %w", name, err)
	}
	s := &Service{
		name: name, options: o, mux: http.NewServeMux(), telemetry: o.telemetry, limiter: limiter,
		health: health.New(o.version), listening: make(chan struct{}),
	}
	if s.telemetry == nil {
		o.log.Service, o.log.Version, o.log.Instance = name, o.version, o.id
		if s.telemetry, err = telemetry.New(o.log); err != nil {
			return nil, fmt.Errorf("service %q: %w", name, err)
		}
	}
	s.showLimit()
	var fleet client.Discoverer = nobody{}
	if o.registry != nil {
		fleet = o.registry
	}
	if s.transport, err = client.New(fleet, client.WithMetrics(s.telemetry.Client()), client.WithZone(o.zone), client.WithLocal(o.neighbours.Local), client.WithLogger(s.Log())); err != nil {
		return nil, fmt.Errorf("service %q: %w", name, err)
	}
	if err := s.transport.Show(s.telemetry); err != nil { // of services that share a Telemetry those of the first are shown
		s.Log().Debug("the calls to other services are not in the metrics", "error", err)
	}
	s.group = lifecycle.New(lifecycle.StopTimeout(o.stopTimeout), lifecycle.ForceOn(o.forced), lifecycle.Logger(s.Log()))
	return s, errors.Join(
		s.health.AddDetail("metrics", func() any { return s.telemetry.Server().Summary() }),
		s.health.AddDetail("breakers", func() any { return s.breakers.report(s.transport.Breakers()) }),
		s.health.AddDetail("concurrency", func() any { return s.limiter.Snapshot() }),
	)
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Log returns the service's logger. It is safe for concurrent use.
func (s *Service) Log() *slog.Logger { return s.telemetry.Logger() }

// Telemetry returns the service's metrics and logs. It is safe for concurrent use.
func (s *Service) Telemetry() *telemetry.Telemetry { return s.telemetry }

// Health returns the service's checks, to add to. It is safe for concurrent use.
func (s *Service) Health() *health.Health { return s.health }

// Client returns an http.Client that calls other services by name:
// client.Get("http://user-service/users/7"). It is safe for concurrent use.
func (s *Service) Client() *http.Client { return s.transport.Client() }

// Breaker returns the circuit breaker of that name, which /health shows. The
// first call makes it with opts, or says what is wrong with them. It is safe for
// concurrent use.
func (s *Service) Breaker(name string, opts ...breaker.Option) (*breaker.Breaker, error) {
	return s.breakers.get(name, opts)
}

// Mux returns the mux that Handle adds to, for libraries that add routes. A
// route of a path that the service answers itself is never reached.
func (s *Service) Mux() *http.ServeMux { return s.mux }

// Handle routes what matches an http.ServeMux pattern, such as
// "GET /users/{id}", to h with the middleware given around it, first outermost.
// Any http.Handler fits: a whole existing application is mounted with
// Handle("/", app). Like http.ServeMux it panics on a pattern that is wrong or
// taken, also by the service itself (/livez, /readyz, /health, /metrics): that is
// a mistake in the program.
func (s *Service) Handle(pattern string, h http.Handler, around ...middleware.Middleware) {
	if s.own()[telemetry.RouteOf(pattern)] != nil {
		panic(fmt.Sprintf("service: %q is answered by the service itself", pattern))
	}
	s.mux.Handle(pattern, middleware.Chain(h, around...))
}

// HandleFunc is Handle for a function that may fail; see [HandlerFunc].
func (s *Service) HandleFunc(pattern string, f HandlerFunc, around ...middleware.Middleware) {
	s.Handle(pattern, f.handler(s.Log()), around...)
}

// Use puts middleware around all routes, outermost first, inside the service's
// own: they see request id and trace, and what they answer is logged and counted.
func (s *Service) Use(m ...middleware.Middleware) { s.use = append(s.use, m...) }

// Add appends a component that runs beside the server: it starts before the
// listener opens, and is stopped after the last request. It must not be called
// after Run. See lifecycle.Group.Add.
func (s *Service) Add(name string, run func(ctx context.Context, ready func()) error) {
	s.group.Add(name, run)
}

// OnStop appends a stop hook at this place among the components, such as
// closing a database; see lifecycle.Group.OnStop.
func (s *Service) OnStop(name string, timeout time.Duration, f func(ctx context.Context) error) {
	s.group.OnStop(name, timeout, f)
}

// Addr returns the address listened on, or nil while nothing is. It is safe for
// concurrent use.
func (s *Service) Addr() net.Addr {
	select {
	case <-s.listening:
		return s.addr
	default:
		return nil
	}
}

// Listening is closed when Addr is known. It is safe for concurrent use.
func (s *Service) Listening() <-chan struct{} { return s.listening }

// Instance returns the instance's id, or "" before it is known: unless it was
// given, it contains the port. It is safe for concurrent use.
func (s *Service) Instance() string {
	select {
	case <-s.listening:
		return s.self.ID
	default:
		return registry.SanitizeID(s.options.id)
	}
}

// Run serves until ctx ends and then drains: the package documentation has the
// order. It returns nil after a clean stop, an error if it could not listen, if
// a component failed or if the stop took too long. It may be called once; after
// that the error is lifecycle.ErrRan.
func (s *Service) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return fmt.Errorf("service %q: %w", s.name, lifecycle.ErrRan)
	}
	// Behind what the service has added, so that no check asks for what its stop
	// hooks have closed.
	s.group.Add("health checks", func(ctx context.Context, ready func()) error {
		ready()
		return s.health.Run(ctx)
	})
	s.group.Add("http server", s.serve)
	s.group.Add("registration", s.announce)
	err := s.group.Run(ctx)
	s.transport.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("service %q: %w", s.name, err)
	}
	return nil
}
