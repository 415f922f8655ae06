package natsregistry_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

// mute dials connections on which nothing gets through any more from a moment on,
// without either end being told.
type mute struct{ on atomic.Bool }

// Dial implements nats.CustomDialer.
func (m *mute) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	return muteConn{conn, m}, err
}

type muteConn struct {
	net.Conn
	mute *mute
}

func (c muteConn) Write(p []byte) (int, error) {
	if c.mute.on.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// The end of a watch does not wait for a server that does not answer.
func TestWatchEndsWithoutAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	m := &mute{}
	d, err := natsregistry.New(within(t), dial(t, s.embedded.URL(), s.embedded.Credentials(), nats.SetCustomDialer(m)))
	if err != nil {
		t.Fatal(err)
	}
	var start time.Time
	for _, err := range d.Watch(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		m.on.Store(true)
		start = time.Now()
		break
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the watch took %v to end", took)
	}
}

// A watch that ends leaves no consumer behind on the server, whenever it ends.
func TestWatchLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	d, err := natsregistry.New(within(t), dial(t, s.embedded.URL(), s.embedded.Credentials()))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.node.JetStream().Stream(within(t), "KV_"+natsregistry.InstancesBucket)
	if err != nil {
		t.Fatal(err)
	}
	consumers := func() int {
		info, err := stream.Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Consumers
	}
	for c, err := range d.Watch(within(t)) {
		if err != nil || c.Kind != registry.Synced {
			t.Fatalf("change %v, error %v; want to be synced at once", c, err)
		}
		if n := consumers(); n != 1 {
			t.Errorf("%d consumers while the watch goes on, want 1", n)
		}
		break
	}
	until(t, "the consumer is gone", func() bool { return consumers() == 0 })
	for i := range 100 { // also while it is being made
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*50*time.Microsecond)
		for range d.Watch(ctx) {
			continue
		}
		cancel()
	}
	until(t, "all consumers are gone", func() bool { return consumers() == 0 })
}
