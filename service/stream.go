package service

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/keelson-go/keelson/middleware"
)

// ErrDraining is the [context.Cause] of a stream's context that ended because
// the service stops; see [Stream].
var ErrDraining = errors.New("the service is draining")

type drainKey struct{}

// Draining returns a channel that is closed when the service that serves the
// request of ctx stops and lets requests finish: after the listener has closed.
// It is nil where no service is. Handlers that could go on for long watch it; of
// streams the context ends then, see [Stream].
func Draining(ctx context.Context) <-chan struct{} {
	if drain, ok := ctx.Value(drainKey{}).(context.Context); ok {
		return drain.Done()
	}
	return nil
}

// Stream is middleware for routes whose responses have no end of their own, and
// would hold up the stop of the service: when the service lets requests finish
// (see [Draining]), the request's context ends, with the cause [ErrDraining]. Nor
// do they count for the limit of concurrent requests ([WithConcurrencyLimit]).
//
// Requests with "Accept: text/event-stream", as browsers' EventSource sends
// them, and for a WebSocket are treated so on every route, and do not count from
// when the stream begins. All other requests may take what is left of the stop's
// time. Routes of long polls want Stream, too.
func Stream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		middleware.BeginStream(w)
		drain, ok := r.Context().Value(drainKey{}).(context.Context)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		defer context.AfterFunc(drain, func() { cancel(ErrDraining) })()
		inner := r.WithContext(ctx)
		defer func() { r.Pattern = inner.Pattern }()
		next.ServeHTTP(w, inner)
	})
}

// streams is Stream for the requests that say themselves that they are one.
func streams(next http.Handler) http.Handler {
	stream := Stream(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" || strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			stream.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
