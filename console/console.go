// Package console is the admin HTTP API: what a person or a program asks the
// platform. It shows the registry under /v1.
//
//	GET /v1/services          every instance; ?tag= (repeated: and), ?status=
//	GET /v1/services/{name}   the instances of one service, likewise
//	GET /metrics              the process's metrics
//	GET /v1/watch             server-sent events: snapshot, register, deregister, status-change
//
// # Access
//
// On loopback there is no login, but requests must name a loopback host, so
// that no web page can reach it through a rebound DNS name, and browsers' cross
// origin requests that change something are refused. Listening on any other
// address needs an authenticator: without one New refuses.
//
// # The stream
//
// /v1/watch has an event of the name snapshot, with every instance, and then one
// for each change, with that instance; id is the store's revision. A reader that
// comes back with Last-Event-ID, or is too slow to follow, gets a snapshot anew:
// it may miss what came and went, but ends with the true set. ?service= (repeated:
// or) narrows it. A comment every 15 s shows that the stream lives; it ends when
// the registry closes, when the caller's token expires, or when the reader takes
// nothing for 10 s.
package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// ErrOpenToOthers is returned by [New] for an address off loopback without an
// authenticator.
var ErrOpenToOthers = errors.New("console: refusing to listen off loopback without authentication")

// Config says what the console shows and to whom.
type Config struct {
	// Listen is the address the handler will be served on; it decides the rules
	// of access. Required.
	Listen net.Addr
	// Registry is the fleet. Required.
	Registry *registry.Registry
	// LastHeartbeat tells when an instance's lease was last renewed, where that
	// is known (a registry.Reaper's method); nil leaves it out.
	LastHeartbeat func(registry.Key) time.Time
	// Authenticator identifies callers. Required off loopback.
	Authenticator auth.Authenticator
	// Metrics answers /metrics, for Prometheus; nil means there is none.
	Metrics http.Handler
	// Logger gets the access log and failures; nil means none.
	Logger *slog.Logger
}

// Console is the API's http.Handler. It is safe for concurrent use.
type Console struct {
	config  Config
	handler http.Handler
	hosts   []string
}

// Allowed returns [ErrOpenToOthers] for an address off loopback without an
// authenticator, so that it can be told before anything is started.
func Allowed(listen net.Addr, a auth.Authenticator) error {
	if _, local, err := loopback(listen); err != nil {
		return err
	} else if !local && a == nil {
		return fmt.Errorf("%w: %s", ErrOpenToOthers, listen)
	}
	return nil
}

func loopback(listen net.Addr) (host string, local bool, err error) {
	host, _, err = net.SplitHostPort(listen.String())
	if err != nil {
		return "", false, fmt.Errorf("console: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	return host, err == nil && ip.IsLoopback(), nil
}

// New returns a console, or ErrOpenToOthers.
func New(cfg Config) (*Console, error) {
	if cfg.Listen == nil || cfg.Registry == nil {
		return nil, errors.New("console: Listen and Registry are required")
	}
	if err := Allowed(cfg.Listen, cfg.Authenticator); err != nil {
		return nil, err
	}
	host, local, err := loopback(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Console{config: cfg}
	if local {
		c.hosts = []string{"localhost", "127.0.0.1", "[::1]", host}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/services", c.services)
	mux.HandleFunc("GET /v1/services/{name}", c.service)
	mux.HandleFunc("GET /v1/watch", c.watch)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // it fails only when the caller has gone
	})
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(refuseOrigin))
	c.handler = middleware.Chain(middleware.Routes(mux),
		middleware.RequestID(), middleware.Trace(), middleware.AccessLog(cfg.Logger, middleware.AccessLogOptions{}),
		middleware.Recover(cfg.Logger), c.allowHost, origins.Handler, c.authenticate, middleware.BodyLimit(0))
	return c, nil
}

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// allowHost refuses names that are not this machine's, which is how a web page
// reaches a loopback address by DNS rebinding.
func (c *Console) allowHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := strings.ToLower(r.Host)
		if port := strings.LastIndexByte(host, ':'); port > strings.LastIndexByte(host, ']') {
			host = host[:port]
		}
		if c.hosts != nil && !slices.Contains(c.hosts, host) {
			problem.Write(w, r, problem.New(http.StatusForbidden, problem.CodeForbidden,
				"The admin API answers to localhost only; call it by 127.0.0.1, [::1] or localhost."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuseOrigin(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, r, problem.New(http.StatusForbidden, problem.CodeForbidden,
		"A web page of another origin may not change anything here."))
}

func (c *Console) authenticate(next http.Handler) http.Handler {
	if c.config.Authenticator == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := c.config.Authenticator.Authenticate(r.Context(), auth.FromHeader(r.Header))
		if errors.Is(err, auth.ErrUnavailable) {
			problem.Write(w, r, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable,
				"Tokens can't be verified now; try again soon."))
			return
		}
		if err != nil {
			w.Header().Set("WWW-Authenticate", auth.Challenge(err))
			problem.Write(w, r, problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, "A valid token is needed."))
			return
		}
		next.ServeHTTP(w, r.WithContext(auth.WithIdentity(r.Context(), id)))
	})
}

func (c *Console) services(w http.ResponseWriter, r *http.Request) {
	filters, err := filtersOf(r)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	all := []registry.Instance{}
	for _, name := range c.config.Registry.Services() {
		all = append(all, c.config.Registry.Discover(name, filters...)...)
	}
	c.list(w, r, all)
}

func (c *Console) service(w http.ResponseWriter, r *http.Request) {
	filters, err := filtersOf(r)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	c.list(w, r, c.config.Registry.Discover(r.PathValue("name"), filters...))
}

// filtersOf reads ?tag= and ?status=. Without a status, all are shown: this is
// for people, who look for what is wrong.
func filtersOf(r *http.Request) ([]registry.Filter, error) {
	q := r.URL.Query()
	var states []registry.Status
	for _, s := range q["status"] {
		switch st := registry.Status(s); st {
		case health.Starting, health.Healthy, health.Degraded, health.Unhealthy, health.Draining:
			states = append(states, st)
		default:
			return nil, badQuery("status", "It is unknown: use starting, healthy, degraded, unhealthy or draining.")
		}
	}
	return []registry.Filter{registry.Tags(q["tag"]...), registry.WithStatus(states...)}, nil
}

// badQuery is the answer to a query parameter that can't be understood.
func badQuery(name, detail string) *problem.Problem {
	p := problem.New(http.StatusBadRequest, problem.CodeInvalid, "A query parameter is wrong.")
	p.Errors = []problem.FieldError{{Pointer: "#query/" + name, Detail: detail}}
	return p
}

func (c *Console) list(w http.ResponseWriter, r *http.Request, all []registry.Instance) {
	for i := range all {
		c.stamp(&all[i])
	}
	body, err := json.Marshal(all)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(body, '\n')) // it fails only when the caller has gone
}

func (c *Console) stamp(i *registry.Instance) {
	if c.config.LastHeartbeat != nil {
		i.LastHeartbeat = c.config.LastHeartbeat(i.Key())
	}
}
