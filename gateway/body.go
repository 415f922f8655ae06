package gateway

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/problem"
)

// lingerTimeout is how long a client may take to send the rest of a body nobody
// wants. Without it a client that stops sending would keep its connection for ever.
const lingerTimeout = 2 * time.Second

// requestBody is the client's body on its way to the upstream. The transport
// reads it in a goroutine of its own.
type requestBody struct {
	io.ReadCloser
	x       *exchange
	out     *http.Request
	left    int64 // bytes that may still come; negative means any number
	max     int64
	mu      sync.Mutex            // held by Read
	ended   bool                  // Read has nothing more to give
	reading atomic.Bool           // a Read waits for the client
	done    atomic.Bool           // all of it has been read
	failed  atomic.Pointer[error] // why it could not be read
}

// errBodyEnded is what reads after the end of the exchange get.
var errBodyEnded = errors.New("gateway: the request has ended")

func isGRPC(h Header) bool {
	return strings.HasPrefix(h.Get("Content-Type"), "application/grpc")
}

// limitBody refuses a body that is known to be too long before it comes.
func (x *exchange) limitBody() error {
	limit := x.Route.MaxBody
	switch {
	case limit == 0 && isGRPC(x.Header):
		limit = -1
	case limit == 0:
		limit = DefaultMaxBody
	}
	x.reqBody.max, x.reqBody.left = limit, limit
	if limit >= 0 && x.in.ContentLength > limit {
		return tooLarge(limit)
	}
	return nil
}

func tooLarge(limit int64) *problem.Problem {
	return problem.New(http.StatusRequestEntityTooLarge, problem.CodeTooLarge, fmt.Sprintf("The body is over %d bytes.", limit))
}

// attach puts the body between the client and the upstream's request.
func (b *requestBody) attach(x *exchange, out *http.Request) {
	if out.Body == nil || out.Body == http.NoBody {
		return
	}
	// Else an HTTP/1 server reads the rest of the body before it answers, and
	// neither could stream. It must not go on to a next request after that.
	_ = http.NewResponseController(x.out.ResponseWriter).EnableFullDuplex()
	b.ReadCloser, b.x, b.out = out.Body, x, out
	out.Body = b
	// A trailer could bring a header in by the back door.
	out.Trailer = maps.Clone(x.in.Trailer)
	maps.DeleteFunc(out.Trailer, func(name string, _ []string) bool { return !x.Forwards(name) })
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errBodyEnded
	}
	b.reading.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.reading.Store(false)
	b.x.call.progress()
	if b.left >= 0 {
		if int64(n) > b.left {
			n, err = int(b.left), &http.MaxBytesError{Limit: b.max}
		}
		b.left -= int64(n)
	}
	switch {
	case err == io.EOF:
		b.done.Store(true)
		for name := range b.out.Trailer {
			b.out.Trailer[name] = slices.Clone(b.x.in.Trailer[name])
		}
	case err != nil:
		b.failed.Store(&err)
	}
	return n, err
}

// fault is the answer if it was the body that failed, or nil.
func (b *requestBody) fault() *problem.Problem {
	err := b.failed.Load()
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](*err); ok {
		return tooLarge(b.max)
	}
	return problem.New(http.StatusBadRequest, problem.CodeMalformed, "The body broke off or is not framed as HTTP asks.")
}

// unread reports whether the upstream may not have got all of the body.
func (b *requestBody) unread() bool { return b.x != nil && !b.done.Load() }

// interrupt makes the read that waits for the client fail, if one does.
func (b *requestBody) interrupt() {
	if b.unread() {
		_ = b.x.stopReading(time.Now())
	}
}

// end ends reading from the body, which the transport may still do when it has
// given the answer, and leaves the client lingerTimeout to send what it has begun
// to: net/http drains a little of it, so that the client gets to see the answer.
func (b *requestBody) end() {
	if !b.unread() || b.x.stopReading(time.Now()) != nil {
		return
	}
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	if b.x.in.ProtoMajor == 1 {
		_ = b.x.stopReading(time.Now().Add(lingerTimeout))
	}
}

// stopReading ends reading from the client at t. The error is of a ResponseWriter
// that can't; then there is no connection to protect.
func (x *exchange) stopReading(t time.Time) error {
	return http.NewResponseController(x.out.ResponseWriter).SetReadDeadline(t)
}

// hasBody reports whether the client sends a body.
func (x *exchange) hasBody() bool {
	return x.in.ContentLength != 0 && x.in.Body != nil && x.in.Body != http.NoBody
}
