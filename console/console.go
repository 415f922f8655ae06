// Package console is the admin HTTP API: how a service in any language joins,
// and what a person or a program asks the platform. Everything is under /v1; the
// exact form of each call is in /v1/openapi.json (OpenAPI 3.1).
//
//	POST   /v1/services                           register; 201 new, 200 replaced
//	PUT    /v1/services/{name}/{id}/heartbeat     renew the lease
//	DELETE /v1/services/{name}/{id}               deregister
//	GET    /v1/services                           every instance; ?tag= (repeated: and), ?status=
//	GET    /v1/services/{name}                    the instances of one service, likewise
//	GET    /v1/services/{name}/{id}               one instance
//	GET    /v1/services/{name}/pick               one instance in rotation; ?strategy=, ?tag=, ?zone=, ?key=
//	POST   /v1/services/{name}/{id}/drain         take it out of rotation by hand
//	DELETE /v1/services/{name}/{id}/drain         and back
//	GET    /v1/watch                              server-sent events: snapshot, register, deregister, status-change
//	GET    /v1/targets                            what to scrape, for Prometheus (HTTP SD)
//	GET    /v1/system                             this process and what it runs on
//	GET    /v1/processes                          the services this system runs as processes
//	POST   /v1/processes/{service}/restart        restart them one after another
//	GET    /v1/processes/{service}/logs           what they wrote; ?tail=, ?follow=, ?instance=
//	GET    /v1/openapi.json                       the description of all this
//
// Beside it there are /metrics, with the process's own, and /livez. Errors are
// problem+json, with a JSON pointer for each field or query parameter that is
// wrong.
//
// # Joining
//
// A service registers with one call, and says again and again that it is there:
//
//	curl -H 'Content-Type: application/json' http://127.0.0.1:3100/v1/services \
//	  -d '{"name": "user-service", "address": "http://localhost:3001", "health": "http://localhost:3001/health"}'
//
// With health it is in rotation as soon as it passes the first check, and each
// check it passes renews its lease. It need not call again. Without health it is
// in rotation at once, and has to send heartbeats, three within the ttl (seconds)
// that the answer names. A heartbeat answered with 404 says that it must register
// again. Registering the same again while in rotation changes nothing.
//
// An address must be one that others can reach: link-local, multicast and
// unspecified addresses and those of clouds' metadata services are refused, and
// loopback ones unless the caller is on this machine and no other machine shares
// the registry. A client registers at most 1,000 instances at once and 1,000 a
// minute (429, with Retry-After); there can be 10,000 in all, of 64 MiB (503).
//
// # Access
//
// On loopback there is no login, but requests must name a loopback host, so
// that no web page can reach it through a rebound DNS name, and browsers' cross
// origin requests that change something are refused. Listening on any other
// address needs an authenticator: without one New refuses. With an authenticator
// every call but /livez needs a token with the scope [ScopeAdmin].
//
// # The stream
//
// /v1/watch has an event of the name snapshot, with every instance, and then one
// for each change, with that instance. Its id is "<revision>-<store>". A reader
// that comes back to the same URL with Last-Event-ID gets what it missed, if
// that is still known; otherwise, and if it is too slow to follow, a snapshot. So
// it may miss what came and went, but ends with the true set. ?service=
// (repeated: or) narrows it. A comment every 15 s shows that the stream lives;
// it ends when the registry closes, when the caller's token expires, or when the
// reader takes nothing for 10 s.
package console

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/registry"
)

// Config says what the console shows and to whom.
type Config struct {
	// Listen is the address the handler will be served on; it decides the rules
	// of access. Required.
	Listen net.Addr
	// Registry is the fleet. Required.
	Registry *registry.Registry
	// LastHeartbeat tells when an instance's lease was last renewed, where that
	// is known; nil leaves it out.
	LastHeartbeat func(registry.Key) time.Time
	// Authenticator identifies callers. Required off loopback.
	Authenticator auth.Authenticator
	// System tells about this process; nil means that /v1/system is not there.
	System func() System
	// Shared says that programs on other machines use the same registry. Then an
	// instance at a loopback address can't be registered: elsewhere the address
	// would mean another one, or none.
	Shared bool
	// Processes are the services this system runs by itself; nil means none.
	Processes Processes
	// Metrics answers /metrics, for Prometheus; nil means there is none.
	Metrics http.Handler
	// Logger gets the access log, what was changed by hand, and failures; nil
	// means none.
	Logger *slog.Logger
}

// Console is the API's http.Handler. It is safe for concurrent use.
type Console struct {
	config  Config
	handler http.Handler
	hosts   []string // that requests may name; nil off loopback, where any may be
	joins   *ratelimit.Local

	mu      sync.Mutex
	choices map[pickerKey]choice
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
	c := &Console{config: cfg, choices: map[pickerKey]choice{}}
	if c.joins, err = ratelimit.NewLocal(joinLimit); err != nil {
		return nil, err
	}
	if local {
		c.hosts = []string{"localhost", "127.0.0.1", "[::1]", host}
	}
	mux := http.NewServeMux()
	c.operations(mux)
	mux.HandleFunc("GET "+livez, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // it fails only when the caller has gone
	})
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(refuseOrigin))
	c.handler = middleware.Chain(middleware.Routes(mux),
		inTime, middleware.RequestID(), middleware.Trace(), middleware.AccessLog(cfg.Logger, middleware.AccessLogOptions{Skip: routine}),
		middleware.Recover(cfg.Logger), c.allowHost, origins.Handler, c.authenticate, fresh, middleware.BodyLimit(maxBody))
	return c, nil
}

// routine is what changes nothing and is asked again and again, by people and by
// programs: the log would have nothing else. What fails in it is logged where it
// fails.
func routine(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasSuffix(r.URL.Path, "/heartbeat")
}

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// answerTimeout is how long a reader may take for an answer that is no stream.
const answerTimeout = time.Minute

// inTime ends an answer that nobody takes. It is for every request: what the one
// before on the connection was given holds on. Streams have rules of their own,
// see send.
func inTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not every writer has deadlines. One without just blocks.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
		next.ServeHTTP(w, r)
	})
}

// fresh keeps answers, which are of this moment, from being stored, unless the
// handler says otherwise.
func fresh(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// failed logs an error that the caller is not told.
func (c *Console) failed(ctx context.Context, err error) {
	level := slog.LevelError
	if errors.Is(ctx.Err(), context.Canceled) {
		level = slog.LevelDebug // the caller has gone, nothing has failed
	}
	c.config.Logger.Log(ctx, level, "request failed", "error", err)
}

// note logs what somebody did to an instance or a service by hand.
func (c *Console) note(ctx context.Context, what, service, instance string) {
	who := ""
	if id, ok := auth.FromContext(ctx); ok {
		who = id.Subject
	}
	c.config.Logger.InfoContext(ctx, "changed by hand", "action", what, "service", service, "instance", instance, "by", who)
}
