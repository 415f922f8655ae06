package middleware

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/keelson-go/keelson/telemetry"
)

// statusClientGone is what the access log says when the client left before the
// response: nginx's 499, which is no HTTP status and never sent.
const statusClientGone = 499

// recorder notes what goes through a ResponseWriter. One is shared by all
// middleware around a request, and has room for the request's trace and for the
// request that carries it in its context, so that all are one allocation.
type recorder struct {
	w        http.ResponseWriter
	status   int   // of the final header, 0 before it went out
	bytes    int64 // of the body, as the client gets them
	head     bool  // a HEAD request: what is written is not sent
	unseen   bool  // the client had left before the final header
	hijacked bool
	switched time.Duration // on the clock, when it was hijacked
	pattern  string        // that Routes found, for when the request outside does not have it

	place place // among the requests under way, see Shed
	shed  bool  // there was none

	waiting *patience // of the caller, for the answer to begin; or nil

	trace  telemetry.TraceContext
	traced http.Request
	ctx    context.Context // the one that knows most about the request, or nil
	base   context.Context // the request's outermost: it ends early if the client leaves
}

// record returns w's recorder, a new one if w is none.
func record(w http.ResponseWriter, r *http.Request) *recorder {
	if rec, ok := w.(*recorder); ok {
		return rec
	}
	return &recorder{w: w, head: r.Method == http.MethodHead, base: r.Context()}
}

// know keeps ctx for the log records of middleware outside. It does nothing if w
// is no recorder.
func know(ctx context.Context, w http.ResponseWriter) {
	if rec, ok := w.(*recorder); ok {
		rec.ctx = ctx
	}
}

// context returns the context that knows most about the request.
func (rec *recorder) context(r *http.Request) context.Context {
	if rec.ctx != nil {
		return rec.ctx
	}
	return r.Context()
}

// withTrace returns r with t in its context, in the recorder itself if there is
// room.
func (rec *recorder) withTrace(r *http.Request, t telemetry.Trace) *http.Request {
	if rec.trace.Context != nil {
		return r.WithContext(telemetry.ContextWithTrace(r.Context(), t))
	}
	rec.trace = telemetry.TraceContext{Context: r.Context(), Trace: t}
	rec.traced = *r.WithContext(&rec.trace)
	return &rec.traced
}

// route returns the route of a request, which is known when its handler has
// returned.
func (rec *recorder) route(r *http.Request) string {
	return telemetry.RouteOf(cmp.Or(r.Pattern, rec.pattern))
}

// Begun implements [Response].
func (rec *recorder) Begun() bool { return rec.begun() }

// begun tells whether it is too late for another response.
func (rec *recorder) begun() bool { return rec.status != 0 || rec.hijacked }

// result is the response's status in the end: of a handler that returned or
// panicked, of a request whose context is ctx. 0 means that none went out.
func (rec *recorder) result(ctx context.Context, returned bool) int {
	switch {
	case rec.unseen:
		return 0
	case rec.status != 0:
		return rec.status
	case rec.hijacked:
		return http.StatusSwitchingProtocols
	case clientGone(ctx):
		return 0
	case !returned:
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// clientGone tells whether the client has left; ctx is that of the request as the
// server gave it, which is cancelled before the handler's end for no other reason.
func clientGone(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// sent notes a final header, and whether the client was gone before it. What a
// handler says then, mostly that its own calls were cancelled, goes to nobody.
func (rec *recorder) sent(status int, unseen bool) {
	if !rec.begun() {
		rec.status, rec.unseen = status, unseen
		rec.waiting.lift()
	}
}

// late tells whether a header that went out now would find no client.
func (rec *recorder) late() bool { return !rec.begun() && clientGone(rec.base) }

// wrote notes a piece of the body.
func (rec *recorder) wrote(n int64) {
	if !rec.head {
		rec.bytes += n
	}
}

func (rec *recorder) Header() http.Header { return rec.w.Header() }

func (rec *recorder) WriteHeader(status int) {
	late := rec.late()
	rec.w.WriteHeader(status) // first: it panics over an impossible status
	if status >= 200 || status == http.StatusSwitchingProtocols {
		rec.sent(status, late)
	}
}

func (rec *recorder) Write(b []byte) (int, error) {
	rec.sent(http.StatusOK, rec.late())
	n, err := rec.w.Write(b)
	rec.wrote(int64(n))
	return n, err
}

func (rec *recorder) WriteString(s string) (int, error) {
	rec.sent(http.StatusOK, rec.late())
	n, err := io.WriteString(rec.w, s)
	rec.wrote(int64(n))
	return n, err
}

// ReadFrom lets the server copy files without passing them through this process.
func (rec *recorder) ReadFrom(src io.Reader) (n int64, err error) {
	// An empty source sends nothing, not even the header. If the source panics
	// nobody knows what was sent, and then it is safe to take it that something was.
	begun, late := true, rec.late()
	defer func() {
		if begun {
			rec.sent(http.StatusOK, late)
		}
	}()
	if w, ok := rec.w.(io.ReaderFrom); ok {
		n, err = w.ReadFrom(src)
	} else {
		n, err = io.Copy(onlyWriter{rec.w}, src)
	}
	rec.wrote(n)
	begun = n > 0
	return n, err
}

// onlyWriter keeps io.Copy from looking for ReadFrom again.
type onlyWriter struct{ io.Writer }

// Flush sends what was written so far; see FlushError.
func (rec *recorder) Flush() { _ = rec.FlushError() }

// FlushError is Flush for a ResponseController. It sends the header, too.
func (rec *recorder) FlushError() error {
	late := rec.late()
	err := http.NewResponseController(rec.w).Flush()
	if !errors.Is(err, http.ErrNotSupported) {
		rec.sent(http.StatusOK, late)
		if rec.place.taken && strings.HasPrefix(rec.Header().Get("Content-Type"), "text/event-stream") {
			rec.place.leave()
		}
	}
	return err
}

// Hijack takes the connection out of the server's hands.
func (rec *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(rec.w).Hijack()
	if err == nil {
		rec.hijacked, rec.switched = true, clock()
		rec.place.leave()
		rec.waiting.lift()
	}
	return conn, rw, err
}

// Unwrap gives a ResponseController all the rest.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.w }
