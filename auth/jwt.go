package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// DefaultLeeway is how far the clocks of issuer and verifier may be apart.
const DefaultLeeway = 30 * time.Second

const maxLeeway = 5 * time.Minute

// algorithms are those of RFC 7518 and RFC 8037 with a public key. A shared secret (HS…) is deliberately not among
// them: a verifier that takes both can be made to use a public key as the secret.
var algorithms = []string{
	"EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
}

// JWTConfig says whose tokens are accepted. Issuer, Audience and at least one of Keys and JWKS are required.
type JWTConfig struct {
	// Keys are the issuer's public keys, if they are known beforehand; see [ReadKeys].
	Keys []Key
	// JWKS is the address of the issuer's key set (RFC 7517): https, or http on a loopback host only.
	JWKS string
	// Issuer must be the token's "iss".
	Issuer string
	// Audience must be among the token's "aud".
	Audience string
	// Algorithms that are allowed; empty: EdDSA, ES256/384/512, RS256/384/512, PS256/384/512. No other can be allowed.
	Algorithms []string
	// Leeway is added to both ends of a token's life: 0 means [DefaultLeeway], a negative one none; at most 5 minutes.
	Leeway time.Duration
	// RefreshInterval is how often the key set is fetched, which bounds how long a withdrawn key is still accepted:
	// 0 means 15 minutes; at least 1 minute.
	RefreshInterval time.Duration
	// Transport fetches the key set; nil means one of its own with the settings of http.DefaultTransport.
	Transport http.RoundTripper
}

// JWT verifies bearer tokens. It is safe for concurrent use.
//
// Keys of a JWKS address are fetched in the background: at once, then every RefreshInterval, and sooner when a token
// names a key that is not known. However many such tokens come, this happens at most every 30 seconds, and each caller
// waits at most 2 seconds (and at most 64 callers at a time) for a fetch under way; callers whose key is known
// never wait. A failed fetch is retried after 1 to 30 seconds; meanwhile the keys of the last good one stay in use, and
// tokens of a key not among them get [ErrUnavailable].
//
// A token that was verified is remembered for at most a minute, so that a client that sends it again does not cost
// another signature check; see the package comment.
type JWT struct {
	parser *jwt.Parser
	store  *jwkset.MemoryJWKSet
	find   keyfunc.Keyfunc
	allow  []string
	leeway time.Duration

	// unnamed are the configured keys without an ID: candidates for a token whatever key ID it names.
	unnamed jwt.VerificationKeySet
	remote  *remote // nil without a JWKS address

	// verified is behind an atomic pointer, though it never changes, because fmt follows no such pointer: of a plain one
	// it would print the tokens for some verbs, such as %s.
	verified atomic.Pointer[cache]
	// keySet is the version of the key set. It is counted up after the set has changed, and read before a token is
	// verified: so a token verified with older keys is never remembered as one of the newer version.
	keySet atomic.Uint64
}

// NewJWT checks the configuration and starts fetching the key set, if there is a JWKS address. It does not wait for it:
// an issuer that is away at start is tried again until it answers. Fetching stops when ctx ends or at [JWT.Close].
func NewJWT(ctx context.Context, cfg JWTConfig) (*JWT, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New(`auth: JWT issuer is empty; set it to the "iss" of the tokens to accept`)
	case cfg.Audience == "":
		return nil, errors.New(`auth: JWT audience is empty; set it to the "aud" of the tokens to accept`)
	case len(cfg.Keys) == 0 && cfg.JWKS == "":
		return nil, errors.New("auth: JWT has neither keys nor a JWKS address; give at least one of them")
	case cfg.Leeway > maxLeeway:
		return nil, fmt.Errorf("auth: JWT leeway %v is too long; use at most %v", cfg.Leeway, maxLeeway)
	case cfg.RefreshInterval != 0 && cfg.RefreshInterval < time.Minute:
		return nil, fmt.Errorf("auth: JWT refresh interval %v is too short; use at least 1m, or 0 for %v",
			cfg.RefreshInterval, defaultRefresh)
	}
	allow := slices.Clone(cfg.Algorithms)
	if len(allow) == 0 {
		allow = algorithms
	}
	for _, a := range allow {
		if !slices.Contains(algorithms, a) {
			return nil, fmt.Errorf("auth: JWT algorithm %q cannot be allowed; use some of %s", a, strings.Join(algorithms, ", "))
		}
	}
	leeway := cfg.Leeway
	if leeway == 0 {
		leeway = DefaultLeeway
	}
	leeway = max(leeway, 0)

	j := &JWT{
		allow:  allow,
		leeway: leeway,
		store:  jwkset.NewMemoryStorage(),
		parser: jwt.NewParser(
			jwt.WithValidMethods(allow),
			jwt.WithIssuer(cfg.Issuer),
			jwt.WithAudience(cfg.Audience),
			jwt.WithExpirationRequired(),
			jwt.WithLeeway(leeway),
			jwt.WithStrictDecoding(),
		),
	}
	j.verified.Store(newCache())
	fixed := make([]jwkset.JWK, 0, len(cfg.Keys))
	for i, k := range cfg.Keys {
		jwk, err := k.jwk()
		if err != nil {
			return nil, fmt.Errorf("auth: JWT key %d: %w", i+1, err)
		}
		fixed = append(fixed, jwk)
		if k.ID == "" {
			j.unnamed.Keys = append(j.unnamed.Keys, k.Public)
		}
	}
	if err := j.store.KeyReplaceAll(ctx, fixed); err != nil {
		return nil, fmt.Errorf("auth: store JWT keys: %w", err)
	}
	var err error
	if j.find, err = keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: j.store}); err != nil {
		return nil, fmt.Errorf("auth: JWT keys: %w", err)
	}
	if cfg.JWKS == "" {
		return j, nil
	}
	var last []jwkset.JWK
	j.remote, err = newRemote(cfg, func(ctx context.Context, keys []jwkset.JWK) error {
		if reflect.DeepEqual(last, keys) {
			return nil
		}
		// The configured keys come first: of two keys with one ID, the first is used.
		if err := j.store.KeyReplaceAll(ctx, slices.Concat(fixed, keys)); err != nil {
			return err
		}
		last = keys
		j.keySet.Add(1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	j.remote.start(ctx)
	return j, nil
}

// Close stops fetching keys and waits until that has ended. The keys known so far stay in use. It may be called twice.
func (j *JWT) Close() {
	if j.remote != nil {
		j.remote.close()
	}
}

// Check returns an error as long as the last fetch of the key set failed; nil without a JWKS address. Its signature is
// that of a health check.
func (j *JWT) Check(context.Context) error {
	if j.remote == nil {
		return nil
	}
	return j.remote.problem()
}

// Authenticate verifies the bearer token of the Authorization header: its signature by a key of the issuer, "iss",
// "aud", "exp", "nbf" if there is one, and that "sub" and the scopes (from "scope" or "scp") are well-formed.
func (j *JWT) Authenticate(ctx context.Context, c Credentials) (*Identity, error) {
	raw, err := bearer(c)
	if err != nil {
		return nil, err
	}
	keys := j.keySet.Load()
	if id := j.verified.Load().get(raw, keys, time.Now()); id != nil {
		return id, nil
	}
	if !isToken68(raw) {
		return nil, invalid("the token has a character no bearer token has")
	}
	claims, known, err := j.verify(ctx, raw)
	if err != nil && !known && j.remote != nil {
		// A fetch may have ended just after the keys were looked at.
		if j.remote.refresh(ctx) || j.keySet.Load() != keys {
			keys = j.keySet.Load()
			claims, known, err = j.verify(ctx, raw)
		}
		if err != nil && !known && j.remote.problem() != nil {
			return nil, fmt.Errorf("%w: the last fetch failed", ErrUnavailable)
		}
	}
	if err != nil {
		return nil, refusal(err)
	}
	id, err := identity(claims)
	if err != nil {
		return nil, err
	}
	j.remember(raw, id, keys)
	return id, nil
}

// remember puts a verified token into the cache. Its life is worked out as the parser does, so that both agree to the
// nanosecond on when it ends.
func (j *JWT) remember(raw string, id *Identity, keys uint64) {
	v := verified{id: id, keys: keys, expires: id.Expires.Add(j.leeway)}
	switch nbf, err := jwt.MapClaims(id.Claims).GetNotBefore(); {
	case err != nil:
		return // the parser has refused such a token; without this limit none is to be trusted
	case nbf != nil:
		v.notBefore = nbf.Add(-j.leeway)
	}
	j.verified.Load().add(raw, v, time.Now())
}

// verify checks everything but what [identity] reads. known is false if a key that is not known yet may be the token's.
func (j *JWT) verify(ctx context.Context, raw string) (claims jwt.MapClaims, known bool, err error) {
	claims = jwt.MapClaims{}
	known = true
	_, err = j.parser.ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
		// RFC 7515, section 4.1.11: extensions a verifier does not understand but the issuer calls critical.
		if _, ok := t.Header["crit"]; ok {
			return nil, errCritical
		}
		known = false
		if t.Header[jwkset.HeaderKID] == "" {
			delete(t.Header, jwkset.HeaderKID)
		}
		key, err := j.find.KeyfuncCtx(ctx)(t)
		switch {
		case errors.Is(err, jwkset.ErrKeyNotFound) && len(j.unnamed.Keys) > 0:
			return j.unnamed, nil
		case err != nil:
			known = !errors.Is(err, jwkset.ErrKeyNotFound)
			return nil, err
		}
		// A key found by its ID is the one; of a token that names none, the right key may not have been fetched yet.
		_, several := key.(jwt.VerificationKeySet)
		known = !several
		return key, nil
	})
	if err == nil || !errors.Is(err, jwt.ErrTokenSignatureInvalid) && !errors.Is(err, jwt.ErrTokenUnverifiable) {
		known = true
	}
	return claims, known, err
}

var errCritical = errors.New("critical extension")

// refusal turns an error of the parser, which may quote the token, into one with a fixed reason.
func refusal(err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.is) {
			return r.err
		}
	}
	return invalid("the token cannot be verified")
}

var refusals = []struct {
	is  error
	err error
}{
	{jwt.ErrTokenMalformed, invalid("the token is malformed")},
	{errCritical, invalid("the token has a critical extension that is not supported")},
	{jwt.ErrTokenUnverifiable, invalid("no key is known for the token, or its algorithm is not allowed")},
	{jwt.ErrTokenSignatureInvalid, invalid("the signature is wrong, or its algorithm is not allowed")},
	{jwt.ErrTokenExpired, ErrExpired},
	{jwt.ErrTokenNotValidYet, invalid("the token is not valid yet")},
	{jwt.ErrTokenInvalidIssuer, invalid("the token is from another issuer")},
	{jwt.ErrTokenInvalidAudience, invalid("the token is for another audience")},
	{jwt.ErrTokenRequiredClaimMissing, invalid("the token lacks a required claim (exp, iss or aud)")},
	{jwt.ErrTokenInvalidClaims, invalid("a claim of the token is not valid")},
}

// identity reads the claims of a verified token.
func identity(claims jwt.MapClaims) (*Identity, error) {
	subject, err := claims.GetSubject()
	if err != nil || !validSubject(subject) {
		return nil, invalid("the token's sub is missing or malformed")
	}
	scopes, ok := tokenScopes(claims)
	if !ok {
		return nil, invalid("the token's scopes are malformed")
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return nil, invalid("the token's exp is malformed")
	}
	issuer, err := claims.GetIssuer()
	if err != nil {
		return nil, invalid("the token's iss is malformed")
	}
	return &Identity{Subject: subject, Scopes: scopes, Claims: claims, Expires: expires.Time, Issuer: issuer}, nil
}

// tokenScopes reads "scope" (RFC 8693, section 4.2: one string with spaces), or without it "scp"; issuers write either
// as a string or as an array. A scope in an array must not hold a space: it would become two further down.
func tokenScopes(claims jwt.MapClaims) ([]string, bool) {
	v, ok := claims["scope"]
	if !ok {
		if v, ok = claims["scp"]; !ok {
			return nil, true
		}
	}
	var scopes []string
	switch v := v.(type) {
	case string:
		scopes = strings.Fields(v)
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			scopes = append(scopes, s)
		}
	default:
		return nil, false
	}
	for _, s := range scopes {
		if !validScope(s) {
			return nil, false
		}
	}
	return scopes, true
}
