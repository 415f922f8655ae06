package keelsontest

import (
	"net"
	"sync"
)

// listener can be taken away from a server as a kill takes it: all at once, and
// without the server noticing.
type listener struct {
	net.Listener

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	killed bool
	over   chan struct{} // closed by Close
	once   sync.Once
}

func newListener(l net.Listener) *listener {
	return &listener{Listener: l, open: map[net.Conn]struct{}{}, over: make(chan struct{})}
}

// Accept waits for ever once the listener was killed, until Close.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.mu.Lock()
	killed := l.killed
	if err == nil && !killed {
		c = &conn{c, l}
		l.open[c] = struct{}{}
	}
	l.mu.Unlock()
	if !killed {
		return c, err
	}
	if err == nil {
		reset(c)
	}
	<-l.over
	return nil, net.ErrClosed
}

// Close closes the listener, not its connections.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.over) })
	return l.Listener.Close()
}

// kill refuses new connections and resets those there are.
func (l *listener) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed = true
	_ = l.Listener.Close() // it is to go, whatever it says
	for c := range l.open {
		reset(c.(*conn).Conn)
	}
}

func (l *listener) forget(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// reset closes a connection as the kernel does for a process that is gone.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it fails on one that is closed
	}
	_ = c.Close() // likewise
}

// conn tells its listener when it is closed.
type conn struct {
	net.Conn
	listener *listener
}

func (c *conn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}
