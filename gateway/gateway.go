package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
)

// Deps are what a gateway stands on, for as long as it lives.
type Deps struct {
	// Transport sends a request to an instance of the service that is the URL's
	// host; it is required. Its errors that match registry.ErrNoInstance become
	// 503, timeouts 504, all others 502. It must not touch bodies: an
	// *http.Transport needs DisableCompression.
	Transport http.RoundTripper
	// Classify, if set, is asked first what to answer for an error of Transport;
	// nil means that the rules above apply.
	Classify func(error) *problem.Problem
	// Health serves /health; nil means there is none.
	Health http.Handler
	// Services returns what /services shows, as JSON; see Config.ExposeServices.
	Services func() any
	// Telemetry takes metrics; nil means none.
	Telemetry *telemetry.Telemetry
	// Logger takes the access log and failures; nil means Telemetry's.
	Logger *slog.Logger
}

// Gateway is the http.Handler; the package comment tells what it does. It is safe
// for concurrent use and starts no goroutine that outlives a request.
type Gateway struct {
	deps    Deps
	metrics *telemetry.ServerMetrics
	proxy   httputil.ReverseProxy
	// patience is writePatience but in tests.
	patience time.Duration
	table    atomic.Pointer[table]

	draining context.Context // ends with Drain
	drain    context.CancelFunc
}

// New checks cfg and returns a gateway for it. The error joins a *ConfigError
// for each field that is wrong. A route that is not public without an
// authenticator is such an error: there is no way to start an open gateway by
// forgetting something.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if deps.Transport == nil {
		return nil, errors.New("gateway: Deps.Transport is required; give a client.Transport")
	}
	if deps.Logger == nil {
		deps.Logger = deps.Telemetry.Logger()
	}
	g := &Gateway{deps: deps, metrics: deps.Telemetry.Server(), patience: writePatience}
	g.draining, g.drain = context.WithCancel(context.Background())
	g.proxy = newProxy(g)
	if err := g.Reload(cfg); err != nil {
		return nil, err
	}
	return g, nil
}

// Reload puts cfg in force for all requests from now on; those under way finish
// with what was in force before. A limit that stays the same goes on counting. If
// cfg is wrong nothing changes; the error is as for [New]. Several calls at once
// are safe; the last one wins.
func (g *Gateway) Reload(cfg Config) error {
	var own []string
	if g.deps.Health != nil {
		own = append(own, pathHealth)
	}
	if cfg.ExposeServices && g.deps.Services != nil {
		own = append(own, pathServices)
	}
	for {
		old := g.table.Load()
		next, err := newTable(cfg, own, old)
		if err != nil {
			return err
		}
		if g.table.CompareAndSwap(old, next) {
			return nil
		}
	}
}

// Drain ends all streams (server-sent events and WebSockets), which would hold up
// a server's stop for as long as their clients like, and those that begin later.
// Other requests are served as before. Call it when the server begins to stop.
func (g *Gateway) Drain() { g.drain() }

// Admit runs a request through everything that comes before the proxy. The data
// plane has filled in the first fields of r; headers for the response, whoever
// makes it, are set on resp. If the error is nil, r.Service and r.UpstreamTarget
// say where the request goes. Otherwise it is an [*Answer] or an error to answer
// with, by the rules of problem.From.
func (g *Gateway) Admit(ctx context.Context, r *Request, resp Header) error {
	t := g.table.Load()
	if err := r.arrive(t); err != nil {
		r.refused = "arrival"
		return err
	}
	for _, p := range t.chain {
		if err := p.Check(ctx, r, resp); err != nil {
			r.refused = p.Name()
			return err
		}
	}
	// Only here: a policy may have taken long, to fetch keys say, and whoever sends
	// requests that are over is limited like others.
	if r.spent() {
		r.refused = "deadline"
		return deadlineOver()
	}
	return nil
}

// serveEndpoint serves one of the gateway's own endpoints.
func (g *Gateway) serveEndpoint(w http.ResponseWriter, r *http.Request, path string) {
	if path == pathHealth {
		g.deps.Health.ServeHTTP(w, r)
		return
	}
	body, err := json.Marshal(g.deps.Services())
	if err != nil {
		g.deps.Logger.ErrorContext(r.Context(), "can't show the services", "error", err)
		problem.Write(w, r, problem.New(http.StatusInternalServerError, problem.CodeInternal, "The services can't be shown."))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodHead {
		// It fails only when the client has gone.
		_, _ = w.Write(append(body, '\n'))
	}
}
