package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

var (
	// ErrReplaced says that another process registered the same id. The registration
	// waits until that record is gone, instead of fighting for it.
	ErrReplaced = errors.New("registry: another process registered the same id")
	// ErrReleased says that the registration was ended by Deregister.
	ErrReleased = errors.New("registry: the registration has been released")
)

// operationTimeout bounds one write to the store.
const operationTimeout = 3 * time.Second

// Registration keeps one instance announced. All methods are safe for
// concurrent use.
type Registration struct {
	registry *Registry
	key      Key
	cancel   context.CancelFunc
	done     chan struct{}
	void     chan struct{} // the lease is void, or the record lost: see to it now

	store sync.Mutex // one write to the store at a time

	mu        sync.Mutex
	instance  Instance
	lost      bool   // the record is to be written, again
	written   uint64 // revision of this registration's last record, 0 before there is one
	rival     uint64 // revision of a record that somebody else wrote, 0 if there is none
	released  bool
	err       error
	listeners []func(error)
}

// Register announces an instance and keeps it announced until
// [Registration.Deregister] or [Registry.Close]. It makes one attempt before it
// returns; should that fail, as when the store is away, the registration goes
// on trying and says so in [Registration.Err]. The error of Register itself is
// a [*FieldError], [ErrClosed] or ctx's.
func (r *Registry) Register(ctx context.Context, in Instance) (*Registration, error) {
	in = in.clone()
	if in.RegisteredAt.IsZero() {
		in.RegisteredAt = time.Now().UTC().Round(0)
	}
	in.Announced, in.Lease, in.LastHeartbeat = "", LeaseConnection, time.Time{}
	if err := in.Normalize(); err != nil {
		return nil, err
	}
	if _, err := in.Encode(); err != nil { // no driver could store it, ever
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	g := &Registration{
		registry: r, key: in.Key(), instance: in, cancel: cancel,
		done: make(chan struct{}), void: make(chan struct{}, 1),
	}
	if err := r.addRegistration(g); err != nil {
		cancel()
		return nil, err
	}
	err := g.put(ctx)
	g.report(err)
	go func() {
		defer r.wg.Done()
		g.keep(run, err != nil)
	}()
	if ctx.Err() != nil {
		_ = g.Deregister(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("registry: register %s: %w", in.Key(), ctx.Err())
	}
	return g, nil
}

func (r *Registry) addRegistration(g *Registration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return fmt.Errorf("registry: register %s: %w", g.key, ErrClosed)
	}
	if r.registrations[g.key] != nil {
		return &FieldError{"id", "is already registered by this process", "give each instance its own id"}
	}
	r.registrations[g.key] = g
	r.wg.Add(1) // for keep; here, where Close can't be waiting already
	return nil
}

func (r *Registry) forget(g *Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.registrations[g.key] == g {
		delete(r.registrations, g.key)
	}
}

// Instance returns the instance as it is being announced.
func (g *Registration) Instance() Instance {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.instance.clone()
}

// Err returns nil while the instance is announced and its lease renewed, and
// otherwise why not: [ErrReleased] after Deregister, [ErrClosed] after
// [Registry.Close], and in any other case the registration goes on trying.
func (g *Registration) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// OnChange has f called, outside all locks, whenever Err becomes nil or stops
// being nil; never twice at once. What Err is by now is not told: ask it after.
// f must not call Deregister or [Registry.Close], which wait for it, and is not
// called for these.
func (g *Registration) OnChange(f func(error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listeners = append(g.listeners, f)
}

// SetStatus announces another status. Should the write fail, the error is
// returned and the new status is announced as soon as that is possible; after
// Deregister or [Registry.Close] never.
func (g *Registration) SetStatus(ctx context.Context, s Status) error {
	if !knownStatus(s) {
		return &FieldError{"status", "is unknown", "use one of package health's"}
	}
	g.mu.Lock()
	g.instance.Status = s
	g.mu.Unlock()
	err := g.put(ctx)
	if err != nil || g.Err() != nil { // to try again, or for Err to say that it is well
		signal(g.void)
	}
	return err
}

// Deregister ends the registration and removes the instance from the store.
// It waits for the renewing to stop, and at most as long as ctx for the store.
// Should it fail, the lease ends by itself. A second call does nothing, and so
// does it where another process has replaced the instance. It works after
// [Registry.Close] too.
func (g *Registration) Deregister(ctx context.Context) error {
	g.mu.Lock()
	first := !g.released
	g.released, g.err = true, ErrReleased
	g.mu.Unlock()
	g.cancel()
	<-g.done
	g.registry.forget(g)
	if !first || g.isReplaced() {
		return nil
	}
	g.store.Lock() // after a SetStatus that is under way
	defer g.store.Unlock()
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := g.registry.driver.Deregister(ctx, g.key, 0); err != nil {
		return fmt.Errorf("registry: deregister %s: %w", g.key, err)
	}
	return nil
}

// keep renews the lease, and writes the record too after it was lost or could
// not be written; failed says that this was so at first. A renewal that fails is
// tried again as one: a record costs every watcher something, and just when the
// store is slow there would be one from everybody.
func (g *Registration) keep(ctx context.Context, failed bool) {
	defer close(g.done)
	failures := 0
	for {
		wait := g.registry.ttl / 3
		wait -= rand.N(wait / 5)
		if failed {
			failures++
			wait = backoff(failures)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-g.void:
			spread(ctx)
		}
		timer.Stop()
		if ctx.Err() != nil {
			g.end()
			return
		}
		err := g.announce(ctx)
		if ctx.Err() != nil {
			g.end()
			return
		}
		if failed = err != nil && !errors.Is(err, ErrReplaced); !failed {
			failures = 0
		}
		g.report(err)
	}
}

// spread waits a moment: everybody who shared a lost store is here at once.
func spread(ctx context.Context) { sleep(ctx, rand.N(50*time.Millisecond)) }

// end sets what Err says from now on; Deregister has done so already.
func (g *Registration) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.released {
		g.err = ErrClosed
	}
}

// announce writes the record if it is lost, and else renews the lease.
func (g *Registration) announce(ctx context.Context) error {
	g.mu.Lock()
	lost := g.lost
	g.mu.Unlock()
	if lost {
		return g.put(ctx)
	}
	return g.renew(ctx)
}

// put writes the record. What was lost before needs no other write, and must not
// cause one: it could hit the record of somebody who replaces this one.
func (g *Registration) put(ctx context.Context) error {
	g.store.Lock()
	defer g.store.Unlock()
	g.mu.Lock()
	in, err := g.owned()
	g.lost = err != nil
	g.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	revision, err := g.registry.driver.Register(ctx, in, g.registry.ttl)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.lost = true
		return fmt.Errorf("registry: register %s: %w", g.key, err)
	}
	g.written = revision
	return nil
}

func (g *Registration) renew(ctx context.Context) error {
	g.store.Lock()
	defer g.store.Unlock()
	g.mu.Lock()
	_, err := g.owned()
	g.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := g.registry.driver.Renew(ctx, g.key, g.registry.ttl); err != nil {
		return fmt.Errorf("registry: renew %s: %w", g.key, err)
	}
	return nil
}

// owned returns what to announce, or why nothing may be. The lock is held.
func (g *Registration) owned() (Instance, error) {
	switch {
	case g.released:
		return Instance{}, ErrReleased
	case g.registry.isClosed():
		return Instance{}, ErrClosed
	case g.replaced():
		return Instance{}, ErrReplaced
	}
	return g.instance.clone(), nil
}

// observe learns of a change of the record under this key.
func (g *Registration) observe(c Change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.note(c) {
		g.written = max(g.written, c.Revision)
	}
	g.lost = g.lost || c.Kind != Put
	if g.lost || g.replaced() {
		signal(g.void) // to announce it again, or for Err to say ErrReplaced at once
	}
}

// note looks for a rival, and reports whether the record is this registration's.
// The lock is held.
func (g *Registration) note(c Change) (own bool) {
	g.rival = 0
	own = c.Kind == Put && c.Instance.RegisteredAt.Equal(g.instance.RegisteredAt)
	if c.Kind == Put && !own {
		g.rival = c.Revision
	}
	return own
}

// replaced reports whether a rival has come after this registration. What somebody
// wrote before it did is only the past, as the record of the process that used the
// id before. So it is everything as long as it could not be written at all. The
// lock is held.
func (g *Registration) replaced() bool { return g.written != 0 && g.rival > g.written }

func (g *Registration) isReplaced() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.replaced()
}

// found learns what a fresh snapshot has under this key. The lease is void. The
// record is written again only where it is not as it should be, for when a
// server comes back, everybody is here, and everybody is told of each record.
func (g *Registration) found(c Change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	own := g.note(c)
	if own {
		g.written = c.Revision // of this store, whose revisions may have started over
	}
	says := cmp.Or(c.Instance.Announced, c.Instance.Status)
	right := own && says == g.instance.Status && sameRecord(c.Instance, g.instance)
	g.lost = g.lost || !right
	signal(g.void)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (g *Registration) report(err error) {
	g.mu.Lock()
	if g.released { // Err says so, for good
		g.mu.Unlock()
		return
	}
	changed := (g.err == nil) != (err == nil)
	g.err = err
	listeners := g.listeners
	g.mu.Unlock()
	if changed {
		for _, f := range listeners {
			f(err)
		}
	}
}
