package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// ErrNoInstance matches every [NoInstanceError].
var ErrNoInstance = errors.New("registry: no healthy instance")

// NoInstanceError says that no instance of a service is in rotation. It
// matches [ErrNoInstance].
type NoInstanceError struct{ Service string }

// Error names the service.
func (e *NoInstanceError) Error() string {
	return fmt.Sprintf("registry: no healthy instance of service %q", e.Service)
}

// Is reports whether target is [ErrNoInstance].
func (e *NoInstanceError) Is(target error) bool { return target == ErrNoInstance }

// ErrClosed says that the registry was closed.
var ErrClosed = errors.New("registry: the registry is closed")

// DefaultTTL is how long a lease lasts without being renewed.
const DefaultTTL = 15 * time.Second

// Option changes a default of [Open].
type Option func(*Registry)

// WithTTL sets how long leases last without renewal; they are renewed every
// third of it. At least a second, in whole seconds, the default is [DefaultTTL].
func WithTTL(d time.Duration) Option {
	return func(r *Registry) { r.ttl = max(d.Truncate(time.Second), time.Second) }
}

// Registry is one process's view of the fleet. All methods are safe for
// concurrent use.
type Registry struct {
	driver Driver
	ttl    time.Duration
	view   *view

	stop   context.CancelFunc
	wg     sync.WaitGroup
	synced chan struct{} // closed at the first complete snapshot
	closed chan struct{} // closed by Close

	// Of follow and what it calls alone.
	store    string    // which store the snapshot is of
	graceEnd time.Time // until when orphans stay

	mu            sync.Mutex
	err           error // why the store is away, nil while it is followed
	revision      uint64
	history       history
	watchers      map[*watcher]struct{}
	ledger        ledger
	awaited       map[chan struct{}]func() bool
	registrations map[Key]*Registration
}

// Open starts following the store; it does not wait for it. ctx ends the
// following like [Registry.Close], which must be called in any case.
func Open(ctx context.Context, d Driver, opts ...Option) *Registry {
	ctx, stop := context.WithCancel(ctx)
	r := &Registry{
		driver: d, ttl: DefaultTTL, view: newView(), stop: stop,
		synced: make(chan struct{}), closed: make(chan struct{}),
		watchers: map[*watcher]struct{}{}, registrations: map[Key]*Registration{},
		ledger: ledger{weights: map[Key]int{}}, awaited: map[chan struct{}]func() bool{},
	}
	for _, o := range opts {
		o(r)
	}
	r.err = fmt.Errorf("%w: the first snapshot has not come yet", ErrUnavailable)
	r.wg.Go(func() { r.follow(ctx) })
	return r
}

// Close stops following, renewing and watching, and waits for all of it. It
// deregisters nothing: see [Registration.Deregister]. The last snapshot stays
// readable. It may be called more than once.
func (r *Registry) Close() {
	r.mu.Lock()
	if !r.isClosed() {
		close(r.closed)
	}
	for _, g := range r.registrations {
		g.cancel()
	}
	r.mu.Unlock()
	r.stop()
	r.wg.Wait()
}

// WaitSynced waits for the first complete snapshot, or returns ctx's error
// together with why there is none yet.
func (r *Registry) WaitSynced(ctx context.Context) error {
	select {
	case <-r.synced:
		return nil
	case <-r.closed:
		return fmt.Errorf("registry: wait for the first snapshot: %w", ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("registry: wait for the first snapshot: %w (%w)", ctx.Err(), r.Err())
	}
}

// Synced reports whether there has been a complete snapshot.
func (r *Registry) Synced() bool {
	select {
	case <-r.synced:
		return true
	default:
		return false
	}
}

// Err returns why the store is not being followed now, or nil while it is.
// The snapshot stays in force meanwhile.
func (r *Registry) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// follow watches the store, for ever.
func (r *Registry) follow(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		synced, err := r.session(ctx)
		if synced {
			failures = 0
		}
		r.mu.Lock()
		r.err = fmt.Errorf("registry: follow the store: %w", err)
		if synced {
			for _, g := range r.registrations {
				signal(g.void) // or find out, and say, that it can't be renewed
			}
		}
		r.mu.Unlock()
		sleep(ctx, backoff(failures))
	}
}

// session is one watch of the store: a complete snapshot, then changes, until
// the driver may have missed some.
func (r *Registry) session(ctx context.Context) (synced bool, err error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	queue := make(chan Change, batchLimit)
	defer close(queue)
	fresh := map[Key]Change{}
	revision := uint64(0)
	for c, err := range r.driver.Watch(ctx) {
		switch {
		case err != nil:
			return synced, err
		case synced:
			queue <- c // consume takes it, until it is closed
		case c.Kind == Synced:
			synced = true
			r.replace(fresh, max(revision, c.Revision), c.Store)
			fresh = nil
			wg.Go(func() { r.consume(queue) })
		default:
			fresh[c.Key] = c
			revision = max(revision, c.Revision)
		}
	}
	return synced, ErrUnavailable
}

// batchLimit bounds how many changes are applied at once.
const batchLimit = 1024

// consume applies changes, all that have come by now at once: rebuilding a
// large service's snapshot for each one would be too slow when thousands
// register.
func (r *Registry) consume(queue <-chan Change) {
	var grace <-chan time.Time
	if !r.graceEnd.IsZero() {
		timer := time.NewTimer(time.Until(r.graceEnd))
		defer timer.Stop()
		grace = timer.C
	}
	batch := make([]Change, 0, batchLimit)
	for {
		select {
		case c, ok := <-queue:
			if !ok {
				return
			}
			batch = append(batch[:0], c)
		case <-grace:
			r.dropOrphans()
			continue
		}
		for len(batch) < batchLimit && len(queue) > 0 {
			batch = append(batch, <-queue)
		}
		r.apply(batch)
	}
}

// orphanGrace is how long instances stay in the snapshot that the store has
// forgotten, for them to register again.
const orphanGrace = 10 * time.Second

// replace takes over a complete snapshot. Leases of the session before are
// void, so everything registered here is announced again.
//
// Should it be the snapshot of another store, as when its disk was lost, then
// that an instance is missing does not say that it is gone. Everybody is
// registering again at that moment, and gets some time for it.
func (r *Registry) replace(fresh map[Key]Change, revision uint64, store string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.Synced() && store != r.store {
		r.graceEnd = now.Add(orphanGrace)
	}
	// Another store starts over with its revisions.
	r.store, r.revision, r.err = store, revision, nil
	r.restart(r.change(r.view.difference(fresh, revision, now.Before(r.graceEnd))))
	r.settle()
	for k, g := range r.registrations {
		g.found(fresh[k])
	}
	if !r.Synced() {
		close(r.synced)
	}
}

func (r *Registry) dropOrphans() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restart(r.change(r.view.orphans(r.revision)))
	r.settle()
}

// change changes the snapshot. The lock is held.
func (r *Registry) change(batch []Change) []Event {
	for _, c := range batch {
		r.ledger.note(c)
	}
	return r.view.apply(batch)
}

func (r *Registry) apply(batch []Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, last := r.change(batch), r.revision
	for _, c := range batch {
		r.revision = max(r.revision, c.Revision)
	}
	r.publish(events, last)
	r.settle()
	for _, c := range batch {
		if g := r.registrations[c.Key]; g != nil {
			g.observe(c)
		}
	}
}

// Endpoints returns the instances of a service that are in rotation now, or
// nil. It is what the request path uses: a few atomic loads, no allocation.
// An endpoint stays the same one, with the load it has seen, while its
// instance lives.
func (r *Registry) Endpoints(service string) *balance.Set {
	if m := r.view.members(service); m != nil {
		return m.serving
	}
	return nil
}

// Pick lets p choose among the instances in rotation. Without one the error is
// a [*NoInstanceError].
func (r *Registry) Pick(service string, p balance.Picker) (*balance.Endpoint, error) {
	if e := p.Pick(r.Endpoints(service)); e != nil {
		return e, nil
	}
	return nil, &NoInstanceError{service}
}

// Discover returns the instances of a service that all filters match, ordered
// by id; never nil. Unless [WithStatus] says otherwise, only serving ones.
func (r *Registry) Discover(service string, filters ...Filter) []Instance {
	found := []Instance{}
	if m := r.view.members(service); m != nil {
		for _, rec := range m.records {
			if matches(&rec.instance, filters) {
				found = append(found, rec.instance.clone())
			}
		}
	}
	return found
}

// Get returns one instance, whatever its status.
func (r *Registry) Get(k Key) (Instance, bool) {
	if rec := r.view.get(k); rec != nil {
		return rec.instance.clone(), true
	}
	return Instance{}, false
}

// Services returns the names of the services that have instances, in order.
func (r *Registry) Services() []string { return r.view.names() }

// List returns all instances, whatever their status, ordered by service and
// id; never nil.
func (r *Registry) List() []Instance {
	return cloneAll(r.list(func(string) bool { return true }))
}

// list returns the instances of the wanted services. They share tags and
// metadata with the snapshot.
func (r *Registry) list(wants func(service string) bool) []Instance {
	all := []Instance{}
	for rec := range r.view.all() {
		if wants(rec.instance.Name) {
			all = append(all, rec.instance)
		}
	}
	return all
}

func (r *Registry) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

// backoff returns a wait that doubles from 50 ms to 5 s, less up to half of it.
func backoff(failures int) time.Duration {
	d := min(50*time.Millisecond<<min(failures, 10), 5*time.Second)
	return d/2 + rand.N(d/2)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
