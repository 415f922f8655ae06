package natsregistry_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/registry/natsregistry"
	"github.com/keelson-go/keelson/registry/registrytest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// within bounds what a test waits for.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// server is an engine that processes reach over TCP, and the registry node's
// own connections to it.
type server struct {
	embedded *embedded.Server
	node     *engine.Engine
}

func startServer(t testing.TB, listen string) *server {
	t.Helper()
	e, err := embedded.Start(within(t), embedded.Config{Listen: listen, Credentials: "keelson:only-for-tests"})
	if err != nil {
		t.Fatal(err)
	}
	node, err := e.Connect(within(t), "node")
	if err != nil {
		t.Fatal(err)
	}
	return &server{e, node}
}

func (s *server) stop(t testing.TB) {
	t.Helper()
	s.node.Close()
	if err := s.embedded.Stop(within(t)); err != nil {
		t.Error(err)
	}
}

// cable is a way to dial that can be cut, or stall.
type cable struct {
	mu      sync.Mutex
	cut     bool
	stalled chan struct{} // closed when it goes on; nil while it flows
	conns   []*cableConn
}

// Dial implements nats.CustomDialer.
func (c *cable) Dial(network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	through := &cableConn{Conn: conn, cable: c, closed: make(chan struct{})}
	c.conns = append(c.conns, through)
	return through, nil
}

type cableConn struct {
	net.Conn
	cable  *cable
	once   sync.Once
	closed chan struct{}
}

// flow waits while the cable stalls.
func (c *cableConn) flow() {
	c.cable.mu.Lock()
	stalled := c.cable.stalled
	c.cable.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-c.closed:
		}
	}
}

func (c *cableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.flow()
	return n, err
}

func (c *cableConn) Write(p []byte) (int, error) {
	c.flow()
	return c.Conn.Write(p)
}

func (c *cableConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Conn.(*net.TCPConn).SetLinger(0) // without a word
		conn.Close()
	}
	c.conns = nil
}

// stall lets nothing through until resume is called.
func (c *cable) stall() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stalled := make(chan struct{})
	c.stalled = stalled
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stalled = nil
		close(stalled)
	})
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

// dial connects a process over TCP.
func dial(t testing.TB, url, credentials string, more ...nats.Option) *nats.Conn {
	t.Helper()
	opts, err := engine.ConnOptions(engine.Config{Name: t.Name(), Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, append(opts, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Store {
		s := startServer(t, "127.0.0.1:0")
		url := s.embedded.URL()
		t.Cleanup(func() { s.stop(t) })
		return registrytest.Store{
			Connect: func(t *testing.T) registrytest.Connection {
				c := &cable{}
				nc := dial(t, url, s.embedded.Credentials(), nats.SetCustomDialer(c))
				d, err := natsregistry.New(within(t), nc, natsregistry.WithSystem(s.node.System()))
				if err != nil {
					t.Fatal(err)
				}
				return registrytest.Connection{Driver: d, Sever: c.sever, Mend: c.mend, Stall: c.stall}
			},
			// A server that keeps everything in memory starts again.
			Wipe: func(t *testing.T) {
				listen := url[len("nats://"):]
				s.stop(t)
				*s = *startServer(t, listen)
			},
		}
	})
}
