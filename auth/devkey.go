package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The issuer and the audience of tokens made with a [DevKey].
const (
	DevIssuer   = "keelson-dev"
	DevAudience = "keelson"
)

const (
	defaultSubject = "dev"
	defaultTTL     = time.Hour
)

// DevKey is the Ed25519 key a project's developer signs tokens with on his own machine. It is safe for concurrent use.
type DevKey struct {
	id      string
	private ed25519.PrivateKey
}

// LoadOrCreateDevKey reads the key from a PKCS #8 PEM file, and first makes the file, and the folder for it, if there
// is none. The file is complete from the moment it has its name: when several processes start together, one of them
// makes it and all agree on its key. A file that others than its owner may read or write is refused.
func LoadOrCreateDevKey(path string) (*DevKey, error) {
	k, err := loadDevKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := createDevKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("auth: create development key: %w", err)
	}
	return loadDevKey(path)
}

func loadDevKey(path string) (*DevKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("auth: read development key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("auth: read development key: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("auth: development key %s can be read or written by others (mode %04o); run: chmod 600 %[1]s", path, perm)
	}
	b, err := readOpen(f)
	if err != nil {
		return nil, fmt.Errorf("auth: read development key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("auth: development key %s is not a PKCS #8 PEM file; delete it to get a new one", path)
	}
	// The parser's errors say nothing of use here, and this way no part of the key can get into a log.
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := key.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("auth: development key %s is not an Ed25519 key; delete it to get a new one", path)
	}
	return newDevKey(private), nil
}

func newDevKey(private ed25519.PrivateKey) *DevKey {
	public := private.Public().(ed25519.PublicKey)
	// The key ID is the key's RFC 7638 thumbprint: the members in order, as RFC 8037, appendix A.3, shows.
	thumbprint := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`))
	return &DevKey{id: base64.RawURLEncoding.EncodeToString(thumbprint[:]), private: private}
}

// createDevKey writes a new key beside path and links it to path, which fails with fs.ErrExist if another was faster.
func createDevKey(path string) (err error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".dev.key-*") // 0600, O_EXCL
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // linked or not, this name goes
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// ID returns the key's ID, the "kid" of its tokens: its RFC 7638 thumbprint.
func (k *DevKey) ID() string { return k.id }

// Public returns the public half.
func (k *DevKey) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// TokenRequest says what is to be in a token of [DevKey.Mint].
type TokenRequest struct {
	// Subject is the token's "sub": at most 255 printable ASCII characters; "" means "dev".
	Subject string
	// Scopes are what the token allows; each is an RFC 6749 scope-token, so without spaces.
	Scopes []string
	// TTL is how long it is valid; 0 means 1 hour; at least 1 second.
	TTL time.Duration
}

// Mint makes a token, signed with EdDSA, that the verifier of [DevKey.JWTConfig] accepts from now on for its TTL.
func (k *DevKey) Mint(req TokenRequest) (string, error) {
	if req.Subject == "" {
		req.Subject = defaultSubject
	}
	if req.TTL == 0 {
		req.TTL = defaultTTL
	}
	if !validSubject(req.Subject) {
		return "", errors.New("auth: mint token: the subject must be 1 to 255 printable ASCII characters")
	}
	if req.TTL < time.Second {
		return "", fmt.Errorf("auth: mint token: TTL %v is too short; use at least 1s", req.TTL)
	}
	if i := slices.IndexFunc(req.Scopes, func(s string) bool { return !validScope(s) }); i >= 0 {
		return "", fmt.Errorf(`auth: mint token: scope %q must be printable ASCII without space, " and \`, req.Scopes[i])
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": DevIssuer,
		"aud": DevAudience,
		"sub": req.Subject,
		"jti": rand.Text(),
		"iat": now.Unix(),
		"nbf": now.Unix(),
		"exp": now.Add(req.TTL).Unix(),
	}
	if len(req.Scopes) > 0 {
		claims["scope"] = strings.Join(req.Scopes, " ")
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	t.Header["kid"] = k.id
	s, err := t.SignedString(k.private)
	if err != nil {
		return "", fmt.Errorf("auth: mint token: %w", err)
	}
	return s, nil
}

// JWTConfig returns the configuration of a verifier that accepts this key's tokens and no others.
func (k *DevKey) JWTConfig() JWTConfig {
	return JWTConfig{
		Keys:       []Key{{ID: k.id, Algorithm: "EdDSA", Public: k.Public()}},
		Issuer:     DevIssuer,
		Audience:   DevAudience,
		Algorithms: []string{"EdDSA"},
	}
}
