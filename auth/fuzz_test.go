package auth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keelson-go/keelson/auth"
)

// Nothing but the one good token is ever accepted, and no error quotes what was sent.
func FuzzAuthorization(f *testing.F) {
	j := newJWT(f, allKeys())
	good := sign(f, jwt.SigningMethodEdDSA, edKey(), claims(), kid("ed"))
	for _, s := range []string{
		"", "Bearer", "Bearer ", "bearer " + good, "Bearer  " + good, "Basic eA==", "Bearer a.b.c", "Bearer " + good[:len(good)-1],
		"Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer eyJhbGciOiJFZERTQSIsImtpZCI6W119.e30.", "Bearer e30.e30.", "Bearer ...",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		id, err := j.Authenticate(t.Context(), auth.FromHeader(http.Header{"Authorization": {value}}))
		if err == nil {
			if fields := strings.Fields(value); len(fields) != 2 || fields[1] != good || id.Subject != "ann" {
				t.Fatalf("accepted %q as %+v", value, id)
			}
			return
		}
		if id != nil || !errors.Is(err, auth.ErrNoCredentials) && !errors.Is(err, auth.ErrInvalidToken) {
			t.Fatalf("%v, %v", id, err)
		}
		for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '.' || r == ' ' }) {
			if len(part) > 16 && strings.Contains(err.Error(), part) {
				t.Fatalf("error quotes the token: %v", err)
			}
		}
	})
}

// Whatever is read as a key can be used as one.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(jwks("one", edKey())))
	f.Add(publicPEM(f, edKey().Public()))
	f.Add(publicPEM(f, ecKey().Public()))
	f.Add(certificatePEM(f))
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`))
	f.Add([]byte(`{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256"}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := auth.ParseKeys(b)
		if err != nil {
			return
		}
		j, err := auth.NewJWT(t.Context(), auth.JWTConfig{Issuer: issuer, Audience: audience, Keys: keys})
		if err != nil {
			t.Fatalf("parsed, but refused: %v", err)
		}
		j.Close()
	})
}
