package middleware

import (
	"net/http"

	"github.com/keelson-go/keelson/telemetry"
)

// A TraceOption changes what [Trace] does.
type TraceOption func(*tracing)

type tracing struct {
	trusts func(*http.Request) bool
}

// TrustTrace takes trace headers only from requests that trusts says yes to, for
// the edge. Of others, traceparent, tracestate and baggage are removed from the
// request, so that nothing behind passes them on.
func TrustTrace(trusts func(*http.Request) bool) TraceOption {
	return func(t *tracing) { t.trusts = trusts }
}

// Trace gives each request its span in the trace its traceparent header names, or
// in a new one that is not sampled (W3C Trace Context level 2). The span is in
// the request's context, for [telemetry.TraceFrom] and the logs. All callers are
// believed unless TrustTrace says otherwise.
func Trace(opts ...TraceOption) Middleware {
	var t tracing
	for _, set := range opts {
		set(&t)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := record(w, r)
			if t.trusts != nil && !t.trusts(r) {
				r.Header.Del(telemetry.HeaderTraceparent)
				r.Header.Del(telemetry.HeaderTracestate)
				r.Header.Del("Baggage")
			}
			caller, _ := telemetry.ExtractTrace(r.Header) // the child of none is a new one
			inner := rec.withTrace(r, caller.Child())
			rec.ctx = inner.Context()
			pass(next, rec, r, inner)
		})
	}
}
