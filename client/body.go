package client

import (
	"errors"
	"io"
	"net/http"
	"sync"
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

// lend returns the body for an attempt; none if there is no body.
func (b *body) lend(none io.ReadCloser) io.ReadCloser {
	if b == nil {
		return none
	}
	b.loan = &loan{source: b.source}
	return b.loan
}

// rewindable reports whether rewind has a chance.
func (b *body) rewindable(req *http.Request) bool {
	return b == nil || b.loan == nil || req.GetBody != nil || b.loan.untouched()
}

// rewind makes the body ready for another attempt. If it can't, the attempt before
// keeps what it has.
func (b *body) rewind(req *http.Request) bool {
	if b == nil || b.loan == nil {
		return true
	}
	if b.loan.recallUntouched() {
		b.loan = nil
		return true // it can be lent again
	}
	if req.GetBody == nil {
		return false
	}
	again, err := req.GetBody()
	if err != nil {
		return false
	}
	b.loan.recall()
	b.loan.keep() // its transport may be reading, and closes it when it has seen the end
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

// recall ends the loan.
func (l *loan) recall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recalled = true
}

func (l *loan) untouched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.touched
}

// recallUntouched ends the loan, and reports true, if nothing was read.
func (l *loan) recallUntouched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recalled = !l.touched
	return l.recalled
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
