package middleware

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/keelson-go/keelson/telemetry"
)

// HeaderRequestID carries a request's id, in the request and in its response.
const HeaderRequestID = "X-Request-Id"

const maxRequestID = 128

// RequestID gives each request an id: the client's X-Request-Id if there is
// exactly one and it is sane, else a new one of 32 hexadecimal digits. It is set
// on the response and, in place of the client's, on the request, so that a proxy
// passes it on; [telemetry.RequestID] finds it in the context.
//
// Sane is 1 to 128 ASCII letters, digits and any of "-_.:/+=@~". Ids are for
// finding things, not secret.
func RequestID() Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var id string
			if given := r.Header[HeaderRequestID]; len(given) == 1 && saneID(given[0]) {
				id = given[0]
			} else {
				id = newID()
				r.Header[HeaderRequestID] = []string{id}
			}
			w.Header()[HeaderRequestID] = []string{id}
			inner := r.WithContext(telemetry.ContextWithRequestID(r.Context(), id))
			know(inner.Context(), w)
			pass(next, w, r, inner)
		})
	}
}

func saneID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.:/+=@~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

func newID() string {
	var id [16]byte
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	return hex.EncodeToString(id[:])
}
