//go:build linux

package e2e_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// forge has what is needed to make tokens the CLI would not make.
type forge struct {
	t      *testing.T
	key    ed25519.PrivateKey
	header map[string]any
	claims map[string]any
}

// newForge takes the development key and a good token apart.
func newForge(p *project) *forge {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, ".keelson", "dev.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		p.t.Fatal(err)
	}
	f := &forge{t: p.t, key: key.(ed25519.PrivateKey)}
	p.bearer()
	f.header, f.claims = parts(p.t, p.token)
	return f
}

// parts reads a token without verifying it.
func parts(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	for i, into := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(segments[i])
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func (f *forge) segment(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// with returns the good claims with some changed; nil takes one out.
func (f *forge) with(changes map[string]any) map[string]any {
	claims := maps.Clone(f.claims)
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// sign makes a token whose signature is right.
func (f *forge) sign(changes map[string]any) string {
	return f.signBy(f.key, changes)
}

func (f *forge) signBy(key ed25519.PrivateKey, changes map[string]any) string {
	text := f.segment(f.header) + "." + f.segment(f.with(changes))
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(text)))
}

// none makes one without a signature.
func (f *forge) none(alg string) string {
	return f.segment(map[string]any{"alg": alg, "typ": "JWT"}) + "." + f.segment(f.claims) + "."
}

// hmac takes the public key, which everybody may know, for a shared secret.
func (f *forge) hmac(secret []byte) string {
	header := maps.Clone(f.header)
	header["alg"] = "HS256"
	text := f.segment(header) + "." + f.segment(f.claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// forgeries are tokens that must all be refused.
func (f *forge) forgeries() map[string]string {
	public := f.key.Public().(ed25519.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		f.t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	good := f.sign(nil)
	now := time.Now().Unix()
	return map[string]string{
		"no token at all":                 "x",
		"cut off":                         good[:len(good)-4],
		"without signature":               good[:strings.LastIndexByte(good, '.')+1],
		"claims of another token":         f.segment(f.header) + "." + f.segment(f.with(map[string]any{"sub": "admin"})) + good[strings.LastIndexByte(good, '.'):],
		"alg none":                        f.none("none"),
		"alg None":                        f.none("None"),
		"alg empty":                       f.none(""),
		"HS256 with the raw public key":   f.hmac(public),
		"HS256 with the public key's DER": f.hmac(spki),
		"HS256 with the public key's PEM": f.hmac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})),
		"another key":                     f.signBy(other, nil),
		"expired":                         f.sign(map[string]any{"exp": now - 3600}),
		"no expiry":                       f.sign(map[string]any{"exp": nil}),
		"not valid yet":                   f.sign(map[string]any{"nbf": now + 3600}),
		"wrong audience":                  f.sign(map[string]any{"aud": "somebody-else"}),
		"no audience":                     f.sign(map[string]any{"aud": nil}),
		"wrong issuer":                    f.sign(map[string]any{"iss": "https://evil.example"}),
		"no subject":                      f.sign(map[string]any{"sub": nil}),
		"a subject with a line break":     f.sign(map[string]any{"sub": "dev\r\nX-Auth-Scopes: all"}),
	}
}
