// Package memregistry keeps the registry's records in the memory of one
// process: for tests, in virtual time too, and for programs that are one
// process by choice. Nothing survives the process.
//
// A [Hub] is the store; each [Driver] is one connection to it, which can be cut
// and mended to see what becomes of the leases it holds.
package memregistry

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/keelson-go/keelson/registry"
)

// Hub is a store of instances and leases. Use [New]. It is safe for concurrent
// use.
type Hub struct {
	mu       sync.Mutex
	wipes    int
	revision uint64
	records  map[registry.Key]registry.Change
	leases   map[registry.Key]*lease
	watchers map[*feed[registry.Change]]struct{}
	nodes    map[*feed[registry.LeaseChange]]struct{}

	campaigns map[*campaign]struct{}
	leader    *campaign
}

type lease struct {
	owner  *Driver
	given  time.Time
	expiry *time.Timer
}

// New returns an empty hub.
func New() *Hub {
	return &Hub{
		records:  map[registry.Key]registry.Change{},
		leases:   map[registry.Key]*lease{},
		watchers: map[*feed[registry.Change]]struct{}{},
		nodes:    map[*feed[registry.LeaseChange]]struct{}{},

		campaigns: map[*campaign]struct{}{},
	}
}

// Connect returns a new connection to the hub.
func (h *Hub) Connect() *Driver { return &Driver{hub: h} }

// Wipe forgets everything without telling anybody but by ending their watches,
// as a store does that lost its disk.
func (h *Hub) Wipe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.leases {
		l.expiry.Stop()
	}
	clear(h.records)
	clear(h.leases)
	h.revision = 0
	h.wipes++
	h.depose(h.leader)
	for f := range h.watchers {
		f.end(registry.ErrUnavailable)
	}
	for f := range h.nodes {
		f.end(registry.ErrUnavailable)
	}
}

// Driver is one connection to a [Hub]. It implements [registry.Driver].
type Driver struct {
	hub *Hub
	cut bool // under the hub's lock
}

// Disconnect cuts the connection: its leases and its leadership are lost, its
// watches end and its operations fail until Reconnect.
func (d *Driver) Disconnect() {
	h := d.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	d.cut = true
	for k, l := range h.leases {
		if l.owner == d {
			h.drop(k, registry.LeaseDisconnected)
		}
	}
	if h.leader != nil && h.leader.owner == d {
		h.depose(h.leader)
	}
	for f := range h.watchers {
		if f.owner == d {
			f.end(registry.ErrUnavailable)
		}
	}
	for f := range h.nodes {
		if f.owner == d {
			f.end(registry.ErrUnavailable)
		}
	}
}

// Reconnect mends what Disconnect cut.
func (d *Driver) Reconnect() {
	d.hub.mu.Lock()
	defer d.hub.mu.Unlock()
	d.cut = false
	d.hub.wake()
}

// lock takes the hub's lock if the connection stands and ctx has not ended.
func (d *Driver) lock(ctx context.Context) (*Hub, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.hub.mu.Lock()
	if d.cut {
		d.hub.mu.Unlock()
		return nil, registry.ErrUnavailable
	}
	return d.hub, nil
}

// Register implements [registry.Driver].
func (d *Driver) Register(ctx context.Context, in registry.Instance, ttl time.Duration) (uint64, error) {
	h, err := d.lock(ctx)
	if err != nil {
		return 0, fmt.Errorf("memregistry: register: %w", err)
	}
	defer h.mu.Unlock()
	h.hold(in.Key(), d, ttl)
	return h.put(in), nil
}

// Renew implements [registry.Driver].
func (d *Driver) Renew(ctx context.Context, k registry.Key, ttl time.Duration) error {
	h, err := d.lock(ctx)
	if err != nil {
		return fmt.Errorf("memregistry: renew: %w", err)
	}
	defer h.mu.Unlock()
	h.hold(k, d, ttl)
	return nil
}

// Update implements [registry.Driver].
func (d *Driver) Update(ctx context.Context, in registry.Instance, revision uint64) (uint64, error) {
	h, err := d.lock(ctx)
	if err != nil {
		return 0, fmt.Errorf("memregistry: update: %w", err)
	}
	defer h.mu.Unlock()
	if c, ok := h.records[in.Key()]; !ok || c.Revision != revision {
		return 0, fmt.Errorf("memregistry: update %s: %w", in.Key(), registry.ErrConflict)
	}
	return h.put(in), nil
}

// Deregister implements [registry.Driver].
func (d *Driver) Deregister(ctx context.Context, k registry.Key, revision uint64) error {
	h, err := d.lock(ctx)
	if err != nil {
		return fmt.Errorf("memregistry: deregister: %w", err)
	}
	defer h.mu.Unlock()
	c, ok := h.records[k]
	if ok && revision != 0 && c.Revision != revision {
		return fmt.Errorf("memregistry: deregister %s: %w", k, registry.ErrConflict)
	}
	if ok {
		delete(h.records, k)
		h.revision++
		h.tell(registry.Change{Kind: registry.Delete, Key: k, Revision: h.revision})
	}
	if revision == 0 && h.leases[k] != nil {
		h.drop(k, registry.LeaseReleased)
	}
	return nil
}

// Watch implements [registry.Driver].
func (d *Driver) Watch(ctx context.Context) iter.Seq2[registry.Change, error] {
	return func(yield func(registry.Change, error) bool) {
		h, err := d.lock(ctx)
		if err != nil {
			yieldError(ctx, yield, fmt.Errorf("memregistry: watch: %w", err))
			return
		}
		f := newFeed[registry.Change](d)
		for _, c := range h.records {
			f.push(c)
		}
		f.push(registry.Change{Kind: registry.Synced, Revision: h.revision, Store: strconv.Itoa(h.wipes)})
		h.watchers[f] = struct{}{}
		h.mu.Unlock()
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.watchers, f)
		}()
		f.drain(ctx, yield)
	}
}

// Leases implements [registry.Driver].
func (d *Driver) Leases(ctx context.Context) iter.Seq2[registry.LeaseChange, error] {
	return func(yield func(registry.LeaseChange, error) bool) {
		h, err := d.lock(ctx)
		if err != nil {
			yieldError(ctx, yield, fmt.Errorf("memregistry: follow leases: %w", err))
			return
		}
		f := newFeed[registry.LeaseChange](d)
		for k, l := range h.leases {
			f.push(registry.LeaseChange{State: registry.LeaseHeld, Key: k, At: l.given})
		}
		f.push(registry.LeaseChange{State: registry.LeasesSynced})
		h.nodes[f] = struct{}{}
		h.mu.Unlock()
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.nodes, f)
		}()
		f.drain(ctx, yield)
	}
}

// put, hold, drop and tell are called with the lock held.

func (h *Hub) put(in registry.Instance) uint64 {
	h.revision++
	c := registry.Change{Kind: registry.Put, Key: in.Key(), Instance: in, Revision: h.revision}
	h.records[c.Key] = c
	h.tell(c)
	return c.Revision
}

func (h *Hub) tell(c registry.Change) {
	for f := range h.watchers {
		f.push(c)
	}
}

func (h *Hub) hold(k registry.Key, d *Driver, ttl time.Duration) {
	if old := h.leases[k]; old != nil {
		old.expiry.Stop()
	}
	l := &lease{owner: d, given: time.Now()}
	l.expiry = time.AfterFunc(ttl, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.leases[k] == l {
			h.drop(k, registry.LeaseExpired)
		}
	})
	h.leases[k] = l
	for f := range h.nodes {
		f.push(registry.LeaseChange{State: registry.LeaseHeld, Key: k, At: l.given})
	}
}

func (h *Hub) drop(k registry.Key, why registry.LeaseState) {
	h.leases[k].expiry.Stop()
	delete(h.leases, k)
	for f := range h.nodes {
		f.push(registry.LeaseChange{State: why, Key: k})
	}
}
