package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/registry/natsregistry"
)

// The buckets every Keelson process relies on.
const (
	InstancesBucket = natsregistry.InstancesBucket // service.instance → instance
	LeasesBucket    = natsregistry.LeasesBucket    // who is alive, with a TTL for each key
)

// buckets are the settings we insist on. What is not named here (placement,
// republishing, metadata, …) is the operator's.
//
// LimitMarkerTTL is what permits a TTL for a single key or removal marker, and
// how long the server keeps the marker that tells watchers of an expiry. It
// can be changed later but never taken away. History stays 1: with more, the
// server raises each TTL to LimitMarkerTTL.
//
// MaxBytes is reserved from the server's store at once, so it is kept modest:
// at about 1 KiB an instance, 128 MiB are room for 100,000.
func buckets() []jetstream.KeyValueConfig {
	return []jetstream.KeyValueConfig{{
		Bucket:         InstancesBucket,
		Description:    "Keelson: registered instances",
		History:        1,
		MaxValueSize:   64 << 10,
		MaxBytes:       128 << 20,
		LimitMarkerTTL: time.Hour,
	}, {
		Bucket:         LeasesBucket,
		Description:    "Keelson: leases",
		History:        1,
		MaxValueSize:   4 << 10,
		MaxBytes:       32 << 20,
		LimitMarkerTTL: time.Minute,
	}}
}

// provisionTries bounds the rounds of find, create, lost the race, find.
const provisionTries = 5

// Provision makes the buckets exist with the settings this version relies on.
// [Connect] and [Wrap] have called it; it may be called again, also by many
// processes at once. A bucket that is right already is only looked at, so
// credentials that may not create or change buckets are enough then. Storage
// and, unless Config.Replicas is set, a higher number of copies are left as
// they are.
func (e *Engine) Provision(ctx context.Context) error {
	for _, want := range buckets() {
		want.Storage, want.Replicas = e.storage, e.replicas
		if err := e.provision(ctx, want); err != nil {
			return fmt.Errorf("provision bucket %s: %w", want.Bucket, e.explain(err))
		}
	}
	return nil
}

func (e *Engine) provision(ctx context.Context, want jetstream.KeyValueConfig) (err error) {
	for range provisionTries {
		var kv jetstream.KeyValue
		kv, err = e.js.KeyValue(ctx, want.Bucket)
		if err == nil {
			return e.correct(ctx, kv, want)
		}
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}
		if _, err = e.js.CreateKeyValue(ctx, want); err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrBucketExists) {
			return err
		}
	}
	return err
}

// correct updates a bucket whose settings differ from ours, and only then: an
// update rewrites files a crash should rather not meet half-written.
func (e *Engine) correct(ctx context.Context, kv jetstream.KeyValue, want jetstream.KeyValueConfig) error {
	status, err := kv.Status(ctx)
	if err != nil {
		return err
	}
	bucket, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return fmt.Errorf("unknown status type %T", status)
	}
	has := bucket.StreamInfo().Config
	fixed := has
	fixed.Description = want.Description
	fixed.MaxMsgsPerSubject = int64(want.History)
	fixed.MaxMsgSize = want.MaxValueSize
	if has.MaxBytes >= 0 { // more than we ask for, or no limit, is the operator's choice
		fixed.MaxBytes = max(has.MaxBytes, want.MaxBytes)
	}
	fixed.MaxAge = 0
	fixed.AllowMsgTTL = true
	fixed.SubjectDeleteMarkerTTL = want.LimitMarkerTTL
	fixed.Discard = jetstream.DiscardNew // full: refuse, rather than forget an instance
	fixed.AllowDirect = true
	fixed.AllowRollup = true // purges are rollups
	fixed.Replicas = want.Replicas
	if e.cfg.Replicas == 0 {
		fixed.Replicas = max(has.Replicas, want.Replicas)
	}
	if has.Storage != want.Storage && has.Storage == jetstream.MemoryStorage {
		e.cfg.Logger.Warn("engine bucket is kept in memory only: it is lost when the server stops", "bucket", want.Bucket)
	}
	if reflect.DeepEqual(has, fixed) {
		return nil
	}
	_, err = e.js.UpdateStream(ctx, fixed)
	return err
}

// Error codes of the server that have a remedy worth telling.
const (
	codeNoPeers      jetstream.ErrorCode = 10005 // no suitable peers for placement
	codeNoResources  jetstream.ErrorCode = 10023 // insufficient resources
	codeMemoryFull   jetstream.ErrorCode = 10028 // insufficient memory resources
	codeStorageFull  jetstream.ErrorCode = 10047 // insufficient storage resources
	codeNotClustered jetstream.ErrorCode = 10074 // replicas > 1 not supported
)

func (e *Engine) explain(err error) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeNoPeers, codeNotClustered:
			return fmt.Errorf("%w: the engine can't keep %d copies now: bring up more of its servers, or set Replicas to what it has", err, e.replicas)
		case codeMemoryFull, codeStorageFull, codeNoResources:
			return fmt.Errorf("%w: raise the engine's limits or free space", err)
		}
	}
	return askError(e.nc, err)
}
