package idempotency

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"
)

// ErrLost is wrapped by errors of a claim that another request holds now, because
// its lease had expired. It is also the cause with which a handler's context ends
// when its claim is lost.
var ErrLost = errors.New("the claim on the idempotency key is lost")

// ErrUnavailable is wrapped by errors of a [Store] that can't be used now: out of
// reach, or full. Of a database the errors are as its driver has them.
var ErrUnavailable = errors.New("the store for idempotency keys is not available")

// Store keeps claims and answers for all instances of a service. Implementations
// are safe for concurrent use, also by several processes, and give up when the
// context ends; what they were asked for may then be done or not.
//
// Packages sqlidempotency and natsidempotency have one each, [Memory] is for one
// process, and package idempotencytest tests them.
type Store interface {
	// Claim takes the key for c.Owner until c.Lease has passed, if nobody has it,
	// and otherwise tells what is there. Of several at once exactly one gets it. A
	// claim of the same owner again gets it again.
	Claim(ctx context.Context, c Claim) (Outcome, error)
	// Renew makes the claim last for c.Lease from now. It is ErrLost if the claim
	// expired and somebody else has the key or it was given back; if the claim
	// expired and nobody took it, the error is nil or ErrLost.
	Renew(ctx context.Context, c Claim) error
	// Complete keeps the answer for c.TTL. It is ErrLost if somebody else has the key
	// by now; that the claim expired is no hindrance. Doing it twice does no harm. An
	// answer too large for the store is kept with Omitted, and without header and body.
	Complete(ctx context.Context, c Claim, a Answer) error
	// Release gives the claim back, so that the next one gets the key at once.
	// It does nothing if the claim is no longer c.Owner's, or is completed.
	Release(ctx context.Context, c Claim) error
}

// Fingerprint tells one request from another that has the same key.
type Fingerprint [sha256.Size]byte

// Claim is one request's hold on a key.
type Claim struct {
	// Key is the key in the store: 64 hexadecimal digits, made of caller, route and
	// the client's key.
	Key         string
	Fingerprint Fingerprint
	// Owner is unique to this request: 26 letters and digits.
	Owner string
	// Lease is how long the claim lasts if it is not renewed, and TTL how long an
	// answer is kept. Stores round both up to whole seconds where they must.
	Lease, TTL time.Duration
}

// State is what a [Store] has for a key.
type State int

// The states.
const (
	Claimed    State = iota + 1 // the key is the claimant's now
	InProgress                  // somebody else has claimed it
	Completed                   // there is an answer
)

// String names the state as in logs.
func (s State) String() string {
	switch s {
	case Claimed:
		return "claimed"
	case InProgress:
		return "in progress"
	case Completed:
		return "completed"
	}
	return "unknown"
}

// Outcome is what came of a claim.
type Outcome struct {
	State State
	// Fingerprint is that of the request that has the key, unless State is Claimed.
	Fingerprint Fingerprint
	// Answer is set if State is Completed.
	Answer Answer
}

// Answer is a response, as it is kept.
type Answer struct {
	Status int         // 0 if only that the request was carried out is known
	Header http.Header // without what belongs to one connection or one request
	Body   []byte
	// Omitted says that header and body were not kept, so that the answer can't be
	// sent again.
	Omitted bool
}

type claimKey struct{}

// ClaimFrom returns the claim under which a request is carried out; false for one
// without a key. ctx is the request's context.
func ClaimFrom(ctx context.Context) (Claim, bool) {
	c, ok := ctx.Value(claimKey{}).(Claim)
	return c, ok
}

// ContextWithClaim returns a context whose [ClaimFrom] is c, for what carries out
// requests in another way than by [Middleware].
func ContextWithClaim(ctx context.Context, c Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, c)
}
