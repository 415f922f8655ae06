package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/natsidempotency"
)

// IdempotencyBucket has the keys of requests that are carried out once, and their
// answers. It is made when it is first asked for.
const IdempotencyBucket = natsidempotency.Bucket

// idempotencyBucket is room for 250,000 answers of 1 KiB, which a day keeps at three
// requests a second. Full, it refuses new keys rather than forget old ones; an
// operator may raise it.
func idempotencyBucket() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:         IdempotencyBucket,
		Description:    "Keelson: idempotency keys and answers",
		History:        1,
		MaxValueSize:   natsidempotency.MaxValue,
		MaxBytes:       256 << 20,
		LimitMarkerTTL: time.Second,
	}
}

// Idempotency returns the store of a service's idempotency keys on this engine,
// which all of its instances share, for idempotency.Middleware. The first call
// provisions the bucket. The store works for as long as the engine's connection.
//
// A service that keeps its data in SQL does better with package sqlidempotency, in
// its own database: there key and data can be decided in one transaction.
func (e *Engine) Idempotency(ctx context.Context, service string) (idempotency.Store, error) {
	if err := e.provisionLazy(ctx, idempotencyBucket()); err != nil {
		return nil, err
	}
	return natsidempotency.New(ctx, e.Conn(), service)
}

// provisionLazy makes a bucket that not every process needs, once.
func (e *Engine) provisionLazy(ctx context.Context, want jetstream.KeyValueConfig) error {
	known := func(c jetstream.KeyValueConfig) bool { return c.Bucket == want.Bucket }
	if slices.ContainsFunc(e.lazy(), known) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	want.Storage, want.Replicas = e.storage, e.replicas
	if err := e.provision(ctx, want); err != nil {
		return fmt.Errorf("provision bucket %s: %w", want.Bucket, e.explain(err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.ContainsFunc(e.wanted, known) {
		e.wanted = append(e.wanted, want)
	}
	return nil
}

// lazy returns the buckets that were asked for.
func (e *Engine) lazy() []jetstream.KeyValueConfig {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.wanted)
}
