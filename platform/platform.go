package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/inprocess"
	"github.com/keelson-go/keelson/internal/httpserver"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/telemetry"
)

// DefaultStopTimeout bounds a whole stop.
const DefaultStopTimeout = 30 * time.Second

// GatewayGrace is how long the gateway lets requests in progress finish when it
// stops, before the services are told to. Streams end at once.
const GatewayGrace = 10 * time.Second

// connectTimeout is how long an engine elsewhere may take to be there.
const connectTimeout = 20 * time.Second

// Config says what to run. The zero value runs an engine in memory, and gateway
// and admin API on free ports of loopback.
type Config struct {
	// Gateway has the routes and policies.
	Gateway gateway.Config
	// GatewayListen and AdminListen are host:port; "" is a free port of
	// loopback. The admin API refuses to listen anywhere else without
	// AdminAuthenticator.
	GatewayListen, AdminListen string
	// AdminAuthenticator identifies who calls the admin API. Without one that
	// listens on loopback alone, and asks nobody.
	AdminAuthenticator auth.Authenticator
	// Processes are the services this system runs as processes of their own, for
	// the admin API; nil means none.
	Processes console.Processes

	// Engine configures the engine in this process. It is not used when
	// External.URL is set: that connects to an engine that runs elsewhere.
	Engine   embedded.Config
	External engine.Config

	// NoInProcess has the gateway and the services of this process call one another
	// over their sockets, as if each were a process of its own. Otherwise they do so
	// without: see package inprocess.
	NoInProcess bool

	// DataDir is where services that are added keep SQLite files; it is made
	// (0700) if missing. See AddService.
	DataDir string
	// Version is shown by the gateway's /health.
	Version string
	// Telemetry has metrics and logs; nil means none.
	Telemetry *telemetry.Telemetry
	// StopTimeout bounds the whole stop; 0 means DefaultStopTimeout.
	StopTimeout time.Duration
	// Forced cuts the stop short when it is closed; see lifecycle.Signals.
	Forced <-chan struct{}
}

// BusyError says that a port is taken. It unwraps to the listen error.
type BusyError struct {
	Part string // "gateway", "admin API", or a service's name
	Addr string
	Err  error
}

// Error names the part and the address.
func (e *BusyError) Error() string {
	return fmt.Sprintf("platform: the %s can't listen on %s: the port is in use", e.Part, e.Addr)
}

// Unwrap returns the listen error.
func (e *BusyError) Unwrap() error { return e.Err }

// Platform is one process's engine, registry, gateway and admin API. Its
// accessors are safe for concurrent use.
type Platform struct {
	config    Config
	health    *health.Health
	gateway   *gateway.Gateway
	transport *client.Transport
	group     *lifecycle.Group
	members   []*member
	// neighbours are the services of this process; nil with Config.NoInProcess.
	neighbours *inprocess.Directory
	startedAt  time.Time

	gatewayListener, adminListener net.Listener

	ran     atomic.Bool
	running atomic.Pointer[running]
	opened  chan struct{} // closed when running is set
	up      chan struct{} // closed when the gateway serves
}

// running is what exists once the engine and the registry do.
type running struct {
	engine   *engine.Engine
	registry *registry.Registry
	checker  *registry.Checker
	url      string
	secret   string
}

// Listen takes the ports and checks the configuration; nothing is served before
// Run. A taken port is a [*BusyError].
func Listen(ctx context.Context, cfg Config) (*Platform, error) {
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = DefaultStopTimeout
	}
	p := &Platform{
		config: cfg, health: health.New(cfg.Version), startedAt: time.Now().UTC(),
		opened: make(chan struct{}), up: make(chan struct{}),
	}
	if !cfg.NoInProcess {
		p.neighbours = new(inprocess.Directory)
	}
	err := errors.Join(
		p.health.AddDetail("metrics", func() any { return cfg.Telemetry.Server().Summary() }),
		p.health.AddDetail("breakers", func() any { return p.transport.Breakers() }),
	)
	if err != nil {
		return nil, err
	}
	if cfg.DataDir != "" {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("platform: make the data folder: %w", err)
		}
	}
	p.transport, err = client.New(fleet{p}, client.WithMetrics(cfg.Telemetry.Client()), client.WithDialControl(registry.DialCheckable), client.WithLocal(p.neighbours.Local), client.WithLogger(p.log()))
	if err != nil {
		return nil, err
	}
	if err := p.transport.Show(cfg.Telemetry); err != nil { // a Telemetry that others show theirs with
		p.log().Debug("the gateway's calls are not in the metrics", "error", err)
	}
	p.gateway, err = gateway.New(cfg.Gateway, gateway.Deps{
		Transport: p.transport, Health: p.health.Detail(), Services: p.services,
		Telemetry: cfg.Telemetry, Logger: p.log(),
	})
	if err != nil {
		return nil, err
	}
	if p.gatewayListener, err = listen(ctx, "gateway", cfg.GatewayListen); err != nil {
		return nil, err
	}
	if p.adminListener, err = listen(ctx, "admin API", cfg.AdminListen); err != nil {
		return nil, errors.Join(err, p.gatewayListener.Close())
	}
	if err := console.Allowed(p.adminListener.Addr(), cfg.AdminAuthenticator); err != nil {
		p.Close()
		return nil, err
	}
	p.group = lifecycle.New(lifecycle.StopTimeout(cfg.StopTimeout), lifecycle.ForceOn(cfg.Forced), lifecycle.Logger(p.log()))
	p.group.Add("health checks", func(ctx context.Context, ready func()) error {
		ready()
		return p.health.Run(ctx)
	})
	p.group.Add("engine and registry", p.runRegistry)
	p.group.Add("admin API", p.serveAdmin)
	return p, nil
}

func listen(ctx context.Context, part, addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &BusyError{part, addr, err}
	}
	if err != nil {
		return nil, fmt.Errorf("platform: %s: %w", part, err)
	}
	return l, nil
}

func (p *Platform) log() *slog.Logger { return p.config.Telemetry.Logger() }

// Add appends a component between the admin API and the gateway. See
// lifecycle.Group.Add. It must not be called after Run.
func (p *Platform) Add(name string, run func(ctx context.Context, ready func()) error) {
	p.group.Add(name, run)
}

// Run runs everything until ctx ends or a part fails, and stops it in order. It
// returns nil after a clean stop. It may be called once.
func (p *Platform) Run(ctx context.Context) error {
	if p.ran.Swap(true) {
		return lifecycle.ErrRan
	}
	if len(p.members) > 0 {
		p.group.Add("services in rotation", p.awaitServices)
	}
	p.group.Add("gateway", p.serveGateway)
	err := p.group.Run(ctx)
	p.transport.CloseIdleConnections()
	p.Close()
	return err
}

// Close gives the ports back. It is for a platform that is not run after all;
// Run does it by itself.
func (p *Platform) Close() {
	for _, l := range []net.Listener{p.gatewayListener, p.adminListener} {
		_ = l.Close() // its server has closed it already, if it ran
	}
}

// Reload replaces the gateway's routes and policies without losing a request. A
// bad configuration changes nothing.
func (p *Platform) Reload(cfg gateway.Config) error { return p.gateway.Reload(cfg) }

// GatewayURL returns the gateway's base URL.
func (p *Platform) GatewayURL() string { return "http://" + p.gatewayListener.Addr().String() }

// AdminURL returns the admin API's base URL.
func (p *Platform) AdminURL() string { return "http://" + p.adminListener.Addr().String() }

// Up is closed once everything runs and the gateway serves, with all services in
// rotation or, if some take longer, after 2 s without them; see WaitServices.
func (p *Platform) Up() <-chan struct{} { return p.up }

// Engine returns where other processes reach the engine and with what
// credentials; both are empty before Run has started it, and for an engine in
// this process that does not listen.
func (p *Platform) Engine() (url, credentials string) {
	if r := p.running.Load(); r != nil {
		return r.url, r.secret
	}
	return "", ""
}

// Registry returns the registry, or nil before Run has opened it.
func (p *Platform) Registry() *registry.Registry {
	if r := p.running.Load(); r != nil {
		return r.registry
	}
	return nil
}

// fleet is the registry as soon as there is one.
type fleet struct{ p *Platform }

func (f fleet) Endpoints(service string) *balance.Set {
	if r := f.p.running.Load(); r != nil {
		return r.registry.Endpoints(service)
	}
	return nil
}

// services is what the gateway's /services shows.
func (p *Platform) services() any {
	if r := p.Registry(); r != nil {
		return r.List()
	}
	return []registry.Instance{}
}

// runRegistry is the engine, the registry and its checker as one component.
func (p *Platform) runRegistry(ctx context.Context, ready func()) (err error) {
	r := &running{}
	stop := context.WithoutCancel(ctx)
	if p.config.External.URL != "" {
		dial, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		external := p.config.External
		external.Wait = true
		if r.engine, err = engine.Connect(dial, external); err != nil {
			return fmt.Errorf("connect to the engine: %w", err)
		}
		r.url, r.secret = p.config.External.URL, p.config.External.Credentials
	} else {
		var server *embedded.Server
		if server, err = embedded.Start(ctx, p.config.Engine); err != nil {
			return err
		}
		defer func() {
			bounded, cancel := context.WithTimeout(stop, p.config.StopTimeout)
			defer cancel()
			err = errors.Join(err, server.Stop(bounded))
		}()
		if r.engine, err = server.Connect(ctx, "keelson"); err != nil {
			return err
		}
		if p.config.Engine.Listen != "" {
			r.url, r.secret = server.URL(), server.Credentials()
		}
	}
	defer r.engine.Close()
	driver, err := r.engine.RegistryDriver(ctx, p.log())
	if err != nil {
		return err
	}
	r.registry = registry.Open(stop, driver)
	defer r.registry.Close()
	if err := r.registry.WaitSynced(ctx); err != nil {
		return err
	}
	if r.engine.System() == nil {
		p.log().Info("no connection to the engine's system account: a killed instance is noticed when its lease expires, not at once")
	}
	r.checker = registry.NewChecker(r.registry, registry.WithLogger(p.log()))
	if err := p.health.Add("engine", r.engine.Check, health.Interval(5*time.Second)); err != nil {
		return err
	}
	p.running.Store(r)
	close(p.opened)
	ready()
	return r.checker.Run(ctx)
}

func (p *Platform) serveAdmin(ctx context.Context, ready func()) error {
	r := p.running.Load()
	c, err := console.New(console.Config{
		Listen: p.adminListener.Addr(), Registry: r.registry, LastHeartbeat: r.checker.LastHeartbeat,
		Authenticator: p.config.AdminAuthenticator, System: p.system, Processes: p.config.Processes,
		Metrics: p.config.Telemetry.Handler(), Logger: p.log(), Shared: elsewhere(p.config.External.URL),
	})
	if err != nil {
		return err
	}
	// Its streams never end by themselves: their contexts end with the drain.
	base, endStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer endStreams()
	server := &http.Server{Handler: c, BaseContext: func(net.Listener) context.Context { return base }} //nolint:gosec // serve sets its timeouts
	return p.serve(ctx, ready, p.adminListener, server, httpserver.Stop{Drain: endStreams, Grace: adminGrace})
}

func (p *Platform) serveGateway(ctx context.Context, ready func()) error {
	p.health.Started()
	server := &http.Server{Handler: p.gateway} //nolint:gosec // serve sets its timeouts
	serving := func() {
		ready()
		close(p.up)
	}
	return p.serve(ctx, serving, p.gatewayListener, server, httpserver.Stop{
		Drain: func() {
			p.health.Drain()
			p.gateway.Drain()
		},
		Grace: gatewayGrace,
	})
}

func (p *Platform) serve(ctx context.Context, ready func(), l net.Listener, s *http.Server, stop httpserver.Stop) error {
	gateway.ServerDefaults(s)
	s.ErrorLog = slog.NewLogLogger(p.log().Handler(), slog.LevelDebug)
	return httpserver.Run(ctx, ready, l, s, stop)
}

func gatewayGrace() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), GatewayGrace)
}

func adminGrace() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Second)
}
