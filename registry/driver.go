package registry

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Errors drivers return, wrapped with what was being done.
var (
	// ErrConflict says that the record changed since the revision that was given.
	ErrConflict = errors.New("registry: the record has changed meanwhile")
	// ErrUnavailable says that the store can't be reached now.
	ErrUnavailable = errors.New("registry: the store is unavailable")
)

// Driver is the store under a [Registry]. Drivers are dumb: loops, retries,
// snapshots and probing are the registry's. All methods are safe for
// concurrent use and honour their context.
type Driver interface {
	// Register creates or replaces the record of a normalized instance and
	// gives it a lease that ends with the driver's current connection, or
	// after ttl without Renew. It returns the record's revision.
	Register(ctx context.Context, in Instance, ttl time.Duration) (revision uint64, err error)

	// Renew makes the lease last ttl from now, on the current connection. It
	// is a blind write: it neither reads nor touches the record.
	Renew(ctx context.Context, key Key, ttl time.Duration) error

	// Update replaces a record that is still at revision, and leaves the lease
	// alone. Otherwise it fails with ErrConflict.
	Update(ctx context.Context, in Instance, revision uint64) (uint64, error)

	// Deregister removes the record. With revision 0, the wish of the instance
	// itself, it does so whatever the record's revision, and gives the lease
	// back. Otherwise the record has to be at revision still, else it fails
	// with ErrConflict, and the lease is left to end by itself: it may be that
	// of a successor. That the key is unknown is no error.
	Deregister(ctx context.Context, key Key, revision uint64) error

	// Watch yields every record as a Put, then one Synced, then each change as
	// it happens, in the order of the revisions. A change that the next one of
	// the same record has overtaken may be left out. Removals that the store
	// remembers may come before Synced too. It yields an error, and ends, when changes may
	// have been missed, as after a lost connection; leases of before are then
	// void. The caller watches again. It ends without one when ctx does.
	Watch(ctx context.Context) iter.Seq2[Change, error]

	// Leases yields every lease as Held, then one LeasesSynced, then each
	// change as it happens. Errors and ctx are as for Watch. A lease that is
	// found Lost may be Held again later. Only registry nodes call it.
	Leases(ctx context.Context) iter.Seq2[LeaseChange, error]

	// Lead campaigns for the leadership among registry nodes until ctx ends.
	// It yields true once the caller leads, and false as soon as it may not any
	// more, before anybody else can; then it campaigns again. At most one
	// caller leads at a time, however many there are. It never gives up while
	// the store is away. The consumer takes each value at once and does the
	// leading elsewhere: inside the loop nothing could tell it to stop. When
	// ctx ends, a leader is told false, and when its loop ends, however it
	// does, the leadership is given back.
	Lead(ctx context.Context) iter.Seq[bool]
}

// ChangeKind says what a [Change] is.
type ChangeKind int

// Kinds of changes.
const (
	Put    ChangeKind = iota + 1 // the record was created or replaced
	Delete                       // the record was removed
	Synced                       // everything that was there at the start has been told
)

// Change is a change of one record in the store.
type Change struct {
	Kind     ChangeKind
	Key      Key
	Instance Instance // of a Put
	Revision uint64
	Store    string // of Synced: which store this is; another one after it lost its records
}

// LeaseState says what a [LeaseChange] is.
type LeaseState int

// States of a lease.
const (
	LeaseHeld         LeaseState = iota + 1 // given or renewed
	LeaseExpired                            // its time to live is over
	LeaseDisconnected                       // the connection that held it has ended
	LeaseReleased                           // given back by Deregister
	LeasesSynced                            // everything that was there at the start has been told
)

// LeaseChange is a change of one instance's lease.
type LeaseChange struct {
	State LeaseState
	Key   Key
	At    time.Time // when it was given or renewed, of LeaseHeld
}
