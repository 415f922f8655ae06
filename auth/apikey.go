package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// DefaultAPIKeyHeader is the header an API key is sent in, unless another is chosen.
const DefaultAPIKeyHeader = "X-Api-Key" //nolint:gosec // a header's name, not a key

const maxAPIKeyBytes = 512

// APIKey is one key that is accepted, known by its hash alone.
type APIKey struct {
	// Hash is the SHA-256 of the key as 64 hexadecimal digits; see [HashAPIKey].
	Hash string
	// Subject is who sends the key: at most 255 printable ASCII characters.
	Subject string
	// Scopes are what the key allows.
	Scopes []string
	// Expires is the key's end; zero means none.
	Expires time.Time
}

// GenerateAPIKey returns a new random key of at least 128 bits and the hash to store.
func GenerateAPIKey() (key, hash string) {
	key = "kk_" + rand.Text()
	return key, HashAPIKey(key)
}

// HashAPIKey returns the hash to store for a key. It is a fast hash, good only for keys that cannot be guessed, such as
// those of [GenerateAPIKey]; it is not one for passwords.
func HashAPIKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// APIKeys accepts requests that carry one of a set of keys. It is safe for concurrent use.
type APIKeys struct {
	header string
	keys   []apiKey
}

type apiKey struct {
	hash [sha256.Size]byte
	id   Identity
}

// NewAPIKeys returns an authenticator for the keys, sent in the named header ("" means [DefaultAPIKeyHeader]).
func NewAPIKeys(header string, keys ...APIKey) (*APIKeys, error) {
	if header == "" {
		header = DefaultAPIKeyHeader
	}
	if strings.ContainsFunc(header, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) {
		return nil, errors.New("auth: the API key header's name is not a valid header name")
	}
	a := &APIKeys{header: textproto.CanonicalMIMEHeaderKey(header)}
	if len(keys) == 0 {
		return nil, errors.New("auth: no API keys given")
	}
	for i, k := range keys {
		var e apiKey
		b, err := hex.DecodeString(k.Hash)
		switch {
		case err != nil || len(b) != len(e.hash):
			return nil, fmt.Errorf("auth: API key %d: the hash is not a SHA-256 of 64 hexadecimal digits", i+1)
		case !validSubject(k.Subject):
			return nil, fmt.Errorf("auth: API key %d: the subject must be 1 to 255 printable ASCII characters", i+1)
		case slices.ContainsFunc(k.Scopes, func(s string) bool { return !validScope(s) }):
			return nil, fmt.Errorf(`auth: API key %d: a scope must be printable ASCII without space, " and \`, i+1)
		}
		copy(e.hash[:], b)
		if slices.ContainsFunc(a.keys, func(o apiKey) bool { return o.hash == e.hash }) {
			return nil, fmt.Errorf("auth: API key %d is listed twice", i+1)
		}
		e.id = Identity{Subject: k.Subject, Scopes: slices.Clone(k.Scopes), Expires: k.Expires}
		a.keys = append(a.keys, e)
	}
	return a, nil
}

// Authenticate looks the key up by its hash. It compares with every key in constant time, so its duration says nothing
// about how much of a guess was right, nor which key matched.
func (a *APIKeys) Authenticate(_ context.Context, c Credentials) (*Identity, error) {
	key, err := single(c, a.header)
	if err != nil {
		return nil, err
	}
	if len(key) > maxAPIKeyBytes {
		return nil, invalid("the API key is too long")
	}
	hash := sha256.Sum256([]byte(key))
	found := -1
	for i := range a.keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], a.keys[i].hash[:]), i, found)
	}
	if found < 0 {
		return nil, invalid("the API key is not known")
	}
	id := a.keys[found].id
	if !id.Expires.IsZero() && !time.Now().Before(id.Expires) {
		return nil, ErrExpired
	}
	return &id, nil
}
