package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/keelson-go/keelson/internal/httpserver"
)

// serve is the HTTP server as a component.
func (s *Service) serve(ctx context.Context, ready func()) error {
	l := s.options.listener
	if l == nil {
		var err error
		addr := net.JoinHostPort(s.options.host, strconv.Itoa(s.options.port))
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			return err // it names the address
		}
	}
	if err := s.listen(l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	srv, endStreams := s.newServer(ctx)
	n := s.admitNeighbours(srv, l)
	err := httpserver.Run(ctx, ready, l, srv, httpserver.Stop{
		Drain: func() {
			endStreams()
			n.drain(func() (context.Context, context.CancelFunc) { return s.stopping(ctx) })
		},
		Grace: func() (context.Context, context.CancelFunc) {
			s.health.Drain() // if the start was broken off; else it is so already
			return s.stopping(ctx)
		},
	})
	return errors.Join(err, n.wait())
}

// listen notes where the server listens and what the instance is called.
func (s *Service) listen(addr net.Addr) error {
	in, err := s.describe(addr)
	if err != nil {
		return err
	}
	s.addr, s.self = addr, in
	close(s.listening)
	return nil
}

// newServer returns the server, and what tells its streams to end.
func (s *Service) newServer(ctx context.Context) (srv *http.Server, endStreams context.CancelFunc) {
	drain, endStreams := context.WithCancel(context.Background())
	base := context.WithValue(context.WithoutCancel(ctx), drainKey{}, drain)
	handler := s.Handler()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.leaving.Load() {
				// Who calls by address shall open the next connection elsewhere.
				w.Header().Set("Connection", "close")
			}
			handler.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		// Longer than clients keep idle connections, so that it is they who
		// close them and no request meets a connection that is just closing.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		Protocols:      protocols,
		ErrorLog:       slog.NewLogLogger(s.Log().Handler(), slog.LevelDebug),
	}, endStreams
}
