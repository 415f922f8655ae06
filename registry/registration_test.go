package registry_test

import (
	"context"
	"errors"
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

// newcomer is another process's instance of the same id. Clocks prove nothing.
func newcomer(id string) registry.Instance {
	return instance(id, func(i *registry.Instance) { i.RegisteredAt = time.Now().Add(-time.Hour) })
}

// Whatever called for the record to be written, one write answers it: a second one
// could hit somebody who has replaced it meanwhile.
func TestRecordIsWrittenOnceAfterRival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d, other := &counting{Driver: hub.Connect()}, hub.Connect()
		g, err := open(t, d).Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			put(t, other, newcomer("a"))
			time.Sleep(time.Second)
			d.records.Store(0)
			if err := g.SetStatus(t.Context(), health.Degraded); !errors.Is(err, registry.ErrReplaced) {
				t.Fatalf("SetStatus: %v, want ErrReplaced", err)
			}
			synctest.Wait() // it is about to try again
			if err := other.Deregister(t.Context(), key("a"), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if n := d.records.Load(); n != 1 || g.Err() != nil {
				t.Fatalf("%d records written after the other one went, want 1; Err is %v", n, g.Err())
			}
		}
		// SetStatus itself was faster than the registration: Err learns it soon.
		put(t, other, newcomer("a"))
		time.Sleep(time.Second)
		d.records.Store(0)
		if err := other.Deregister(t.Context(), key("a"), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := g.SetStatus(t.Context(), health.Healthy); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := d.records.Load(); n != 1 || g.Err() != nil {
			t.Errorf("%d records written, want only SetStatus's; Err is %v", n, g.Err())
		}
	})
}

// A process is started again while the store is away. What its predecessor left
// there is the past, though the process sees it before it could write anything.
func TestPredecessorIsNoRival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		put(t, hub.Connect(), newcomer("a"))
		d, other := hub.Connect(), hub.Connect()
		d.Disconnect()
		r := registry.Open(t.Context(), d)
		defer r.Close()
		g, err := r.Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Err(); !errors.Is(err, registry.ErrUnavailable) {
			t.Fatalf("Err is %v without a store", err)
		}
		d.Reconnect()
		time.Sleep(10 * time.Second)
		if in, _ := r.Get(key("a")); g.Err() != nil || !in.RegisteredAt.Equal(g.Instance().RegisteredAt) {
			t.Errorf("in the registry is %+v, and Err is %v", in, g.Err())
		}
		put(t, other, newcomer("a"))
		time.Sleep(time.Second)
		if err := g.Err(); !errors.Is(err, registry.ErrReplaced) {
			t.Errorf("Err is %v after another process came, want ErrReplaced", err)
		}
	})
}

// lossy is a driver that loses the answers to its first writes.
type lossy struct {
	*memregistry.Driver
	left atomic.Int32
}

func (d *lossy) Register(ctx context.Context, in registry.Instance, ttl time.Duration) (uint64, error) {
	revision, err := d.Driver.Register(ctx, in, ttl)
	if d.left.Add(-1) >= 0 {
		return 0, registry.ErrUnavailable
	}
	return revision, err
}

// It registered, but has no answer to it: who comes after that does replace it.
func TestReplacedWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d, other := &lossy{Driver: hub.Connect()}, hub.Connect()
		d.left.Store(1000)
		g, err := open(t, d).Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		put(t, other, newcomer("a"))
		time.Sleep(time.Minute)
		if err := g.Err(); !errors.Is(err, registry.ErrReplaced) {
			t.Errorf("Err is %v, want ErrReplaced", err)
		}
	})
}
