package service

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keelson-go/keelson/inprocess"
)

// afterCut is how long handlers get to notice that they were cut off.
const afterCut = 500 * time.Millisecond

// neighbours are the calls that come from this process, without a socket. They are
// served and drained beside those that come over the listener. nil means none.
type neighbours struct {
	server *inprocess.Server
	remove func()
	wg     sync.WaitGroup
	err    error
}

// admitNeighbours serves calls from this process, if there is a directory to be in. It
// must be called before srv runs, which changes its handler and contexts.
func (s *Service) admitNeighbours(srv *http.Server, l net.Listener) *neighbours {
	if s.options.neighbours == nil {
		return nil
	}
	n := &neighbours{server: inprocess.NewServer(srv.Handler,
		inprocess.WithBaseContext(context.WithValue(srv.BaseContext(l), http.ServerContextKey, srv)),
		inprocess.WithAddr(l.Addr()),
		inprocess.WithLogger(s.Log()),
	)}
	_, host, _ := strings.Cut(s.self.Address, "://")
	n.remove = s.options.neighbours.Add(s.self.ID, host, n.server)
	return n
}

// drain refuses new calls and lets those under way finish until grace ends; then it
// cuts them off. It does not wait for that.
func (n *neighbours) drain(grace func() (context.Context, context.CancelFunc)) {
	if n == nil {
		return
	}
	n.remove()
	n.wg.Go(func() {
		ctx, cancel := grace()
		defer cancel()
		err := n.server.Shutdown(ctx)
		if err == nil {
			return
		}
		n.err = fmt.Errorf("requests from this process were cut: %w", err)
		_ = n.server.Close() // it says nothing
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterCut)
		defer cancel()
		_ = n.server.Shutdown(after) // a handler that heeds nothing can't be waited for
	})
}

// wait returns when drain is over, and whether it was clean.
func (n *neighbours) wait() error {
	if n == nil {
		return nil
	}
	n.wg.Wait()
	return n.err
}
