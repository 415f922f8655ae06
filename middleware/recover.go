package middleware

import (
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/keelson-go/keelson/problem"
)

// Recover turns a handler's panic into a 500 problem and logs it with its stack,
// once; the client learns neither. If the response's header has gone out already
// the connection is cut by [http.ErrAbortHandler], so that the client can't take
// what it has for the whole. A handler's own http.ErrAbortHandler passes as it is,
// and is not logged.
//
// A nil logger is [slog.Default].
func Recover(logger *slog.Logger) Middleware {
	if logger == nil {
		logger = slog.Default()
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := record(w, r)
			defer func() {
				cause := recover()
				if cause == nil {
					return
				}
				if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
					panic(cause)
				}
				ctx := rec.context(r)
				logger.LogAttrs(ctx, slog.LevelError, "handler panicked",
					slog.String("method", clip(r.Method)),
					slog.String("path", clip(r.URL.Path)),
					slog.Any("panic", cause),
					slog.String("stack", string(debug.Stack())))
				if rec.begun() {
					panic(http.ErrAbortHandler)
				}
				answer(ctx, rec, r, problem.New(http.StatusInternalServerError, problem.CodeInternal,
					"The request failed because of an error inside the service."))
			}()
			next.ServeHTTP(rec, r)
		})
	}
}
