package idempotencytest

import (
	"context"
	"sync/atomic"

	"github.com/keelson-go/keelson/idempotency"
)

// stalling is a way to a store on which renewals get nowhere once it is stalled.
type stalling struct {
	idempotency.Store
	stalled atomic.Bool
}

// Renew implements [idempotency.Store].
func (s *stalling) Renew(ctx context.Context, c idempotency.Claim) error {
	if s.stalled.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.Renew(ctx, c)
}
