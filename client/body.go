package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// body is a request's body, lent to one attempt at a time. A transport closes
// the body of a failed attempt, perhaps later; the caller's must outlive that
// when it was not touched and another attempt will send it.
type body struct {
	source io.ReadCloser
	loan   *loan
}

// newBody returns nil for a request without a body; a nil *body does nothing.
func newBody(req *http.Request) *body {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	return &body{source: req.Body}
}

// closeBody closes the body of a request that is not sent: a RoundTripper must.
func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // what it says is of no use to a caller whose request failed
	}
}

func (b *body) lend() io.ReadCloser {
	b.loan = &loan{source: b.source}
	return b.loan
}

// rewind makes the body ready for another attempt, and reports whether that is
// possible.
func (b *body) rewind(req *http.Request) bool {
	if b == nil || b.loan == nil {
		return true
	}
	if !b.loan.recall() {
		b.loan = nil
		return true // untouched: it can be lent again
	}
	if req.GetBody == nil {
		return false
	}
	again, err := req.GetBody()
	if err != nil {
		return false
	}
	_ = b.source.Close() // of an attempt that failed
	b.source, b.loan = again, nil
	return true
}

// settle hands the body over to the last attempt, whose transport closes it,
// or closes it when there was none.
func (b *body) settle() {
	switch {
	case b == nil:
	case b.loan == nil:
		_ = b.source.Close() // nobody has it
	default:
		b.loan.keep()
	}
}

var errRecalled = errors.New("client: the body went on to another attempt")

// loan is the body as one attempt sees it.
type loan struct {
	source io.ReadCloser

	mu       sync.Mutex
	touched  bool
	recalled bool
	kept     bool
	closed   bool
}

func (l *loan) Read(p []byte) (int, error) {
	l.mu.Lock()
	if l.recalled {
		l.mu.Unlock()
		return 0, errRecalled
	}
	l.touched = true
	l.mu.Unlock()
	return l.source.Read(p)
}

// Close closes the source only once it is sure that no other attempt needs it.
func (l *loan) Close() error {
	l.mu.Lock()
	l.closed = true
	now := l.kept
	l.mu.Unlock()
	if now {
		return l.source.Close()
	}
	return nil
}

// recall ends the loan and reports whether the body was touched.
func (l *loan) recall() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recalled = true
	return l.touched
}

// keep makes the loan final.
func (l *loan) keep() {
	l.mu.Lock()
	l.kept = true
	now := l.closed
	l.mu.Unlock()
	if now {
		_ = l.source.Close() // its reader has gone already
	}
}

// countBody ends the endpoint's call when the answer's body is closed or read
// to its end.
func countBody(rc io.ReadCloser, ep *balance.Endpoint, took time.Duration, failed bool) io.ReadCloser {
	counted := &answer{ReadCloser: rc, endpoint: ep, took: took, failed: failed}
	if rw, ok := rc.(io.ReadWriteCloser); ok { // 101 Switching Protocols: both ways
		return &tunnel{counted, rw}
	}
	return counted
}

type answer struct {
	io.ReadCloser
	endpoint *balance.Endpoint
	took     time.Duration
	failed   bool
	ended    atomic.Bool
}

func (a *answer) end(failed bool) {
	if a.ended.CompareAndSwap(false, true) {
		a.endpoint.End(a.took, a.failed || failed)
	}
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil {
		// An answer that breaks off is a failure, unless the caller broke it off.
		a.end(!errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled))
	}
	return n, err
}

func (a *answer) Close() error {
	a.end(false)
	return a.ReadCloser.Close()
}

type tunnel struct {
	*answer
	w io.Writer
}

func (t *tunnel) Write(p []byte) (int, error) { return t.w.Write(p) }
