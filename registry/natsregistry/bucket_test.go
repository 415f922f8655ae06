package natsregistry_test

import (
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

// Somebody removes a bucket under standing connections, and it is made again:
// whoever follows it must find out, and whoever was in it comes back.
func TestBucketMadeAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	open := func() *registry.Registry {
		d, err := natsregistry.New(within(t), dial(t, s.embedded.URL(), s.embedded.Credentials()))
		if err != nil {
			t.Fatal(err)
		}
		d.Audit(50 * time.Millisecond)
		r := registry.Open(t.Context(), d)
		t.Cleanup(r.Close)
		if err := r.WaitSynced(within(t)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	mine, watching := open(), open()
	g, err := mine.Register(t.Context(), registry.Instance{ID: "a", Name: "users", Address: "http://10.0.0.1:3001"})
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{natsregistry.InstancesBucket, natsregistry.LeasesBucket, natsregistry.InstancesBucket} {
		for range 10 { // revisions that the new bucket will not reach soon
			if err := g.SetStatus(t.Context(), health.Degraded); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.node.JetStream().DeleteKeyValue(within(t), bucket); err != nil {
			t.Fatal(err)
		}
		if err := s.node.Provision(within(t)); err != nil {
			t.Fatal(err)
		}
		until(t, "it is in the new bucket", func() bool {
			kv, err := s.node.JetStream().KeyValue(within(t), natsregistry.InstancesBucket)
			if err != nil {
				t.Fatal(err)
			}
			_, err = kv.Get(within(t), g.Instance().Key().String())
			return err == nil
		})
		until(t, "changes are seen again", func() bool {
			in, ok := watching.Get(g.Instance().Key())
			return ok && in.Status == health.Degraded && watching.Err() == nil && g.Err() == nil
		})
		if err := g.SetStatus(t.Context(), health.Healthy); err != nil {
			t.Fatal(err)
		}
		until(t, "a change is seen", func() bool {
			in, _ := watching.Get(g.Instance().Key())
			return in.Status == health.Healthy
		})
	}
}
