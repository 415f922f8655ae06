package registry_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// counting is a driver that counts the records it writes, and can refuse to
// renew.
type counting struct {
	*memregistry.Driver
	records atomic.Int32
	refused atomic.Int32
	slow    atomic.Bool
}

func (d *counting) Register(ctx context.Context, in registry.Instance, ttl time.Duration) (uint64, error) {
	d.records.Add(1)
	return d.Driver.Register(ctx, in, ttl)
}

func (d *counting) Renew(ctx context.Context, k registry.Key, ttl time.Duration) error {
	if d.slow.Load() {
		d.refused.Add(1)
		return registry.ErrUnavailable
	}
	return d.Driver.Renew(ctx, k, ttl)
}

// A record costs every watcher something: it is written again only when it was
// lost or is not as it should be.
func TestRecordIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d := &counting{Driver: hub.Connect()}
		node := hub.Connect()
		r := open(t, d)
		g, err := r.Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		written := func(when string, want int32, is registry.Status) {
			t.Helper()
			time.Sleep(20 * time.Second)
			if got := d.records.Swap(0); got != want {
				t.Errorf("%s: %d records written, want %d", when, got, want)
			}
			if err := g.Err(); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			if in, _ := r.Get(g.Instance().Key()); in.Status != is {
				t.Errorf("%s: %q, want %q", when, in.Status, is)
			}
		}
		reconnect := func() {
			d.Disconnect()
			time.Sleep(time.Second)
			if g.Err() == nil {
				t.Error("Err is nil though the store is away")
			}
			d.Reconnect()
		}
		written("registered", 1, health.Healthy)

		d.slow.Store(true)
		time.Sleep(30 * time.Second)
		if n := d.refused.Load(); n < 5 || g.Err() == nil {
			t.Errorf("%d renewals were refused, and Err is %v", n, g.Err())
		}
		d.slow.Store(false)
		written("renewals failed", 0, health.Healthy)

		reconnect()
		written("reconnected", 0, health.Healthy)

		// What a registry node says about it is not its to change.
		out := g.Instance()
		out.Status, out.Announced = health.Unhealthy, health.Healthy
		revision := put(t, node, out)
		reconnect()
		written("reconnected while out of rotation", 0, health.Unhealthy)

		// A store that lost its last moments has an older record.
		old := g.Instance()
		old.Status = health.Starting
		if _, err := node.Update(t.Context(), old, revision); err != nil {
			t.Fatal(err)
		}
		reconnect()
		written("reconnected to an older record", 1, health.Healthy)

		hub.Wipe()
		written("wiped", 1, health.Healthy)
		if err := g.SetStatus(t.Context(), health.Draining); err != nil {
			t.Fatal(err)
		}
		written("another status", 1, health.Draining)
	})
}
