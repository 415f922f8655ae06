package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// Errors an [Authenticator] answers with; see the package comment for what each means.
var (
	// ErrNoCredentials says that the request carries nothing this authenticator reads.
	ErrNoCredentials = errors.New("auth: no credentials")
	// ErrInvalidToken says that a token or key was sent and is refused. The error's text names the reason.
	ErrInvalidToken = errors.New("auth: invalid token")
	// ErrExpired says that the token was good once. It is an [ErrInvalidToken] too.
	ErrExpired error = &tokenError{reason: "the token has expired"}
	// ErrUnavailable says that a token cannot be verified now, because its issuer's keys could not be fetched.
	ErrUnavailable = errors.New("auth: the issuer's keys are not available")
	// ErrInsufficientScope says that a verified identity lacks a scope; see [ScopeError].
	ErrInsufficientScope = errors.New("auth: insufficient scope")
)

// tokenError is a refusal with its reason, a fixed text that never holds any part of the token.
type tokenError struct{ reason string }

func (e *tokenError) Error() string { return ErrInvalidToken.Error() + ": " + e.reason }
func (e *tokenError) Unwrap() error { return ErrInvalidToken }

func invalid(reason string) error { return &tokenError{reason: reason} }

// ScopeError names the scopes a request needs. It is an [ErrInsufficientScope].
type ScopeError struct {
	// Required are all scopes the request needs, not only those that are missing (RFC 6750, section 3).
	Required []string
}

// Error implements error.
func (e *ScopeError) Error() string {
	return ErrInsufficientScope.Error() + ": this needs " + strings.Join(e.Required, " ")
}

// Unwrap makes errors.Is(err, ErrInsufficientScope) true.
func (e *ScopeError) Unwrap() error { return ErrInsufficientScope }

// Identity is a verified sender. It must not be changed after an [Authenticator] has returned it, nor its Scopes and
// Claims: requests with the same token share one identity, at the same time and one after another.
type Identity struct {
	// Subject names the sender: never empty, at most 255 bytes of printable ASCII, so that it can be sent as a header.
	Subject string
	// Scopes are what the sender may do. None contains a space.
	Scopes []string
	// Claims are all claims of the token; nil for an API key.
	Claims map[string]any
	// Expires is the end of the token's life, without leeway; zero for an API key without an end.
	Expires time.Time
	// Issuer is who vouches for the subject; "" for an API key.
	Issuer string
}

// HasScopes reports whether the identity has every one of the scopes. A nil identity has none.
func (id *Identity) HasScopes(scopes ...string) bool {
	for _, s := range scopes {
		if id == nil || !slices.Contains(id.Scopes, s) {
			return false
		}
	}
	return true
}

// Require returns a [*ScopeError] if the identity lacks one of the scopes.
func (id *Identity) Require(scopes ...string) error {
	if id.HasScopes(scopes...) {
		return nil
	}
	return &ScopeError{Required: slices.Clone(scopes)}
}

type identityKey struct{}

// WithIdentity returns a context that carries the identity.
func WithIdentity(ctx context.Context, id *Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// FromContext returns the identity put in by [WithIdentity], and whether there is one.
func FromContext(ctx context.Context) (*Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(*Identity)
	return id, ok && id != nil
}

// Authenticator tells who sends a request. Implementations are safe for concurrent use, return promptly when ctx ends,
// and return a nil identity with every error.
type Authenticator interface {
	Authenticate(ctx context.Context, c Credentials) (*Identity, error)
}

// Func is a function as an [Authenticator].
type Func func(ctx context.Context, c Credentials) (*Identity, error)

// Authenticate calls f.
func (f Func) Authenticate(ctx context.Context, c Credentials) (*Identity, error) { return f(ctx, c) }

// Any asks the authenticators in turn. One that says [ErrNoCredentials] passes the request on to the next; the first
// other answer, an identity or a refusal, is final. So a bad token is never saved by a good key beside it. If all pass,
// or there is none, the answer is ErrNoCredentials.
func Any(authenticators ...Authenticator) Authenticator {
	authenticators = slices.Clone(authenticators)
	return Func(func(ctx context.Context, c Credentials) (*Identity, error) {
		for _, a := range authenticators {
			id, err := a.Authenticate(ctx, c)
			if errors.Is(err, ErrNoCredentials) {
				continue
			}
			return id, err
		}
		return nil, ErrNoCredentials
	})
}
