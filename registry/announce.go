package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/health"
)

var (
	// ErrUnknown says that the registry has no such instance.
	ErrUnknown = errors.New("registry: no such instance")
	// ErrOwnLease says that the process of an instance has registered it by itself
	// and renews its own lease: nobody else can do either for it.
	ErrOwnLease = errors.New("registry: the instance has registered itself, and renews its own lease")
	// ErrFull says that no more can be announced: see [MaxAnnounced].
	ErrFull = errors.New("registry: as much is announced as may be")
)

// showTimeout is how long a change waits to be seen in the snapshot, so that
// who made it finds it there.
const showTimeout = time.Second

// amendTries bounds how often a change is tried again after somebody else was
// faster.
const amendTries = 10

// TTL returns how long a lease lasts without being renewed.
func (r *Registry) TTL() time.Duration { return r.ttl }

// Announce registers an instance for a process that can't do so itself, in one
// write. in.Lease says what will renew the lease: [LeaseChecks], which needs
// in.Health, or [LeaseHeartbeats]. Nothing renews it by itself, and after the
// store has lost it nobody registers it again.
//
// An instance renewed by checks is [health.Starting] until it passes the first
// one, any other is [health.Healthy] at once; in.Status does not count. The same
// record again, while the instance is in rotation, renews the lease and changes
// nothing else. Any other replaces what is there, with a new RegisteredAt, and
// ends a drain.
//
// The result is the instance as it is registered, and whether its key was
// unknown before. It is in the snapshot then, unless the store is slow. The error
// is a [*FieldError]; [ErrOwnLease] if a [Registration] holds the key and is in
// rotation; [ErrFull]; [ErrClosed]; [ErrUnavailable], or another error of the
// driver.
func (r *Registry) Announce(ctx context.Context, in Instance) (out Instance, created bool, err error) {
	in = in.clone()
	if in.Lease != LeaseChecks && in.Lease != LeaseHeartbeats {
		return Instance{}, false, &FieldError{"lease", "is not one that others renew", "use checks or heartbeats"}
	}
	in.Status, in.Announced = health.Healthy, ""
	if in.Lease == LeaseChecks {
		in.Status = health.Starting
	}
	in.RegisteredAt, in.LastHeartbeat = time.Now().UTC().Round(0), time.Time{}
	if err := in.checkAnnounced(); err != nil {
		return Instance{}, false, err
	}
	k := in.Key()
	if err := r.usable(k); err != nil {
		return Instance{}, false, err
	}
	before := r.view.get(k)
	switch {
	case r.ownLease(k, before):
		return Instance{}, false, fmt.Errorf("registry: announce %s: %w", k, ErrOwnLease)
	case before != nil && before.instance.Lease == in.Lease && before.instance.Status.Serving() && sameRecord(before.instance, in):
		in.Status, in.RegisteredAt = before.instance.Status, before.instance.RegisteredAt
	}
	done, err := r.admit(in)
	if err != nil {
		return Instance{}, false, fmt.Errorf("registry: announce %s: %w", k, err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	revision, err := r.driver.Register(ctx, in, r.ttl)
	if err != nil {
		return Instance{}, false, fmt.Errorf("registry: announce %s: %w", k, err)
	}
	r.awaitRevision(ctx, revision)
	return in, before == nil, nil
}

func (i *Instance) checkAnnounced() error {
	if err := i.Normalize(); err != nil {
		return err
	}
	if i.Lease == LeaseChecks && i.Health == "" {
		return &FieldError{"health", "is missing", "give the URL whose checks are to renew the lease"}
	}
	if err := i.checkTarget(); err != nil {
		return err
	}
	_, err := i.Encode()
	return err
}

// ownLease reports whether a live [Registration] holds k, here or elsewhere.
func (r *Registry) ownLease(k Key, rec *record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.registrations[k] != nil {
		return true
	}
	if rec == nil || rec.instance.Lease != LeaseConnection {
		return false
	}
	in := rec.instance
	return in.Status.Serving() || in.Status == health.Draining && in.Announced.Serving()
}

// Heartbeat renews the lease of an instance that was announced. One that is out
// of rotation only because its lease had ended is taken back by a registry node,
// which follows leases. The error is [ErrUnknown], upon which the instance is to
// be announced again; [ErrOwnLease]; [ErrClosed]; [ErrUnavailable], or another
// error of the driver.
func (r *Registry) Heartbeat(ctx context.Context, k Key) error {
	rec, err := r.stored(k)
	if err != nil {
		return err
	}
	if rec.instance.Lease == LeaseConnection {
		return fmt.Errorf("registry: heartbeat of %s: %w", k, ErrOwnLease)
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := r.driver.Renew(ctx, k, r.ttl); err != nil {
		return fmt.Errorf("registry: heartbeat of %s: %w", k, err)
	}
	return nil
}

// Remove removes an instance whatever its revision, and its lease. That it is
// unknown is no error. One that a live [Registration] holds is back at once. The
// error is [ErrClosed], [ErrUnavailable], or another one of the driver.
func (r *Registry) Remove(ctx context.Context, k Key) error {
	if _, err := ParseKey(k.String()); err != nil {
		return nil // there can be no instance of this key
	}
	if err := r.usable(k); err != nil {
		return err
	}
	before := r.view.get(k)
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := r.driver.Deregister(ctx, k, 0); err != nil {
		return fmt.Errorf("registry: remove %s: %w", k, err)
	}
	if before != nil && before.revision != orphan {
		r.await(ctx, func() bool { return r.view.get(k) != before })
	}
	return nil
}

// Drain takes an instance out of rotation by hand: its status becomes
// [health.Draining], and Announced what it was. Checks don't undo this; Undrain
// does, and so does what the instance itself says later. One that is draining
// already stays as it is. The result is the instance as it is then. The error is
// [ErrUnknown], [ErrClosed], [ErrUnavailable], or another one of the driver.
func (r *Registry) Drain(ctx context.Context, k Key) (Instance, error) {
	return r.amend(ctx, "drain", k, func(in *Instance) bool {
		if in.Status == health.Draining {
			return false
		}
		in.Status, in.Announced = health.Draining, cmp.Or(in.Announced, in.Status)
		return true
	})
}

// Undrain takes back what Drain did. An instance that was not drained by hand
// stays as it is. Result and errors are as for Drain.
func (r *Registry) Undrain(ctx context.Context, k Key) (Instance, error) {
	return r.amend(ctx, "undrain", k, func(in *Instance) bool {
		if in.Status != health.Draining || in.Announced == "" {
			return false
		}
		in.Status, in.Announced = in.Announced, ""
		return true
	})
}

// amend changes a record that nobody else changes meanwhile. change reports
// whether it did anything.
func (r *Registry) amend(ctx context.Context, what string, k Key, change func(*Instance) bool) (Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	for tries := 1; ; tries++ {
		rec, err := r.stored(k)
		if err != nil {
			return Instance{}, err
		}
		in := rec.instance.clone()
		if !change(&in) {
			return in, nil
		}
		revision, err := r.driver.Update(ctx, in, rec.revision)
		if err == nil {
			r.awaitRevision(ctx, revision)
			return in, nil
		}
		// A conflict: the snapshot is behind, or is told in a moment.
		if !errors.Is(err, ErrConflict) || tries == amendTries || !r.await(ctx, func() bool { return r.view.get(k) != rec }) {
			return Instance{}, fmt.Errorf("registry: %s %s: %w", what, k, err)
		}
	}
}

// usable returns why nothing can be done to k now: what the store has under it
// has to be known.
func (r *Registry) usable(k Key) error {
	switch {
	case r.isClosed():
		return fmt.Errorf("registry: %s: %w", k, ErrClosed)
	case r.Synced():
		return nil
	}
	if err := r.Err(); err != nil { // else the first snapshot has come just now
		return fmt.Errorf("registry: %s: %w", k, err)
	}
	return nil
}

// stored returns the record that the store has under k, as far as is known. That
// there is none can be told only while the store is followed.
func (r *Registry) stored(k Key) (*record, error) {
	if err := r.usable(k); err != nil {
		return nil, err
	}
	if rec := r.view.get(k); rec != nil && rec.revision != orphan {
		return rec, nil
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("registry: %s: %w (%w)", k, ErrUnavailable, err)
	}
	return nil, fmt.Errorf("registry: %s: %w", k, ErrUnknown)
}

// awaitRevision waits until the snapshot shows what was written at revision.
func (r *Registry) awaitRevision(ctx context.Context, revision uint64) {
	r.mu.Lock()
	store := r.history.store
	r.mu.Unlock()
	r.await(ctx, func() bool { return r.revision >= revision || r.history.store != store })
}

// await waits until ok, which is called with the lock held, is true of the
// snapshot; at most for showTimeout. It reports whether it is.
func (r *Registry) await(ctx context.Context, ok func() bool) bool {
	done := make(chan struct{})
	r.mu.Lock()
	if ok() {
		r.mu.Unlock()
		return true
	}
	r.awaited[done] = ok
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	defer cancel()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-r.closed:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.awaited, done)
	return false
}

// settle wakes those whose wait is over. The lock is held.
func (r *Registry) settle() {
	for done, ok := range r.awaited {
		if ok() {
			close(done)
			delete(r.awaited, done)
		}
	}
}
