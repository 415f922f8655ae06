package middleware

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/keelson-go/keelson/problem"
)

// DefaultBodyLimit is the limit [BodyLimit] takes if it is given none.
const DefaultBodyLimit = 1 << 20

// BodyLimit refuses request bodies of more than n bytes, DefaultBodyLimit if n is
// 0 or less. One whose Content-Length says so gets a 413 problem at once. Of
// others, reading past the limit fails with [http.MaxBytesError], which
// problem.From makes a 413 of; if the handler then returns without having
// answered, BodyLimit answers 413.
func BodyLimit(n int64) Middleware {
	if n <= 0 {
		n = DefaultBodyLimit
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > n {
				// What is left of the body would have to be read before the next
				// request on this connection.
				if r.ProtoMajor == 1 {
					w.Header().Set("Connection", "close")
				}
				answer(r.Context(), w, r, problem.From(&http.MaxBytesError{Limit: n}))
				return
			}
			if r.Body == nil || r.Body == http.NoBody {
				next.ServeHTTP(w, r)
				return
			}
			rec := record(w, r)
			// MaxBytesReader closes the connection after the answer only if it is
			// given the server's own ResponseWriter.
			body := &limitedBody{ReadCloser: http.MaxBytesReader(innermost(rec), r.Body, n)}
			r.Body = body
			next.ServeHTTP(rec, r)
			if body.exceeded.Load() && !rec.begun() {
				answer(rec.context(r), rec, r, problem.From(&http.MaxBytesError{Limit: n}))
			}
		})
	}
}

// limitedBody remembers that its limit was reached. A proxy's transport may
// still be reading it when the handler has returned.
type limitedBody struct {
	io.ReadCloser
	exceeded atomic.Bool
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		b.exceeded.Store(true)
	}
	return n, err
}

func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}
