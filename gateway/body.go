package gateway

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/problem"
)

// lingerTimeout is how long a client may take to send the rest of a body nobody
// wants. Without it a client that stops sending would keep its connection for ever.
const lingerTimeout = 2 * time.Second

// interruptGrace is how long a read may still wait for the client when its bytes
// are of no use any more. A client that is sending ends the read in that time; one
// that isn't has it ended. See [requestBody.end].
const interruptGrace = 100 * time.Millisecond

// requestBody is the client's body on its way to the upstream. The transport
// reads it in a goroutine of its own.
type requestBody struct {
	io.ReadCloser
	x       *exchange
	out     *http.Request
	left    int64 // bytes that may still come; negative means any number
	max     int64
	mu      sync.Mutex            // held by Read
	ended   atomic.Bool           // Read has nothing more to give
	reading atomic.Bool           // a Read waits for the client
	done    atomic.Bool           // all of it has been read
	failed  atomic.Pointer[error] // why it could not be read
}

// errBodyEnded is what reads after the end of the exchange get.
var errBodyEnded = errors.New("gateway: the request has ended")

// limitBody refuses a body that is known to be too long before it comes.
func (x *exchange) limitBody() error {
	limit := x.Route.MaxBody
	switch {
	case limit == 0 && x.isGRPC():
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
	if b.ended.Load() {
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

// interrupt makes the read that waits for the client end, if one does.
func (b *requestBody) interrupt() {
	if b.unread() {
		b.ended.Store(true)
		_ = b.x.stopReading(time.Now().Add(interruptGrace))
	}
}

// end ends reading from the body, which the transport may still do when it has
// given the answer. It returns when nobody reads any more. If answered is true the
// client gets the answer now, and is left lingerTimeout to send what it has begun
// to: many look for an answer only then, and a connection that is closed over
// bytes nobody has read is reset, which may take the answer with it.
//
// A read must not be made to fail for that: what decodes a chunked body fails for
// ever after, and net/http then can't drain the little it does itself, nor wait
// for the client to see the answer before it closes. So the read under way is left
// to the client, which ends it by sending.
func (b *requestBody) end(answered bool) {
	if !b.unread() {
		return
	}
	b.ended.Store(true)
	linger := answered && b.x.in.ProtoMajor == 1
	patience := time.Now()
	if linger {
		patience = patience.Add(lingerTimeout)
	}
	if b.x.stopReading(patience) != nil {
		return
	}
	if linger {
		_ = b.x.out.FlushError() // a client that has gone needs no drain, and reading tells
	}
	b.mu.Lock() // the read under way has ended, and there is no other
	rest := b.left
	b.mu.Unlock()
	if !linger {
		return
	}
	// No more than the route would have taken anyway, and not for long. A client
	// that reads as it sends, as Go's, closes the connection long before that.
	if rest < 0 {
		rest = DefaultMaxBody
	}
	_, _ = io.CopyN(io.Discard, b.x.in.Body, rest)
}

// stopReading ends reading from the client at t. The error is of a ResponseWriter
// that can't; then there is no connection to protect.
func (x *exchange) stopReading(t time.Time) error {
	return http.NewResponseController(x.out.ResponseWriter).SetReadDeadline(t)
}
