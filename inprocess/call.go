package inprocess

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
)

// call is one request and its answer. It is one allocation, and not reused: both
// sides may keep parts of it.
type call struct {
	server     *Server
	prev, next *call // under way, under the server's lock
	caller     *http.Request

	request  http.Request // as the handler gets it
	url      url.URL
	body     requestBody // nil if there is none
	streamed *streamed   // the body, if it is of that kind
	cancel   context.CancelFunc

	writer   writer
	out      pipe          // the answer's body, where it comes in pieces
	response http.Response // as the caller gets it
	whole    whole         // its body, one of these
	pieces   pieces
	ready    chan struct{} // closed when response or err is there
	err      error         // why there is no response

	mu        sync.Mutex
	delivered bool  // ready is closed
	aborted   error // why the call broke off
}

// newCall makes the handler's request of the caller's.
func (s *Server) newCall(req *http.Request) (*call, error) {
	c := &call{server: s, caller: req, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(s.base)
	c.cancel = cancel
	c.request = *new(http.Request).WithContext(ctx)
	if err := c.receive(req); err != nil {
		cancel()
		return nil, err
	}
	switch n := c.request.ContentLength; {
	case n == 0:
		c.request.Body = http.NoBody
		if req.Body != nil {
			_ = req.Body.Close() // there is nothing in it
		}
	case req.GetBody != nil:
		b := &replayable{call: c, source: req.Body, reader: checked{Reader: req.Body, announced: n}}
		c.body, c.request.Body = b, b
	default:
		b := &streamed{call: c, source: req.Body, reader: checked{Reader: req.Body, announced: n}}
		b.in.init()
		c.streamed, c.body, c.request.Body = b, b, b
	}
	c.out.init()
	c.writer.call, c.pieces.call = c, c
	return c, nil
}

// serve runs the handler.
func (c *call) serve() {
	returned := false
	defer func() {
		if !returned {
			c.panicked(recover())
		}
		c.cancel()
		if c.writer.timed {
			c.out.stopTimers()
		}
		if c.body != nil {
			c.body.release(http.ErrBodyReadAfterClose)
		}
	}()
	if c.streamed != nil && !strings.EqualFold(first(c.request.Header, "Expect"), "100-continue") {
		c.streamed.start()
	}
	c.server.handler.ServeHTTP(&c.writer, &c.request)
	returned = true
	if form := c.request.MultipartForm; form != nil {
		_ = form.RemoveAll() // its files, as net/http does
	}
	c.writer.finish()
}

// panicked breaks the answer off, as a connection would break: what was written is
// there to be read, and then there is an error. The cause is nil for runtime.Goexit.
func (c *call) panicked(cause any) {
	c.fail(errBroken)
	c.out.finish(errBroken)
	if cause != nil && cause != http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
		c.server.log.Error("inprocess: handler panicked", slog.String("method", c.request.Method),
			slog.String("path", c.url.Path), slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))
	}
}

// deliver hands the response to the caller, unless the call has broken off.
func (c *call) deliver() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted != nil {
		return c.aborted
	}
	c.delivered = true
	close(c.ready)
	return nil
}

// fail notes that the call has broken off, and tells the caller if it still waits.
// Only the first call counts.
func (c *call) fail(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted != nil {
		return false
	}
	c.aborted = err
	if !c.delivered {
		c.delivered, c.err = true, err
		close(c.ready)
	}
	return true
}

// abort breaks the call off: the caller gets err, at once, and the handler is told
// by its context and by what it reads and writes. Only the first call counts.
func (c *call) abort(err error) {
	if !c.fail(err) {
		return
	}
	c.cancel()
	c.out.drop(err)
	if c.body != nil {
		c.body.release(errBroken)
	}
}

// receiveTrailer fills in the request's trailer when its body has been read.
// What of it the caller has set only by now was not checked yet.
func (c *call) receiveTrailer() error {
	if len(c.request.Trailer) == 0 {
		return nil
	}
	sent, values, _ := copyHeader(c.caller.Trailer, 0)
	if values.bad != "" {
		c.abort(fmt.Errorf("inprocess: invalid trailer value for %q", values.bad))
		return errBroken
	}
	for name := range c.request.Trailer {
		c.request.Trailer[name] = sent[name]
	}
	return nil
}
