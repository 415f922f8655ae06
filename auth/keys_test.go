package auth_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keelson-go/keelson/auth"
)

func publicPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func certificatePEM(t testing.TB) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, edKey().Public(), edKey())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	set := jwks("one", edKey())
	jwk := set[strings.Index(set, `{"kty":"OKP"`):]
	jwk = jwk[:strings.Index(jwk, "}")+1]
	private, err := x509.MarshalPKCS8PrivateKey(edKey())
	must(err)
	rsaPKCS1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)})

	for name, tt := range map[string]struct {
		text []byte
		want int    // number of keys
		err  string // part of the error, if there is to be one
	}{
		"Ed25519 PEM":    {publicPEM(t, edKey().Public()), 1, ""},
		"PKCS #1":        {rsaPKCS1, 1, ""},
		"certificate":    {certificatePEM(t), 1, ""},
		"several PEM":    {bytes.Join([][]byte{publicPEM(t, edKey().Public()), publicPEM(t, ecKey().Public()), rsaPKCS1}, []byte("\n")), 3, ""},
		"JWK":            {[]byte(jwk), 1, ""},
		"JWK set":        {[]byte(` {"keys":[` + jwk + `]}`), 1, ""},
		"private PEM":    {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0, "private key"},
		"private JWK":    {[]byte(strings.Replace(jwk, `{`, `{"d":"AAAA",`, 1)), 0, "private key"},
		"secret JWK":     {[]byte(`{"kty":"oct","k":"AAAA"}`), 0, "shared secret"},
		"set with a bad": {[]byte(set), 0, "JWK 1"},
		"JWK for HS256":  {[]byte(strings.Replace(jwk, `{`, `{"alg":"HS256",`, 1)), 0, "JWK 1"},
		"JWK to encrypt": {[]byte(strings.Replace(jwk, `"use":"sig"`, `"use":"enc"`, 1)), 0, "not meant"},
		"empty set":      {[]byte(`{"keys":[]}`), 0, "empty"},
		"other JSON":     {[]byte(`{"a":1}`), 0, "neither"},
		"empty":          {nil, 0, "no key"},
		"text":           {[]byte("hello"), 0, "no key"},
		"PEM and text":   {append(publicPEM(t, edKey().Public()), "hello"...), 0, "after the last"},
		"broken PEM":     {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), 0, "block 1"},
		"too long":       {bytes.Repeat([]byte(" "), 256<<10+1), 0, "262144"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := auth.ParseKeys(tt.text)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || len(keys) != tt.want {
				t.Fatalf("%d keys, %v", len(keys), err)
			}
			if _, err := auth.NewJWT(t.Context(), auth.JWTConfig{Issuer: issuer, Audience: audience, Keys: keys}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(path, publicPEM(t, edKey().Public()), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	j := newJWT(t, auth.JWTConfig{Issuer: issuer, Audience: audience, Keys: keys})
	if _, err := j.Authenticate(t.Context(), bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims(), kid("any")))); err != nil {
		t.Error(err)
	}
	for _, path := range []string{path + ".none", filepath.Dir(path)} {
		if _, err := auth.ReadKeys(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want one that names %s", err, path)
		}
	}
}
