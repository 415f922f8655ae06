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

// cable is a way to dial that can be cut.
type cable struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// Dial implements nats.CustomDialer.
func (c *cable) Dial(network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.(*net.TCPConn).SetLinger(0) // without a word
		conn.Close()
	}
	c.conns = nil
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
				return registrytest.Connection{Driver: d, Sever: c.sever, Mend: c.mend}
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
