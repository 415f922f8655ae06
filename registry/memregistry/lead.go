package memregistry

import (
	"context"
	"iter"
)

// campaign is one call of Lead. The hub's lock guards deposed.
type campaign struct {
	owner   *Driver
	wake    chan struct{} // something has changed
	deposed bool          // it led, but may not any more
}

// Lead implements [registry.Driver]. Nobody else leads before a leader that
// lost the leadership has taken the news.
func (d *Driver) Lead(ctx context.Context) iter.Seq[bool] {
	return func(yield func(bool) bool) {
		c := d.hub.enter(d)
		defer d.hub.leave(c)
		for d.hub.elect(ctx, c) && yield(true) {
			d.hub.serve(ctx, c)
			if !yield(false) {
				return
			}
			d.hub.resign(c)
		}
	}
}

func (h *Hub) enter(d *Driver) *campaign {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &campaign{owner: d, wake: make(chan struct{}, 1)}
	h.campaigns[c] = struct{}{}
	return c
}

func (h *Hub) leave(c *campaign) {
	h.resign(c)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.campaigns, c)
}

// elect waits until c leads, and reports whether it does before ctx ends.
func (h *Hub) elect(ctx context.Context, c *campaign) bool {
	return c.await(ctx, func() bool {
		won := h.leader == nil && !c.owner.cut
		if won {
			h.leader, c.deposed = c, false
		}
		return won
	})
}

// serve waits until the leader c may not lead any more, or ctx ends.
func (h *Hub) serve(ctx context.Context, c *campaign) {
	c.await(ctx, func() bool { return c.deposed })
}

// await waits for cond, which it calls with the hub's lock held, and reports
// whether it came true before ctx ended.
func (c *campaign) await(ctx context.Context, cond func() bool) bool {
	h := c.owner.hub
	for ctx.Err() == nil {
		h.mu.Lock()
		met := cond()
		h.mu.Unlock()
		if met {
			return true
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
	return false
}

// resign lets others lead, if c did.
func (h *Hub) resign(c *campaign) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leader == c {
		h.leader = nil
		h.wake()
	}
}

// depose and wake are called with the lock held.

func (h *Hub) depose(c *campaign) {
	if c != nil {
		c.deposed = true
		h.wake()
	}
}

func (h *Hub) wake() {
	for c := range h.campaigns {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}
