package natsregistry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/registry"
)

// leaderKey is the key of the leadership, among the leases; no instance has
// such a key.
const leaderKey = "_leader.checks"

// Bounds of a campaign.
const (
	resignTimeout = 2 * time.Second // what giving the leadership back may take
	restartPause  = time.Second     // the longest wait before the key is watched again
)

// Lead implements [registry.Driver]. The leadership is a lease that its holder
// renews, and which others take over when it has expired; or, with [WithSystem],
// soon after its holder's connection ended. A leader that can't renew steps back
// a second before the lease expires. Should somebody remove the bucket, the
// leader of before learns it when it renews next.
func (d *Driver) Lead(ctx context.Context) iter.Seq[bool] {
	return func(yield func(bool) bool) {
		c := &campaign{driver: d, name: rand.Text(), yield: yield, wake: make(chan struct{}, 1)}
		defer c.resign(ctx)
		defer c.listen()()
		c.run(ctx)
	}
}

// campaign is one call of Lead.
type campaign struct {
	driver *Driver
	name   string // tells its claims from all others
	yield  func(bool) bool
	leads  bool // what was yielded last
	over   bool // the consumer wants no more
	term   *term

	mu    sync.Mutex
	ended endings
	wake  chan struct{} // a connection has ended
}

// listen makes the campaign hear of connections that end, until stop is called.
// Without that, it knows when the lease expires.
func (c *campaign) listen() (stop func()) {
	d := c.driver
	if d.sys == nil {
		return func() {}
	}
	sub, err := d.sys.Subscribe(disconnectSubject, func(m *nats.Msg) {
		e, err := ended(m.Data)
		if err != nil || !e.closed {
			return
		}
		c.mu.Lock()
		c.ended.add(e.holder)
		c.mu.Unlock()
		select {
		case c.wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		d.log.Warn("the ends of connections can't be followed; a lost leader is replaced when its lease expires", "error", err)
		return func() {}
	}
	return func() { _ = sub.Unsubscribe() } // it fails only when the connection is closed
}

// run watches the key and writes claims, over and over until ctx ends.
func (c *campaign) run(ctx context.Context) {
	pause := time.Duration(0)
	for {
		began := time.Now()
		err := c.attend(ctx)
		if err == nil {
			return
		}
		c.term = nil // its revision may be of another store when this one is back
		if c.over || ctx.Err() != nil {
			return
		}
		if time.Since(began) > leaderTTL {
			pause = 0
		}
		if pause == 0 {
			c.driver.log.Warn("the leadership can't be followed; trying again", "error", err)
		}
		pause = min(max(2*pause, leaderPause), restartPause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// attend is one watch of the key, on one connection. It returns nil when the
// campaign is over.
func (c *campaign) attend(ctx context.Context) error {
	d := c.driver
	status := d.nc.StatusChanged()
	defer d.nc.RemoveStatusListener(status)
	if err := waitConnected(ctx, d.nc, status); err != nil {
		return err
	}
	return d.connected(context.WithoutCancel(ctx), func(conn context.Context) error { return c.serve(ctx, conn) })
}

func (c *campaign) serve(ctx, conn context.Context) error {
	d := c.driver
	h, err := d.holder()
	if err != nil {
		return err
	}
	watching, cancel := context.WithCancel(conn)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	w, end, err := watchKeys(watching, d.leases, leaderKey)
	if err != nil {
		return err
	}
	defer end()
	t := newTerm(c.name, time.Now())
	c.term = t
	// A claim that is under way when ctx ends is awaited: to give the leadership
	// back, its revision has to be known.
	var answer <-chan written
	defer func() {
		if answer != nil {
			_ = c.settle(<-answer) // no watch will be begun because of it
		}
	}()
	// Whatever ends the watch ends the certainty of leading.
	defer c.tell(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// First of all, for this process may have been stopped for a while.
		if !c.tell(ctx.Err() == nil && t.leads(time.Now())) {
			return nil
		}
		write, at, err := t.due(time.Now())
		if err != nil {
			return fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
		}
		if write && ctx.Err() == nil {
			if answer, err = c.write(conn, h); err != nil {
				return err
			}
			continue
		}
		timer.Reset(time.Until(at))
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return conn.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("%w: the watch was ended", registry.ErrUnavailable)
			}
			c.take(e)
		case a := <-answer:
			answer = nil
			if err := c.settle(a); err != nil {
				return err
			}
		case <-c.wake:
			c.checkOwner()
		case <-timer.C:
		}
	}
}

// take takes in what the watch tells.
func (c *campaign) take(e jetstream.KeyValueEntry) {
	if e == nil {
		c.term.synced = true
		return
	}
	var owner claim
	if e.Operation() == jetstream.KeyValuePut {
		if err := json.Unmarshal(e.Value(), &owner); err != nil || owner == (claim{}) {
			owner = claim{Campaign: "unknown"} // it is not vacant
		}
	}
	c.term.told(time.Now(), e.Revision(), owner)
	c.checkOwner()
}

// checkOwner tells the term if its owner's connection has ended.
func (c *campaign) checkOwner() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.has(c.term.owner.holder) {
		c.term.ended(time.Now())
	}
}

// written is what became of a claim.
type written struct {
	claim    claim
	revision uint64
	err      error
}

// write sends a claim for the next term, or to go on with this one. It does not
// wait for the answer, for the connection may be at a standstill.
func (c *campaign) write(conn context.Context, h holder) (<-chan written, error) {
	own := claim{h, c.name}
	value, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	c.term.writes(time.Now())
	ctx, cancel := context.WithDeadline(conn, c.term.sent.Add(leaderRenewal))
	revision := jetstream.WithExpectLastSequencePerSubject(c.term.expected)
	answer := make(chan written, 1)
	go func() {
		defer cancel()
		msg := &nats.Msg{Subject: leaseSubject(leaderKey), Data: value}
		a := written{claim: own}
		ack, err := c.driver.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(leaderTTL), revision)
		if a.err = err; err == nil {
			a.revision = ack.Sequence
		}
		answer <- a
	}()
	return answer, nil
}

// settle takes in what became of a claim. It returns an error when the key
// should be watched anew.
func (c *campaign) settle(a written) error {
	now := time.Now()
	switch {
	case a.err == nil:
		c.term.wrote(now, a.revision, a.claim)
	case conflicts(a.err):
		c.term.refused(now)
	default:
		if c.term.failed(now); !c.term.leads(now) {
			return fmt.Errorf("claim the leadership: %w", a.err)
		}
	}
	return nil
}

// tell yields whether this campaign leads, if that has changed. It reports
// whether the consumer wants to know more.
func (c *campaign) tell(leads bool) bool {
	if !c.over && leads != c.leads {
		c.leads, c.over = leads, true // should the consumer panic
		c.over = !c.yield(leads)
	}
	return !c.over
}

// resign gives the leadership back if this campaign has it, or may have.
func (c *campaign) resign(ctx context.Context) {
	if c.term == nil || !c.term.ours() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	err := c.driver.connected(ctx, func(ctx context.Context) error {
		return c.driver.release(ctx, leaderKey, c.term.revision)
	})
	if err != nil && !errors.Is(err, registry.ErrUnavailable) {
		c.driver.log.Warn("the leadership can't be given back; its lease will expire", "error", err)
	}
}
