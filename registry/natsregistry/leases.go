package natsregistry

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/registry"
)

// alsoFollow is a second source of [Driver.follow].
type alsoFollow struct {
	status   <-chan nats.Status // of its connection; any change ends the following
	messages <-chan *nats.Msg
	on       func(*nats.Msg) bool
}

// Leases implements [registry.Driver].
func (d *Driver) Leases(ctx context.Context) iter.Seq2[registry.LeaseChange, error] {
	return func(yield func(registry.LeaseChange, error) bool) {
		if err := d.followLeases(ctx, yield); err != nil && ctx.Err() == nil {
			yield(registry.LeaseChange{}, fmt.Errorf("natsregistry: follow leases: %w", err))
		}
	}
}

func (d *Driver) followLeases(ctx context.Context, yield func(registry.LeaseChange, error) bool) error {
	t := newTracker()
	tell := func(changes []registry.LeaseChange) bool {
		for _, c := range changes {
			if !yield(c, nil) {
				return false
			}
		}
		return true
	}
	var also *alsoFollow
	if d.sys != nil {
		status := d.sys.StatusChanged()
		defer d.sys.RemoveStatusListener(status)
		if err := waitConnected(ctx, d.sys, status); err != nil {
			return err
		}
		messages := make(chan *nats.Msg, 4096)
		sub, err := d.sys.ChanSubscribe(disconnectSubject, messages)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", disconnectSubject, unavailable(err))
		}
		defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
		// Once the server has the subscription, no end is missed.
		flush, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		if err := d.sys.FlushWithContext(flush); err != nil {
			return fmt.Errorf("subscribe to %s: %w", disconnectSubject, unavailable(err))
		}
		also = &alsoFollow{status, messages, func(m *nats.Msg) bool {
			e, err := ended(m.Data)
			if err != nil {
				d.log.Warn("the end of a connection can't be read", "error", err)
				return true
			}
			return tell(t.end(e.holder))
		}}
	}
	return d.follow(ctx, d.leases, also, func(e jetstream.KeyValueEntry, _ string) bool {
		if e == nil {
			return yield(registry.LeaseChange{State: registry.LeasesSynced}, nil)
		}
		if e.Key() == leaderKey {
			return true
		}
		k, err := registry.ParseKey(e.Key())
		if err != nil {
			d.log.Warn("a lease in the registry has a strange key; it is left out", "key", e.Key(), "error", err)
			return true
		}
		switch e.Operation() {
		case jetstream.KeyValueDelete:
			return tell(t.drop(k, registry.LeaseReleased))
		case jetstream.KeyValuePurge:
			return tell(t.drop(k, registry.LeaseExpired))
		}
		var h holder
		if err := json.Unmarshal(e.Value(), &h); err != nil {
			d.log.Warn("a lease in the registry can't be read; it is left out", "key", e.Key(), "error", err)
			return true
		}
		return tell(t.hold(k, h, registry.LeaseChange{State: registry.LeaseHeld, Key: k, At: e.Created()}))
	})
}

// tracker knows which connection holds which leases, as far as they have not
// been told to be lost.
type tracker struct {
	holders map[registry.Key]holder
	leases  map[holder]map[registry.Key]struct{}
	ended   endings
}

func newTracker() *tracker {
	return &tracker{
		holders: map[registry.Key]holder{},
		leases:  map[holder]map[registry.Key]struct{}{},
	}
}

// hold notes that h has the lease of k, now or until just before.
func (t *tracker) hold(k registry.Key, h holder, held registry.LeaseChange) []registry.LeaseChange {
	if before, ok := t.holders[k]; ok && before != h {
		t.unlink(k, before)
	}
	t.holders[k] = h
	if t.leases[h] == nil {
		t.leases[h] = map[registry.Key]struct{}{}
	}
	t.leases[h][k] = struct{}{}
	changes := []registry.LeaseChange{held}
	if t.ended.has(h) {
		changes = append(changes, t.drop(k, registry.LeaseDisconnected)...)
	}
	return changes
}

// drop forgets a lease. That one which is not held has ended is no news: the end
// of its connection told it before its time to live did.
func (t *tracker) drop(k registry.Key, why registry.LeaseState) []registry.LeaseChange {
	h, held := t.holders[k]
	if !held {
		return nil
	}
	t.unlink(k, h)
	return []registry.LeaseChange{{State: why, Key: k}}
}

func (t *tracker) unlink(k registry.Key, h holder) {
	delete(t.holders, k)
	delete(t.leases[h], k)
	if len(t.leases[h]) == 0 {
		delete(t.leases, h)
	}
}

// end drops every lease of a connection that has ended.
func (t *tracker) end(h holder) []registry.LeaseChange {
	t.ended.add(h)
	var changes []registry.LeaseChange
	for k := range t.leases[h] {
		changes = append(changes, t.drop(k, registry.LeaseDisconnected)...)
	}
	return changes
}
