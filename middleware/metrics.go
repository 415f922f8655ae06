package middleware

import (
	"net/http"

	"github.com/keelson-go/keelson/telemetry"
)

// Metrics measures each request: its duration by method, route and status, and
// how many are in progress. With a nil Telemetry it measures nothing.
//
// It costs neither locks nor allocations beyond the recorder it shares with the
// other middleware.
func Metrics(t *telemetry.Telemetry) Middleware {
	metrics := t.Server()
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := record(w, r)
			returned := false
			method := r.Method // before anything inside rewrites it
			metrics.Route(method, "").Begin()
			start := clock()
			defer func() {
				end := rec.switched
				if !rec.hijacked {
					end = clock()
				}
				metrics.Route(method, rec.route(r)).End(rec.result(r.Context(), returned), end-start)
			}()
			next.ServeHTTP(rec, r)
			returned = true
		})
	}
}
