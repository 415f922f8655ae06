package natsregistry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/registry"
)

// follow calls on for each entry of a bucket, with nil behind those that were
// there at the start, and with which store this is; and also.on for what comes
// from there. It goes on until ctx ends, on returns false, or something may have
// been missed, which is an error.
func (d *Driver) follow(ctx context.Context, kv jetstream.KeyValue, also *alsoFollow, on func(e jetstream.KeyValueEntry, store string) bool) error {
	status := d.nc.StatusChanged()
	defer d.nc.RemoveStatusListener(status)
	if err := waitConnected(ctx, d.nc, status); err != nil {
		return err
	}
	return d.connected(ctx, func(ctx context.Context) error { return d.followBucket(ctx, kv, also, on) })
}

// followBucket is follow on one connection: ctx ends with it.
func (d *Driver) followBucket(ctx context.Context, kv jetstream.KeyValue, also *alsoFollow, on func(e jetstream.KeyValueEntry, store string) bool) error {
	store, err := identity(ctx, kv)
	if err != nil {
		return err
	}
	w, end, err := watchKeys(ctx, kv, jetstream.AllKeys)
	if err != nil {
		return err
	}
	defer end()
	audit := time.NewTicker(d.audit)
	defer audit.Stop()
	var messages <-chan *nats.Msg
	var system <-chan nats.Status
	if also != nil {
		messages, system = also.messages, also.status
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-system:
			if s != nats.CONNECTED {
				return fmt.Errorf("%w: the connection to the system account was lost", registry.ErrUnavailable)
			}
		case m := <-messages:
			if !also.on(m) {
				return nil
			}
		case e, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("%w: the watch was ended", registry.ErrUnavailable)
			}
			if !on(e, store) {
				return nil
			}
		case <-audit.C:
			// In a bucket made in its place, a watch waits for a revision far off.
			now, err := identity(ctx, kv)
			if err == nil && now != store || errors.Is(err, jetstream.ErrStreamNotFound) {
				return fmt.Errorf("%w: the bucket %s was removed", registry.ErrUnavailable, kv.Bucket())
			}
		}
	}
}

// watchKeys starts a watch that goes on until end is called, which returns when
// nothing more comes from it. Its own Stop would wait for the server to confirm
// that the consumer is removed, in vain if the connection is being lost; with its
// context, the client does that behind the scenes, and the server removes a
// consumer that nobody listens to by itself.
func watchKeys(ctx context.Context, kv jetstream.KeyValue, keys string) (w jetstream.KeyWatcher, end func(), err error) {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(ctx, stop) // only while the watch is being made
	w, err = kv.Watch(watching, keys)
	inTime := unlink()
	if err != nil {
		stop()
		return nil, nil, err
	}
	return w, func() {
		stop()
		// If ctx ended just before Watch returned, the watcher may not have
		// noticed, and then it never closes its channel.
		var quiet <-chan time.Time
		if !inTime {
			quiet = time.After(time.Second)
		}
		for {
			// The watcher blocks until what it has at hand is taken.
			select {
			case _, ok := <-w.Updates():
				if !ok {
					return
				}
			case <-quiet:
				return
			}
		}
	}, nil
}

// identity tells a bucket from one that was made in its place.
func identity(ctx context.Context, kv jetstream.KeyValue) (string, error) {
	status, err := kv.Status(ctx)
	if err != nil {
		return "", err
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return "", fmt.Errorf("unknown status type %T", status)
	}
	return s.StreamInfo().Created.Format(time.RFC3339Nano), nil
}

// waitConnected waits for the connection to stand.
func waitConnected(ctx context.Context, nc *nats.Conn, status <-chan nats.Status) error {
	for !nc.IsConnected() {
		if nc.IsClosed() {
			return fmt.Errorf("%w: the connection is closed", registry.ErrUnavailable)
		}
		select {
		case <-status:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
