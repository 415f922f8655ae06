package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// HandlerFunc is a handler that may fail instead of answering. A
// *problem.Problem goes to the client as it is; of any other error the client
// learns only its status (see problem.From), and the log all. If the response
// has begun, the connection is cut instead, so that the client can't take what
// it has for the whole. An error after the client has left is passed over.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

func (f HandlerFunc) handler(log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp := middleware.Record(w, r)
		err := f(resp, r)
		ctx := r.Context()
		switch {
		case err == nil:
			return
		case errors.Is(context.Cause(ctx), ErrDraining):
			if resp.Begun() {
				return // an endless stream that ended as it was told to
			}
			err = problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "This instance is stopping; try again.")
		case errors.Is(ctx.Err(), context.Canceled):
			if resp.Begun() { // or who keeps answers would take half of one for the whole
				panic(http.ErrAbortHandler)
			}
			return // nobody is there to read it
		case resp.Begun() || problem.From(err).Status >= http.StatusInternalServerError:
			log.ErrorContext(ctx, "request failed", "method", r.Method, "route", r.Pattern, "error", err)
		}
		middleware.Fail(resp, r, err)
	})
}

// own are the paths a service answers itself.
func (s *Service) own() map[string]http.Handler {
	return map[string]http.Handler{
		"/livez":   s.named(s.health.Live()),
		"/readyz":  s.named(s.health.Ready()),
		"/health":  s.named(s.health.Detail()),
		"/metrics": s.telemetry.Handler(),
	}
}

// Handler returns everything the service answers, for tests and for running it
// inside another server. What is routed or used later is not in it.
func (s *Service) Handler() http.Handler {
	around := []middleware.Middleware{
		middleware.RequestID(), middleware.Trace(), middleware.AccessLog(s.Log(), middleware.AccessLogOptions{}),
		middleware.Metrics(s.telemetry), middleware.Recover(s.Log()),
	}
	if s.options.cors != nil {
		around = append(around, s.options.cors)
	}
	around = append(around, middleware.Timeout(s.options.requestTimeout), streams, middleware.Shed(s.limiter))
	if s.options.bodyLimit > 0 {
		around = append(around, middleware.BodyLimit(s.options.bodyLimit))
	}
	app := middleware.Chain(middleware.Chain(middleware.Routes(s.mux), s.use...), around...)
	own := s.own()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := own[r.URL.Path]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		app.ServeHTTP(w, r)
	})
}

// named says which instance answered: a registry node that probes must not
// take another process at the same address for this one.
func (s *Service) named(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := s.Instance(); id != "" {
			w.Header().Set(registry.InstanceHeader, id)
		}
		h.ServeHTTP(w, r)
	})
}

// nobody is a fleet without services.
type nobody struct{}

func (nobody) Endpoints(string) *balance.Set { return nil }
