package middleware

import (
	"context"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
)

// A Middleware puts something around a handler.
type Middleware = func(http.Handler) http.Handler

// Chain puts middleware around h; the first is the outermost.
func Chain(h http.Handler, around ...Middleware) http.Handler {
	for i := len(around) - 1; i >= 0; i-- {
		h = around[i](h)
	}
	return h
}

// pass serves inner, a copy of r with another context, and hands its route back
// to the middleware outside, even if the handler panics.
func pass(next http.Handler, w http.ResponseWriter, r, inner *http.Request) {
	defer func() { r.Pattern = inner.Pattern }()
	next.ServeHTTP(w, inner)
}

// answer writes a problem that names the request's trace.
func answer(ctx context.Context, w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	if t, ok := telemetry.TraceFrom(ctx); ok {
		p.TraceID = t.TraceIDString()
	}
	problem.Write(w, r, p)
}

// epoch is where the clock starts. Reading the time since it is half the price of
// time.Now, which asks for the wall clock too.
var epoch = time.Now()

func clock() time.Duration { return time.Since(epoch) }
