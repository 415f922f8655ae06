package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// restoreSpread is over how long processes spread to look after the buckets:
// all of them are back at the same time, and the first one that looks does it.
const restoreSpread = 500 * time.Millisecond

// restore makes the buckets again each time the connection is back and they are
// not there, as when the server lost its disk. Nobody else would before some
// process connects anew. What is there stays as it is: if processes of two
// releases each had their settings put through, these would never come to rest.
func (e *Engine) restore(ctx context.Context, returned <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-returned:
		}
		wait := rand.N(restoreSpread)
		for attempt := 1; ; attempt++ {
			if !pause(ctx, wait) || !e.nc.IsConnected() { // then there will be another return
				break
			}
			err := e.restoreMissing(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			wait = reconnectWait(attempt)
			if !passing(err) {
				e.cfg.Logger.Error("engine buckets are missing and can't be made again now", "error", err)
				wait = time.Minute // somebody may mend that without a reconnect
			}
		}
	}
}

func (e *Engine) restoreMissing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	var errs error
	for _, want := range slices.Concat(buckets(), e.lazy()) {
		_, err := e.js.KeyValue(ctx, want.Bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			e.cfg.Logger.Warn("the engine came back without a bucket: making it again", "bucket", want.Bucket)
			want.Storage, want.Replicas = e.storage, e.replicas
			err = e.provision(ctx, want)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("restore bucket %s: %w", want.Bucket, e.explain(err)))
		}
	}
	return errs
}

// pause reports whether d went by before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
