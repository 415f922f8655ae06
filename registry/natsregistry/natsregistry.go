// Package natsregistry keeps the registry's records in NATS JetStream.
//
// Records are in the key-value bucket keelson_instances under
// "service.instance", leases in keelson_leases under the same keys: clients
// watch the records only, so that a heartbeat costs none of them anything.
//
// A lease is a key with a time to live that names the NATS connection of its
// holder. A registry node also listens, on a connection to the system account,
// for connections that end; it then knows within milliseconds that a process
// was killed. Without a system account the time to live alone works.
//
// Registry nodes elect their leader by one more lease, under a key that is no
// instance's: see [Driver.Lead].
//
// The time to live is set by publishing to the key's subject: the client's own
// Put and Update would drop it, and the key would then never expire.
package natsregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/registry"
)

// The buckets, which package engine provisions.
const (
	InstancesBucket = "keelson_instances"
	LeasesBucket    = "keelson_leases"
)

const (
	// markerTTL is how long the store remembers that a key is gone. A watcher
	// begins with everything there is, so it need not remember it for long.
	markerTTL = time.Minute

	// flushTimeout bounds the wait for the server to have a subscription.
	flushTimeout = 3 * time.Second

	// auditEvery is how often a watch makes sure that the bucket it follows is
	// still the one that is there.
	auditEvery = 30 * time.Second

	operationHeader = "KV-Operation"
	opDelete        = "DEL"
)

// Driver implements [registry.Driver]. It is safe for concurrent use. It owns
// neither connection.
type Driver struct {
	nc        *nats.Conn
	sys       *nats.Conn
	js        jetstream.JetStream
	instances jetstream.KeyValue
	leases    jetstream.KeyValue
	log       *slog.Logger
	audit     time.Duration
}

// Option changes a default of [New].
type Option func(*Driver)

// WithSystem gives a connection to the system account, on which the ends of
// other connections are told. Registry nodes need it to notice a killed process
// at once instead of when its lease expires.
func WithSystem(nc *nats.Conn) Option { return func(d *Driver) { d.sys = nc } }

// WithLogger sets where records that can't be read are reported; nowhere by
// default.
func WithLogger(l *slog.Logger) Option { return func(d *Driver) { d.log = l } }

// New returns a driver over nc. The buckets must exist: see package engine.
func New(ctx context.Context, nc *nats.Conn, opts ...Option) (*Driver, error) {
	d := &Driver{nc: nc, log: slog.New(slog.DiscardHandler), audit: auditEvery}
	for _, o := range opts {
		o(d)
	}
	var err error
	if d.js, err = jetstream.New(nc); err != nil {
		return nil, fmt.Errorf("natsregistry: %w", err)
	}
	if d.instances, err = d.js.KeyValue(ctx, InstancesBucket); err != nil {
		return nil, fmt.Errorf("natsregistry: open bucket %s: %w", InstancesBucket, unavailable(err))
	}
	if d.leases, err = d.js.KeyValue(ctx, LeasesBucket); err != nil {
		return nil, fmt.Errorf("natsregistry: open bucket %s: %w", LeasesBucket, unavailable(err))
	}
	return d, nil
}

// holder is a lease's value: the connection it ends with.
type holder struct {
	Server string `json:"server"`
	Client uint64 `json:"client"`
}

// Register implements [registry.Driver]. The lease is written first, so that no
// registry node ever sees the record without one.
func (d *Driver) Register(ctx context.Context, in registry.Instance, ttl time.Duration) (revision uint64, err error) {
	record, err := in.Encode()
	if err != nil {
		return 0, fmt.Errorf("natsregistry: register %s: %w", in.Key(), err)
	}
	err = d.connected(ctx, func(ctx context.Context) error {
		if err := d.renew(ctx, in.Key(), ttl); err != nil {
			return err
		}
		revision, err = d.instances.Put(ctx, in.Key().String(), record)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("natsregistry: register %s: %w", in.Key(), err)
	}
	return revision, nil
}

// Renew implements [registry.Driver].
func (d *Driver) Renew(ctx context.Context, k registry.Key, ttl time.Duration) error {
	err := d.connected(ctx, func(ctx context.Context) error { return d.renew(ctx, k, ttl) })
	if err != nil {
		return fmt.Errorf("natsregistry: renew %s: %w", k, err)
	}
	return nil
}

func (d *Driver) renew(ctx context.Context, k registry.Key, ttl time.Duration) error {
	h, err := d.holder()
	if err != nil {
		return err
	}
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = d.js.PublishMsg(ctx, &nats.Msg{Subject: leaseSubject(k.String()), Data: value}, jetstream.WithMsgTTL(ttl))
	return err
}

func leaseSubject(key string) string { return "$KV." + LeasesBucket + "." + key }

// holder returns the connection that stands now.
func (d *Driver) holder() (holder, error) {
	client, err := d.nc.GetClientID()
	if err != nil {
		return holder{}, err
	}
	server := d.nc.ConnectedServerId()
	if server == "" { // it has just been lost, or is being closed
		return holder{}, nats.ErrDisconnected
	}
	return holder{server, client}, nil
}

// Update implements [registry.Driver].
func (d *Driver) Update(ctx context.Context, in registry.Instance, revision uint64) (next uint64, err error) {
	record, err := in.Encode()
	if err != nil {
		return 0, fmt.Errorf("natsregistry: update %s: %w", in.Key(), err)
	}
	err = d.connected(ctx, func(ctx context.Context) error {
		next, err = d.instances.Update(ctx, in.Key().String(), record, revision)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("natsregistry: update %s: %w", in.Key(), err)
	}
	return next, nil
}

// Deregister implements [registry.Driver].
func (d *Driver) Deregister(ctx context.Context, k registry.Key, revision uint64) error {
	err := d.connected(ctx, func(ctx context.Context) error {
		if revision != 0 {
			return d.removeAt(ctx, k, revision)
		}
		return d.remove(ctx, k)
	})
	if err != nil {
		return fmt.Errorf("natsregistry: deregister %s: %w", k, err)
	}
	return nil
}

func (d *Driver) removeAt(ctx context.Context, k registry.Key, revision uint64) error {
	err := d.instances.Purge(ctx, k.String(), jetstream.PurgeTTL(markerTTL), jetstream.LastRevision(revision))
	if conflicts(err) {
		if _, getErr := d.instances.Get(ctx, k.String()); errors.Is(getErr, jetstream.ErrKeyNotFound) {
			return nil
		}
	}
	return err
}

func (d *Driver) remove(ctx context.Context, k registry.Key) error {
	lease, err := d.leases.Get(ctx, k.String())
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	// The record first: should only that be done, the lease ends by itself.
	if err := d.instances.Purge(ctx, k.String(), jetstream.PurgeTTL(markerTTL)); err != nil {
		return err
	}
	if lease == nil {
		return nil
	}
	return d.release(ctx, k.String(), lease.Revision())
}

// release gives back a lease that is still at revision. Purge is also what an
// expiry looks like; only DEL says that the lease was given back, and the
// client's Delete would leave it there for ever.
func (d *Driver) release(ctx context.Context, key string, revision uint64) error {
	msg := &nats.Msg{Subject: leaseSubject(key), Header: nats.Header{operationHeader: {opDelete}}}
	_, err := d.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(markerTTL), jetstream.WithExpectLastSequencePerSubject(revision))
	if conflicts(err) {
		return nil // it is a successor's lease now
	}
	return err
}

// errLost ends the context of operations whose answer will not come any more.
var errLost = errors.New("the connection was lost")

// connected runs an operation while the connection stands; when that is lost,
// waiting for the answer until ctx ends would only hold up the next try. It
// translates errors into the registry's.
func (d *Driver) connected(ctx context.Context, operation func(context.Context) error) error {
	lost := d.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer d.nc.RemoveStatusListener(lost)
	if !d.nc.IsConnected() {
		return fmt.Errorf("%w: not connected", registry.ErrUnavailable)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		select {
		case <-lost:
			cancel(errLost)
		case <-ctx.Done():
		}
	})
	err := operation(ctx)
	switch {
	case conflicts(err):
		return fmt.Errorf("%w: %w", registry.ErrConflict, err)
	case err != nil && errors.Is(context.Cause(ctx), errLost):
		return fmt.Errorf("%w: %w", registry.ErrUnavailable, errLost)
	}
	return unavailable(err)
}

// Watch implements [registry.Driver].
func (d *Driver) Watch(ctx context.Context) iter.Seq2[registry.Change, error] {
	return func(yield func(registry.Change, error) bool) {
		if err := d.watch(ctx, yield); err != nil && ctx.Err() == nil {
			yield(registry.Change{}, fmt.Errorf("natsregistry: watch: %w", err))
		}
	}
}

func (d *Driver) watch(ctx context.Context, yield func(registry.Change, error) bool) error {
	return d.follow(ctx, d.instances, nil, func(e jetstream.KeyValueEntry, store string) bool {
		if e == nil {
			return yield(registry.Change{Kind: registry.Synced, Store: store}, nil)
		}
		k, err := registry.ParseKey(e.Key())
		if err != nil {
			d.log.Warn("a record in the registry has a strange key; it is left out", "key", e.Key(), "error", err)
			return true
		}
		c, err := change(k, e)
		if err != nil {
			d.log.Warn("a record in the registry can't be read; it is left out", "key", e.Key(), "error", err)
		}
		return yield(c, nil)
	})
}

// change reads an entry of the instances bucket. A record that can't be read is
// none.
func change(k registry.Key, e jetstream.KeyValueEntry) (registry.Change, error) {
	none := registry.Change{Kind: registry.Delete, Key: k, Revision: e.Revision()}
	if e.Operation() != jetstream.KeyValuePut {
		return none, nil
	}
	in, err := registry.Decode(e.Value())
	if err != nil {
		return none, err
	}
	if in.Key() != k {
		return none, fmt.Errorf("the record is of %s", in.Key())
	}
	return registry.Change{Kind: registry.Put, Key: k, Instance: in, Revision: e.Revision()}, nil
}

// conflicts reports whether a record was not at the expected revision.
func conflicts(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// unavailable marks what NATS says when it can't be reached, or has not got the
// streams (yet).
func unavailable(err error) error {
	for _, e := range []error{
		nats.ErrConnectionClosed, nats.ErrDisconnected, nats.ErrNoServers, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrBucketNotFound,
		jetstream.ErrStreamNotFound, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
		}
	}
	return err
}
