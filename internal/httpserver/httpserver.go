// Package httpserver runs an http.Server so that its stop is complete and
// bounded. net/http by itself forgets connections that were hijacked, waits for
// up to 5 s for a first request on a connection that is new, and leaves handlers
// running that were cut off.
package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// afterCut is how long handlers get to notice that they were cut off.
const afterCut = 500 * time.Millisecond

// Stop says how a server stops. The zero value waits for requests in progress
// for as long as they take.
type Stop struct {
	// Drain, if set, is called when the listener is about to close: to tell
	// endless responses that it is time to end.
	Drain func()
	// Grace returns a context that ends when requests still in progress are to
	// be cut. It is called once, when the stop begins.
	Grace func() (context.Context, context.CancelFunc)
}

// Run serves srv on l until ctx ends, lets requests finish, and returns when all
// have; it closes l. ready is called once it serves. The error is nil after a
// clean stop; otherwise it is why the server ended by itself, or says how many
// requests were cut. srv must not have been used before; its Handler, BaseContext
// and ConnState are called as ever.
func Run(ctx context.Context, ready func(), l net.Listener, srv *http.Server, stop Stop) error {
	s := &server{http: srv, fresh: map[net.Conn]struct{}{}}
	base, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	s.abandon = abandon
	s.wrap(base)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	ready()
	select {
	case err := <-served:
		if stop.Drain != nil {
			stop.Drain()
		}
		s.cut()
		return err
	case <-ctx.Done():
	}
	grace := context.WithoutCancel(ctx)
	if stop.Grace != nil {
		var cancel context.CancelFunc
		grace, cancel = stop.Grace()
		defer cancel()
	}
	if stop.Drain != nil {
		stop.Drain()
	}
	err := s.stop(grace)
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

type server struct {
	http     *http.Server
	requests atomic.Int64 // in progress, on hijacked connections too
	abandon  func()       // ends the contexts of all requests

	mu      sync.Mutex
	fresh   map[net.Conn]struct{} // that have sent no request yet
	closing bool
}

// wrap puts our bookkeeping around the server's own settings.
func (s *server) wrap(base context.Context) {
	handler, parent, state := s.http.Handler, s.http.BaseContext, s.http.ConnState
	s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		defer s.requests.Add(-1)
		handler.ServeHTTP(w, r)
	})
	s.http.BaseContext = func(l net.Listener) context.Context {
		if parent == nil {
			return base
		}
		ctx, cancel := context.WithCancel(parent(l))
		context.AfterFunc(base, cancel)
		return ctx
	}
	s.http.ConnState = func(c net.Conn, now http.ConnState) {
		s.note(c, now)
		if state != nil {
			state(c, now)
		}
	}
	// Called as the listener closes.
	s.http.RegisterOnShutdown(s.closeFresh)
}

// note follows the states of connections.
func (s *server) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.fresh, c)
		return
	}
	s.fresh[c] = struct{}{}
	if s.closing { // accepted just before the listener closed
		_ = c.Close() // its reader sees it
	}
}

func (s *server) closeFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for c := range s.fresh {
		_ = c.Close() // its reader sees it
	}
}

// stop lets requests finish until grace ends, and cuts the rest.
func (s *server) stop(grace context.Context) error {
	err := s.http.Shutdown(grace)
	if err == nil {
		err = s.idle(grace) // hijacked connections are left
	}
	if err == nil {
		return nil
	}
	late := s.requests.Load()
	s.cut()
	if late == 0 {
		return errors.New("connections were cut before their answers had been read")
	}
	return fmt.Errorf("requests still in progress were cut: %d", late)
}

// cut ends everything, and waits a moment for handlers to see that.
func (s *server) cut() {
	// Connections first: a handler that returns because its context ended must
	// not pass for one that has answered.
	_ = s.http.Close() // of what is to go anyway
	s.abandon()
	ctx, cancel := context.WithTimeout(context.Background(), afterCut)
	defer cancel()
	_ = s.idle(ctx) // a handler that heeds nothing can't be waited for
}

// idle waits until no request is in progress.
func (s *server) idle(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.requests.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
