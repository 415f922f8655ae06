package middleware

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/problem"
)

// Timeout gives the request's context a deadline: limit, and what the caller waits,
// if it said so, as [deadline.Caller] tells. A limit of 0 or less is none.
//
// The caller's time is for the answer to begin. When its header has gone out the
// deadline is taken off, so that downloads and streams may take longer; a caller that
// wants no more of one hangs up, which ends the context too. A context that a handler
// has made of the request's before, with a later deadline of its own, loses that one
// as well (context.WithDeadline starts no timer beside an earlier one): bound a stream
// by a context made after its header. The limit is for all of the answer: leave it off
// the routes of streams.
//
// A caller whose time is over already (Request-Timeout or grpc-timeout of 0, or
// less) gets a 504 problem at once. So does one whose handler returned without
// an answer after the deadline. The response is not buffered and no handler is
// left running: it is for the handler to heed its context.
func Timeout(limit time.Duration) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left, told := deadline.Caller(r.Header.Values)
			if told && left == 0 {
				answer(r.Context(), w, r, problem.New(http.StatusGatewayTimeout, problem.CodeDeadline,
					"The time the caller gave this request was over when it arrived."))
				return
			}
			// One further out has the caller's deadline already, and it is not later.
			if rec, ok := w.(*recorder); ok && rec.waiting != nil {
				told = false
			}
			if !told && limit <= 0 {
				next.ServeHTTP(w, r)
				return
			}
			rec := record(w, r)
			ctx := r.Context()
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			if told && (limit <= 0 || left < limit) {
				rec.waiting = wait(ctx, left)
				defer rec.waiting.stop()
				ctx = rec.waiting
			}
			pass(next, rec, r, r.WithContext(ctx))
			if !rec.begun() && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				answer(rec.context(r), rec, r, problem.From(context.DeadlineExceeded))
			}
		})
	}
}
