package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
)

const (
	maxKeyBytes   = 256 << 10 // of a key file or a fetched key set
	maxKeys       = 100       // in one of them: a token that names no key is tried with each
	minRSABits    = 2048      // NIST SP 800-131A
	maxRSABits    = 8192      // beyond it one verification takes milliseconds
	maxRSAPublicE = 1<<31 - 1 // as crypto/rsa has it
)

// Key is a public key of an issuer.
type Key struct {
	// ID is the "kid" of the tokens it verifies; a key without one is tried for every token.
	ID string
	// Algorithm is the only one the key is used with; "" means any that is allowed and fits the key.
	Algorithm string
	// Public is an ed25519.PublicKey, an *ecdsa.PublicKey (P-256, P-384, P-521) or an *rsa.PublicKey (2048–8192 bits).
	Public crypto.PublicKey
}

// ReadKeys reads public keys from a file, as [ParseKeys] does.
func ReadKeys(path string) ([]Key, error) {
	b, err := readLimited(path)
	if err != nil {
		return nil, fmt.Errorf("auth: read keys: %w", err)
	}
	keys, err := ParseKeys(b)
	if err != nil {
		return nil, fmt.Errorf("auth: read keys of %s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads public keys: PEM (PUBLIC KEY, RSA PUBLIC KEY, CERTIFICATE; several are allowed), a JWK, or a JWK set
// (RFC 7517). A private key is refused, for a verifier should not hold one. At most 256 KiB and 100 keys.
func ParseKeys(b []byte) ([]Key, error) {
	if len(b) > maxKeyBytes {
		return nil, fmt.Errorf("the keys have more than %d bytes", maxKeyBytes)
	}
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		return parseJWKFile(b)
	}
	var keys []Key
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		public, err := parseBlock(block)
		if err == nil {
			err = checkKey(public, "")
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, Key{Public: public})
		b = rest
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("no key found; give a public key as PEM (BEGIN PUBLIC KEY), a JWK or a JWK set")
	case len(bytes.TrimSpace(b)) > 0:
		return nil, errors.New("there is text after the last PEM block that is not one")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("there are more than %d keys", maxKeys)
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY":
		return nil, errPrivate
	default:
		return nil, errors.New("not a public key; expected PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE")
	}
}

var errPrivate = errors.New("this is a private key; give the public one (openssl pkey -in key.pem -pubout)")

func parseJWKFile(b []byte) ([]Key, error) {
	raws, err := splitJWKs(b)
	if err != nil {
		return nil, err
	}
	keys := make([]Key, 0, len(raws))
	for i, raw := range raws {
		jwk, err := parseJWK(raw)
		if err != nil {
			return nil, fmt.Errorf("JWK %d: %w", i+1, err)
		}
		m := jwk.Marshal()
		keys = append(keys, Key{ID: m.KID, Algorithm: m.ALG.String(), Public: jwk.Key()})
	}
	if len(keys) == 0 {
		return nil, errors.New("the JWK set is empty")
	}
	return keys, nil
}

// parseJWKS reads a fetched key set. As RFC 7517, section 5, asks, keys that cannot be used are passed over.
func parseJWKS(b []byte) ([]jwkset.JWK, error) {
	raws, err := splitJWKs(b)
	if err != nil {
		return nil, err
	}
	keys := make([]jwkset.JWK, 0, len(raws))
	for _, raw := range raws {
		if jwk, err := parseJWK(raw); err == nil {
			keys = append(keys, jwk)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no key that can verify a signature")
	}
	return keys, nil
}

// splitJWKs returns the keys of a JWK set, or the JWK itself if it is one.
func splitJWKs(b []byte) ([]json.RawMessage, error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
		Kty  string             `json:"kty"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, errors.New("not a JWK or JWK set: malformed JSON")
	}
	switch {
	case set.Keys == nil && set.Kty != "":
		return []json.RawMessage{b}, nil
	case set.Keys == nil:
		return nil, errors.New(`not a JWK or JWK set: it has neither "kty" nor "keys"`)
	case len(*set.Keys) > maxKeys:
		return nil, fmt.Errorf("the key set has more than %d keys", maxKeys)
	}
	return *set.Keys, nil
}

func parseJWK(raw json.RawMessage) (jwkset.JWK, error) {
	var private struct {
		D string `json:"d"`
		K string `json:"k"`
	}
	if err := json.Unmarshal(raw, &private); err != nil {
		return jwkset.JWK{}, errors.New("malformed JSON")
	}
	switch {
	case private.K != "":
		return jwkset.JWK{}, errors.New("this is a shared secret; only public keys are used")
	case private.D != "":
		return jwkset.JWK{}, errPrivate
	}
	jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return jwkset.JWK{}, fmt.Errorf("malformed or unsupported: %w", err)
	}
	m := jwk.Marshal()
	if m.USE != "" && m.USE != jwkset.UseSig || len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return jwkset.JWK{}, errors.New(`the key is not meant for signatures ("use" or "key_ops")`)
	}
	return jwk, checkKey(jwk.Key(), m.ALG.String())
}

// jwk checks the key and makes it one of the key store.
func (k Key) jwk() (jwkset.JWK, error) {
	if err := checkKey(k.Public, k.Algorithm); err != nil {
		return jwkset.JWK{}, err
	}
	alg := jwkset.ALG(k.Algorithm)
	if _, ok := k.Public.(ed25519.PublicKey); ok && alg == "" {
		alg = jwkset.AlgEdDSA
	}
	jwk, err := jwkset.NewJWKFromKey(k.Public, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{ALG: alg, KID: k.ID}})
	if err != nil {
		return jwkset.JWK{}, fmt.Errorf("use key: %w", err)
	}
	return jwk, nil
}

// checkKey returns an error unless the key is of a kind and strength tokens may be verified with, and the algorithm,
// unless it is "", is one for such a key.
func checkKey(public crypto.PublicKey, algorithm string) error {
	var fits []string
	switch k := public.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return errors.New("the Ed25519 key has a wrong length")
		}
		fits = []string{"EdDSA"}
	case *ecdsa.PublicKey:
		switch {
		case k != nil && k.Curve == elliptic.P256():
			fits = []string{"ES256"}
		case k != nil && k.Curve == elliptic.P384():
			fits = []string{"ES384"}
		case k != nil && k.Curve == elliptic.P521():
			fits = []string{"ES512"}
		default:
			return errors.New("the EC key is on a curve that is not supported; use P-256, P-384 or P-521")
		}
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.E < 3 || k.E > maxRSAPublicE || k.N.BitLen() < minRSABits || k.N.BitLen() > maxRSABits {
			return fmt.Errorf("the RSA key is malformed or of a wrong size; use %d to %d bits", minRSABits, maxRSABits)
		}
		fits = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case ed25519.PrivateKey, *ecdsa.PrivateKey, *rsa.PrivateKey:
		return errPrivate
	default:
		return errors.New("the key is of a kind that is not supported; use Ed25519, ECDSA or RSA")
	}
	if algorithm != "" && !slices.Contains(fits, algorithm) {
		return fmt.Errorf("algorithm %q does not fit the key; use %s", algorithm, strings.Join(fits, ", "))
	}
	return nil
}

// readLimited reads a regular file of at most maxKeyBytes.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readOpen(f)
}

func readOpen(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err == nil && len(b) > maxKeyBytes {
		err = fmt.Errorf("%s has more than %d bytes", f.Name(), maxKeyBytes)
	}
	return b, err
}
