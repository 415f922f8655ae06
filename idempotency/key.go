package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
)

// Header names the client's key, ReplayedHeader marks an answer that was given
// before.
const (
	Header         = "Idempotency-Key"
	ReplayedHeader = "Idempotency-Replayed"
)

// MaxKey is the length of the longest key, in bytes: room for any UUID or hash.
const MaxKey = 255

// ErrKey is returned by [ParseKey] for what is no key.
var ErrKey = errors.New("the idempotency key must be one header of 1 to 255 visible ASCII characters without spaces, in double quotes or without")

// ParseKey reads the values of the header Idempotency-Key; "" means that there are
// none. The draft has the key as a string in double quotes (RFC 9651, section
// 3.3.3), most clients send it bare: both are the same key. In quotes, \" and \\
// stand for " and \. Everything else is [ErrKey].
func ParseKey(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || len(values[0]) > 2*MaxKey+2 {
		return "", ErrKey
	}
	key := values[0]
	if len(key) > 0 && key[0] == '"' {
		var ok bool
		if key, ok = unquote(key); !ok {
			return "", ErrKey
		}
	}
	if key == "" || len(key) > MaxKey {
		return "", ErrKey
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return "", ErrKey
		}
	}
	return key, nil
}

func unquote(s string) (string, bool) {
	out := make([]byte, 0, len(s))
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return string(out), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		out = append(out, s[i])
	}
	return "", false
}

// storeKey is where the answer to a caller's key on a route is kept.
func storeKey(scope, route, key string) string {
	h := sha256.New()
	write(h, scope)
	write(h, route)
	write(h, key)
	return hex.EncodeToString(h.Sum(nil))
}

// fingerprint is what two requests with the same key have to have in common.
func fingerprint(r *http.Request, body []byte) (f Fingerprint) {
	h := sha256.New()
	write(h, r.Method)
	write(h, r.URL.EscapedPath())
	write(h, r.URL.RawQuery)
	h.Write(body)
	h.Sum(f[:0])
	return f
}

// write writes s so that no two lists of texts are written alike.
func write(h hash.Hash, s string) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(s)))
	h.Write(length[:])
	h.Write([]byte(s))
}
