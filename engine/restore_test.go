package engine_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/registry"
)

// A server comes back on another, empty disk. Processes that were connected
// before make the buckets again, at once and together, and what is registered
// is there again, though nobody connects anew.
func TestServerComesBackEmpty(t *testing.T) {
	t.Parallel()
	first := bare(t, nil)
	port := first.Addr().(*net.TCPAddr).Port
	e := connect(t, engine.Config{URL: first.ClientURL()})
	connect(t, engine.Config{URL: first.ClientURL()})
	d, err := e.RegistryDriver(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := registry.Open(t.Context(), d)
	t.Cleanup(r.Close)
	if _, err := r.Register(t.Context(), registry.Instance{ID: "a", Name: "users", Address: "http://10.0.0.1:3001"}); err != nil {
		t.Fatal(err)
	}
	first.Shutdown()
	first.WaitForShutdown()
	bare(t, func(o *server.Options) { o.Port = port }) // with a StoreDir of its own
	eventually(t, "the record is there again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // an answer may get lost with the connection
		defer cancel()
		kv, err := e.JetStream().KeyValue(ctx, engine.InstancesBucket)
		if err != nil {
			return false
		}
		_, err = kv.Get(ctx, "users.a")
		return err == nil && r.Err() == nil
	})
}

// A return changes no settings of buckets that are there.
func TestReturnLeavesBuckets(t *testing.T) {
	t.Parallel()
	e := connect(t, engine.Config{URL: bare(t, nil).ClientURL()})
	other := config(t, e, engine.InstancesBucket)
	other.Description = "of a newer release"
	if _, err := e.JetStream().UpdateStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if err := e.JetStream().DeleteKeyValue(t.Context(), engine.LeasesBucket); err != nil {
		t.Fatal(err)
	}
	if err := e.Conn().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing one is there again", func() bool {
		_, err := e.JetStream().KeyValue(t.Context(), engine.LeasesBucket)
		return err == nil
	})
	if got := config(t, e, engine.InstancesBucket).Description; got != other.Description {
		t.Errorf("the other one's description is %q now, want it left alone", got)
	}
}
