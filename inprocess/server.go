package inprocess

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
)

// errClosed is what calls get from a server that takes none any more. It looks like
// a port that nobody listens on, so that clients go elsewhere: nothing was sent.
var errClosed error = &net.OpError{
	Op: "dial", Net: "inprocess",
	Err: os.NewSyscallError("connect", syscall.ECONNREFUSED),
}

// Why a call broke off; what one side gets as the other is gone.
var (
	errBroken = fmt.Errorf("inprocess: the call broke off: %w", io.ErrUnexpectedEOF)
	errGone   = fmt.Errorf("inprocess: the caller has gone: %w", syscall.EPIPE)
	errCut    = fmt.Errorf("inprocess: the server was closed: %w", syscall.ECONNRESET)
)

// Option changes a default of [NewServer].
type Option func(*Server)

// WithBaseContext sets the context that those of all calls are made from, as
// http.Server.BaseContext does: its values are the handlers', and when it ends, so
// do they. The default is context.Background.
func WithBaseContext(ctx context.Context) Option { return func(s *Server) { s.base = ctx } }

// WithAddr sets the address under which handlers find themselves called
// ([http.LocalAddrContextKey]); none by default.
func WithAddr(addr net.Addr) Option { return func(s *Server) { s.addr = addr } }

// WithLogger sets where panics of handlers and their misuse of a ResponseWriter are
// told; slog.Default by default.
func WithLogger(l *slog.Logger) Option { return func(s *Server) { s.log = l } }

// Server calls a handler of this process. It is an http.RoundTripper, and safe for
// concurrent use.
type Server struct {
	handler http.Handler
	base    context.Context
	addr    net.Addr
	log     *slog.Logger

	mu      sync.Mutex
	calls   *call // the first of those whose handlers run
	active  int   // goroutines that are at something
	closing bool
	over    chan struct{} // closed when closing and nothing is active

	// Goroutines stay for the next calls: a new one would have to grow its stack for
	// the handler again, which takes longer than the rest of a call.
	work    chan *call
	idle    int // of them; under mu
	workers sync.WaitGroup
}

// maxIdle is how many goroutines wait for calls: what comes at once in a burst of
// small calls, and a quarter of a megabyte at most.
const maxIdle = 32

// NewServer returns a server that calls h. It must be shut down, or closed, in the
// end: it keeps some goroutines for the next calls.
func NewServer(h http.Handler, opts ...Option) *Server {
	s := &Server{handler: h, base: context.Background(), log: slog.Default(), over: make(chan struct{}), work: make(chan *call)}
	for _, o := range opts {
		o(s)
	}
	if s.addr != nil {
		s.base = context.WithValue(s.base, http.LocalAddrContextKey, s.addr)
	}
	return s
}

// RoundTrip calls the handler. The answer's body must be closed, as ever; where that
// happens before its end, or the request's context ends, the handler's context ends,
// too. RoundTrip returns as soon as the context ends, with its cause, whatever the
// handler does.
//
// The error is [http.ErrSkipAltProtocol] for a request that needs a connection, whose
// body is then still the caller's; it matches [syscall.ECONNREFUSED] after Shutdown
// or Close, [io.ErrUnexpectedEOF] if the handler panicked, and [syscall.ECONNRESET]
// if Close has cut the call off.
func (s *Server) RoundTrip(req *http.Request) (*http.Response, error) {
	if needsConnection(req) {
		return nil, http.ErrSkipAltProtocol
	}
	ctx := req.Context()
	if err := check(req); err != nil {
		return nil, errors.Join(err, closeBody(req))
	}
	if ctx.Err() != nil {
		_ = closeBody(req) // the caller has gone
		return nil, context.Cause(ctx)
	}
	c, err := s.newCall(req)
	if err != nil {
		return nil, errors.Join(err, closeBody(req))
	}
	if !s.begin(c) {
		c.cancel()
		_ = closeBody(req) // untouched
		return nil, errClosed
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		err := context.Cause(ctx)
		c.abort(err)
		return nil, err
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.response.Body == &c.pieces && ctx.Done() != nil {
		c.pieces.unhook = context.AfterFunc(ctx, func() { c.abort(context.Cause(ctx)) })
	}
	return &c.response, nil
}

// closeBody closes the body of a request that is not sent, as a RoundTripper must.
func closeBody(req *http.Request) error {
	if req.Body == nil {
		return nil
	}
	return req.Body.Close()
}

// begin has a call's handler run, unless the server closes.
func (s *Server) begin(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.active++
	if c.streamed != nil {
		s.active++ // the goroutine that reads it
	}
	if c.next = s.calls; c.next != nil {
		c.next.prev = c
	}
	s.calls = c
	select {
	case s.work <- c:
		s.idle--
	default: // all are busy, or on their way
		s.workers.Add(1)
		go s.serve(c)
	}
	return true
}

// serve runs handlers, of c first.
func (s *Server) serve(c *call) {
	defer s.workers.Done()
	for c != nil && s.run(c) {
		c = <-s.work // nil when the server closes
	}
}

// run runs one handler, and reports whether its goroutine is to wait for another one.
func (s *Server) run(c *call) (stay bool) {
	exited := true // by runtime.Goexit
	defer func() { stay = s.end(c, exited) }()
	c.serve()
	exited = false
	return false // what end says
}

// end counts a call's handler out, and reports whether its goroutine, unless it has
// exited, is to stay.
func (s *Server) end(c *call, exited bool) (stay bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.next != nil {
		c.next.prev = c.prev
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		s.calls = c.next
	}
	c.prev, c.next = nil, nil
	s.left()
	if stay = !exited && !s.closing && s.idle < maxIdle; stay {
		s.idle++
	}
	return stay
}

// fork counts in a goroutine that helps another one. It fails where there is none.
func (s *Server) fork() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == 0 {
		return false
	}
	s.active++
	return true
}

// leave counts such a goroutine out.
func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left()
}

// left is the end of a goroutine; s.mu is held.
func (s *Server) left() {
	if s.active--; s.active == 0 && s.closing {
		close(s.over)
	}
}

// close refuses new calls from now on.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.closing = true
	close(s.work)
	if s.active == 0 {
		close(s.over)
	}
}

// Shutdown refuses new calls and waits until the handlers of all others have
// returned, and nothing of them is left. If ctx ends first, the error says how many
// calls there still are, and they go on; Close cuts them off. What a caller has
// not read yet of an answer stays readable. It may be called again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close()
	select {
	case <-s.over:
		s.workers.Wait() // they have nothing left to do
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	calls := 0
	for c := s.calls; c != nil; c = c.next {
		calls++
	}
	s.mu.Unlock()
	return fmt.Errorf("inprocess: calls still in progress: %d: %w", calls, context.Cause(ctx))
}

// Close refuses new calls and cuts off those under way: their callers get an error,
// and the handlers' contexts end. It does not wait for the handlers: Shutdown does,
// also after Close. It always returns nil.
func (s *Server) Close() error {
	s.close()
	s.mu.Lock()
	var cut []*call
	for c := s.calls; c != nil; c = c.next {
		cut = append(cut, c)
	}
	s.mu.Unlock()
	for _, c := range cut {
		c.abort(errCut)
	}
	return nil
}
