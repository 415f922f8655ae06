package middleware

import (
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/telemetry"
)

// maxLogged is how many bytes of a client's text go into a log record.
const maxLogged = 1024

// shedEvery is of how many requests that were refused for overload one is logged.
const shedEvery = 100

// AccessLogOptions says which requests to log. The zero value logs all.
type AccessLogOptions struct {
	// Every logs one in so many requests; 0 and 1 mean all. Requests answered
	// with 500 to 599, cut off, or slow are logged always.
	Every int
	// Slow is the duration from which a request is logged always; 0 means that
	// none is slow.
	Slow time.Duration
	// Skip leaves out requests it says yes to, such as health probes. It must be
	// safe for concurrent use.
	Skip func(*http.Request) bool
	// Query logs the query string. Tokens and personal data get into query
	// strings, so it is off unless you know that yours have none.
	Query bool
}

// AccessLog writes one record for each request when it is over: method, route,
// path, status, bytes (of the body), duration_ms, request_id and remote, the
// peer's address. Headers are never logged. A response that was cut off after
// its header went out has aborted=true; status 499 means that the client left
// before. Records of 500 to 599, and of responses cut off while the client was
// there, are errors, all others are information. Of the requests that [Shed]
// refused one in 100 is logged, as a warning with shed=true: an overloaded service
// has better to do, and the metrics count them all.
//
// A nil logger is [slog.Default].
func AccessLog(logger *slog.Logger, opts AccessLogOptions) Middleware {
	if logger == nil {
		logger = slog.Default()
	}
	return func(next http.Handler) http.Handler {
		var seen, shed atomic.Uint64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if opts.Skip != nil && opts.Skip(r) {
				next.ServeHTTP(w, r)
				return
			}
			rec := record(w, r)
			returned := false
			start := clock()
			method, path := r.Method, r.URL.Path // before anything inside rewrites them
			defer func() {
				duration := clock() - start
				status := rec.result(r.Context(), returned)
				if status == 0 {
					status = statusClientGone
				}
				aborted := !returned && rec.begun()
				level := slog.LevelInfo
				if status >= 500 || aborted && !clientGone(r.Context()) {
					level = slog.LevelError
				}
				must := aborted || level == slog.LevelError || opts.Slow > 0 && duration >= opts.Slow
				every, counter := opts.Every, &seen
				if rec.shed && !aborted {
					level, must = slog.LevelWarn, false
					every, counter = max(every, shedEvery), &shed
				}
				if !must && every > 1 && (counter.Add(1)-1)%uint64(every) != 0 {
					return
				}
				ctx := rec.context(r)
				if !logger.Enabled(ctx, level) {
					return
				}
				attrs := make([]slog.Attr, 0, 11)
				attrs = append(attrs,
					slog.String("method", clip(method)),
					slog.String("route", rec.route(r)),
					slog.String("path", clip(path)),
					slog.Int("status", status),
					slog.Int64("bytes", rec.bytes),
					slog.Float64("duration_ms", float64(duration.Microseconds())/1e3),
					slog.String("remote", r.RemoteAddr),
				)
				if id := rec.Header().Get(HeaderRequestID); id != "" {
					attrs = append(attrs, slog.String(telemetry.LogRequestID, id))
				}
				if opts.Query && r.URL.RawQuery != "" {
					attrs = append(attrs, slog.String("query", clip(r.URL.RawQuery)))
				}
				if rec.shed {
					attrs = append(attrs, slog.Bool("shed", true))
				}
				if aborted {
					attrs = append(attrs, slog.Bool("aborted", true))
				}
				logger.LogAttrs(ctx, level, "request", attrs...)
			}()
			next.ServeHTTP(rec, r)
			returned = true
		})
	}
}

func clip(s string) string {
	if len(s) > maxLogged {
		return s[:maxLogged] + "…"
	}
	return s
}
