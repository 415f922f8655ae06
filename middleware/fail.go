package middleware

import (
	"errors"
	"net/http"

	"github.com/keelson-go/keelson/problem"
)

// A Response is a ResponseWriter that knows what became of it.
type Response interface {
	http.ResponseWriter
	// Begun reports whether it is too late for another answer: the final header
	// went out, or the connection was hijacked.
	Begun() bool
}

// Record returns w as a Response: the one that the middleware here shares, or a
// new one around w.
func Record(w http.ResponseWriter, r *http.Request) Response { return record(w, r) }

// Fail answers a request with err, as problem.Write does, and names its trace. If
// the response has begun (see [Record]), it cuts the connection by a panic with
// [http.ErrAbortHandler] instead, so that the client can't take what it has for
// the whole; who calls Fail does nothing after.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	rec := record(w, r)
	if rec.begun() {
		panic(http.ErrAbortHandler)
	}
	if err == nil {
		err = errors.New("failed without an error")
	}
	answer(rec.context(r), rec, r, problem.From(err))
}
