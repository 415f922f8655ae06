package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/auth"
)

const (
	issuer   = "https://issuer.example"
	audience = "orders"
)

// Keys are costly to make, so all tests share them.
var (
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); must(err); return k })
	otherKey = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); must(err); return k })
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { k, err := rsa.GenerateKey(rand.Reader, 2048); must(err); return k })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return k
	})
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// claims returns good claims, changed by the pairs; a nil value removes a claim.
func claims(pairs ...any) jwt.MapClaims {
	now := time.Now()
	c := jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "ann", "scope": "read write",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(c, pairs[i].(string))
		} else {
			c[pairs[i].(string)] = pairs[i+1]
		}
	}
	return c
}

func sign(t testing.TB, method jwt.SigningMethod, key any, c jwt.MapClaims, header map[string]any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, c)
	maps.Copy(tok.Header, header)
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kid(id string) map[string]any { return map[string]any{"kid": id} }

func bearer(token string) auth.Credentials {
	return auth.FromHeader(http.Header{"Authorization": {"Bearer " + token}})
}

func newJWT(t testing.TB, cfg auth.JWTConfig) *auth.JWT {
	t.Helper()
	j, err := auth.NewJWT(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func allKeys() auth.JWTConfig {
	return auth.JWTConfig{Issuer: issuer, Audience: audience, Keys: []auth.Key{
		{ID: "ed", Public: edKey().Public()},
		{ID: "rsa", Algorithm: "RS256", Public: rsaKey().Public()},
		{ID: "ec", Public: ecKey().Public()},
	}}
}

func TestJWTAccepts(t *testing.T) {
	t.Parallel()
	j := newJWT(t, allKeys())
	ed := jwt.SigningMethodEdDSA
	for name, token := range map[string]string{
		"EdDSA":                       sign(t, ed, edKey(), claims(), kid("ed")),
		"RS256":                       sign(t, jwt.SigningMethodRS256, rsaKey(), claims(), kid("rsa")),
		"ES256":                       sign(t, jwt.SigningMethodES256, ecKey(), claims(), kid("ec")),
		"no kid, several keys":        sign(t, jwt.SigningMethodES256, ecKey(), claims(), nil),
		"empty kid, several keys":     sign(t, ed, edKey(), claims(), kid("")),
		"one audience of several":     sign(t, ed, edKey(), claims("aud", []string{"else", audience}), kid("ed")),
		"expired within the leeway":   sign(t, ed, edKey(), claims("exp", time.Now().Add(-15*time.Second).Unix()), kid("ed")),
		"not before, within leeway":   sign(t, ed, edKey(), claims("nbf", time.Now().Add(15*time.Second).Unix()), kid("ed")),
		"without nbf":                 sign(t, ed, edKey(), claims("nbf", nil), kid("ed")),
		"scp as an array":             sign(t, ed, edKey(), claims("scope", nil, "scp", []string{"read", "write"}), kid("ed")),
		"scp as a string":             sign(t, ed, edKey(), claims("scope", nil, "scp", "read write"), kid("ed")),
		"scope wins over scp":         sign(t, ed, edKey(), claims("scp", "admin"), kid("ed")),
		"scope with spaces around it": sign(t, ed, edKey(), claims("scope", "  read   write "), kid("ed")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := j.Authenticate(t.Context(), bearer(token))
			if err != nil {
				t.Fatal(err)
			}
			if id.Subject != "ann" || id.Issuer != issuer {
				t.Errorf("subject %q of issuer %q", id.Subject, id.Issuer)
			}
			if diff := cmp.Diff([]string{"read", "write"}, id.Scopes); diff != "" {
				t.Error(diff)
			}
			if until := time.Until(id.Expires); until < -time.Minute || until > time.Hour {
				t.Errorf("expires in %v", until)
			}
			if id.Claims["iss"] != issuer {
				t.Errorf("claims %v", id.Claims)
			}
		})
	}
}

func TestJWTRefuses(t *testing.T) {
	t.Parallel()
	j := newJWT(t, allKeys())
	ed := jwt.SigningMethodEdDSA
	good := sign(t, ed, edKey(), claims(), kid("ed"))
	parts := strings.Split(good, ".")

	der, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	must(err)
	rsaPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	payload := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + issuer + `","aud":"` + audience + `","sub":"root","exp":99999999999}`))
	other := base64.RawURLEncoding.EncodeToString

	for name, tt := range map[string]struct {
		token  string
		reason string // part of the error's text
	}{
		"alg none":                         {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(), nil), "signature"},
		"alg none with a key's id":         {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(), kid("ed")), "signature"},
		"alg None, unsigned":               {other([]byte(`{"alg":"None"}`)) + "." + payload + ".", "algorithm"},
		"HS256 with the public key's PEM":  {sign(t, jwt.SigningMethodHS256, rsaPEM, claims(), kid("rsa")), "algorithm"},
		"HS256 with the public key's DER":  {sign(t, jwt.SigningMethodHS256, der, claims(), kid("rsa")), "algorithm"},
		"HS256 with the Ed25519 key":       {sign(t, jwt.SigningMethodHS256, []byte(edKey().Public().(ed25519.PublicKey)), claims(), kid("ed")), "algorithm"},
		"another algorithm than the key's": {sign(t, jwt.SigningMethodPS256, rsaKey(), claims(), kid("rsa")), "algorithm"},
		"algorithm of another kind of key": {sign(t, ed, edKey(), claims(), kid("ec")), "signature"},
		"another's key":                    {sign(t, ed, otherKey(), claims(), kid("ed")), "signature"},
		"another's key, no kid":            {sign(t, ed, otherKey(), claims(), nil), "signature"},
		"unknown kid":                      {sign(t, ed, edKey(), claims(), kid("nobody")), "no key"},
		"kid is a number":                  {sign(t, ed, edKey(), claims(), map[string]any{"kid": 1}), "no key"},
		"critical extension":               {sign(t, ed, edKey(), claims(), map[string]any{"kid": "ed", "crit": []string{"x"}, "x": 1}), "critical"},
		"tampered payload":                 {parts[0] + "." + payload + "." + parts[2], "signature"},
		"tampered header":                  {other([]byte(`{"alg":"EdDSA","kid":"ed","typ":"X"}`)) + "." + parts[1] + "." + parts[2], "signature"},
		"no signature":                     {parts[0] + "." + parts[1] + ".", "signature"},
		"wrong audience":                   {sign(t, ed, edKey(), claims("aud", "else"), kid("ed")), "audience"},
		"no audience":                      {sign(t, ed, edKey(), claims("aud", nil), kid("ed")), "aud"},
		"wrong issuer":                     {sign(t, ed, edKey(), claims("iss", "https://evil.example"), kid("ed")), "issuer"},
		"no issuer":                        {sign(t, ed, edKey(), claims("iss", nil), kid("ed")), "iss"},
		"expired":                          {sign(t, ed, edKey(), claims("exp", time.Now().Add(-31*time.Second).Unix()), kid("ed")), "expired"},
		"no exp":                           {sign(t, ed, edKey(), claims("exp", nil), kid("ed")), "exp"},
		"exp is a string":                  {sign(t, ed, edKey(), claims("exp", "tomorrow"), kid("ed")), "claim"},
		"nbf in the future":                {sign(t, ed, edKey(), claims("nbf", time.Now().Add(40*time.Second).Unix()), kid("ed")), "not valid yet"},
		"no subject":                       {sign(t, ed, edKey(), claims("sub", nil), kid("ed")), "sub"},
		"subject is a number":              {sign(t, ed, edKey(), claims("sub", 7), kid("ed")), "sub"},
		"subject ends a header":            {sign(t, ed, edKey(), claims("sub", "ann\r\nX-Auth-Scopes: admin"), kid("ed")), "sub"},
		"subject too long":                 {sign(t, ed, edKey(), claims("sub", strings.Repeat("a", 256)), kid("ed")), "sub"},
		"a scope with a space":             {sign(t, ed, edKey(), claims("scope", []string{"read admin"}), kid("ed")), "scopes"},
		"scope is an object":               {sign(t, ed, edKey(), claims("scope", map[string]any{"a": 1}), kid("ed")), "scopes"},
		"scope of numbers":                 {sign(t, ed, edKey(), claims("scope", []int{1}), kid("ed")), "scopes"},
		"garbage":                          {"garbage", "malformed"},
		"dots":                             {"..", "malformed"},
		"four parts":                       {good + ".x", "malformed"},
		"JSON null":                        {other([]byte(`null`)) + "." + other([]byte(`null`)) + ".", "algorithm"},
		"not base64":                       {"a+b." + parts[1] + "." + parts[2], "malformed"},
		"too long":                         {strings.Repeat("a", auth.MaxTokenBytes+1), "too long"},
		"a control character":              {good + "\x00", "character"},
		"two tokens":                       {good + " " + good, "character"},
		"two tokens, joined":               {good + ", Bearer " + good, "character"},
		"empty":                            {"", "ErrNoCredentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := j.Authenticate(t.Context(), bearer(tt.token))
			if id != nil {
				t.Fatalf("accepted as %+v", id)
			}
			if name == "empty" { // "Bearer " is trimmed to the scheme alone
				tt.reason = "empty"
			}
			if !errors.Is(err, auth.ErrInvalidToken) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("error %v, want an invalid token for %q", err, tt.reason)
			}
			if expired := errors.Is(err, auth.ErrExpired); expired != (name == "expired") {
				t.Errorf("errors.Is(err, ErrExpired) = %v", expired)
			}
			for part := range strings.FieldsFuncSeq(tt.token, func(r rune) bool { return strings.ContainsRune("., \x00", r) }) {
				if len(part) > 6 && strings.Contains(err.Error(), part) && part != "garbage" {
					t.Errorf("error quotes the token: %v", err)
				}
			}
			if !strings.HasPrefix(auth.Challenge(err), `Bearer error="invalid_token"`) {
				t.Errorf("challenge %s", auth.Challenge(err))
			}
		})
	}
}

// A token must not be able to write into the log or the answer, wherever in it the text stands.
func TestJWTErrorsDoNotQuote(t *testing.T) {
	t.Parallel()
	j := newJWT(t, allKeys())
	const secret = "s3cr3t-value"
	raw := base64.RawURLEncoding.EncodeToString
	for _, token := range []string{
		secret, secret + ".a.b",
		raw([]byte(`{"alg":"`+secret+`"}`)) + "." + raw([]byte(`{}`)) + ".",
		raw([]byte(`{"alg":"EdDSA","kid":"`+secret+`"}`)) + "." + raw([]byte(`{}`)) + ".",
		raw([]byte(secret)) + "." + raw([]byte(secret)) + "." + raw([]byte(secret)),
		sign(t, jwt.SigningMethodEdDSA, edKey(), claims("iss", secret), kid("ed")),
		sign(t, jwt.SigningMethodEdDSA, edKey(), claims("aud", secret), kid("ed")),
		sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", secret), kid("ed")),
		sign(t, jwt.SigningMethodEdDSA, edKey(), claims("sub", secret+"\n"), kid("ed")),
	} {
		_, err := j.Authenticate(t.Context(), bearer(token))
		if !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("error %v", err)
		}
		if strings.Contains(err.Error()+auth.Challenge(err), secret) {
			t.Errorf("quoted: %v", err)
		}
	}
}

func TestJWTUnnamedKeys(t *testing.T) {
	t.Parallel()
	j := newJWT(t, auth.JWTConfig{Issuer: issuer, Audience: audience, Keys: []auth.Key{
		{Public: edKey().Public()}, {Public: ecKey().Public()}, {ID: "named", Public: otherKey().Public()},
	}})
	for name, tt := range map[string]struct {
		key    crypto.Signer
		method jwt.SigningMethod
		kid    string
		ok     bool
	}{
		"whatever kid, first key":       {edKey(), jwt.SigningMethodEdDSA, "whatever", true},
		"whatever kid, second key":      {ecKey(), jwt.SigningMethodES256, "whatever", true},
		"a named key by its kid":        {otherKey(), jwt.SigningMethodEdDSA, "named", true},
		"a named key by another kid":    {otherKey(), jwt.SigningMethodEdDSA, "whatever", false},
		"an unnamed key by a named one": {edKey(), jwt.SigningMethodEdDSA, "named", false},
	} {
		_, err := j.Authenticate(t.Context(), bearer(sign(t, tt.method, tt.key, claims(), kid(tt.kid))))
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewJWTRefuses(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*auth.JWTConfig)
		want   string
	}{
		"no issuer":          {func(c *auth.JWTConfig) { c.Issuer = "" }, "issuer"},
		"no audience":        {func(c *auth.JWTConfig) { c.Audience = "" }, "audience"},
		"no keys":            {func(c *auth.JWTConfig) { c.Keys = nil }, "neither keys nor"},
		"none":               {func(c *auth.JWTConfig) { c.Algorithms = []string{"none"} }, `"none"`},
		"HS256":              {func(c *auth.JWTConfig) { c.Algorithms = []string{"EdDSA", "HS256"} }, `"HS256"`},
		"long leeway":        {func(c *auth.JWTConfig) { c.Leeway = time.Hour }, "leeway"},
		"short refresh":      {func(c *auth.JWTConfig) { c.RefreshInterval = time.Second }, "refresh"},
		"http beyond":        {func(c *auth.JWTConfig) { c.JWKS = "http://issuer.example/jwks" }, "use https"},
		"not a URL":          {func(c *auth.JWTConfig) { c.JWKS = "issuer.example/jwks" }, "absolute"},
		"file URL":           {func(c *auth.JWTConfig) { c.JWKS = "file:///etc/passwd" }, "absolute"},
		"password in URL":    {func(c *auth.JWTConfig) { c.JWKS = "https://u:hunter2@issuer.example/" }, "remove it"},
		"weak RSA":           {func(c *auth.JWTConfig) { c.Keys[1] = auth.Key{Public: weak.Public()} }, "2048"},
		"private key":        {func(c *auth.JWTConfig) { c.Keys[0] = auth.Key{Public: edKey()} }, "private"},
		"secret":             {func(c *auth.JWTConfig) { c.Keys[0] = auth.Key{Public: []byte("secret")} }, "kind"},
		"nil key":            {func(c *auth.JWTConfig) { c.Keys[0] = auth.Key{} }, "kind"},
		"key with HS256":     {func(c *auth.JWTConfig) { c.Keys[0].Algorithm = "HS256" }, "HS256"},
		"Ed25519 with RS256": {func(c *auth.JWTConfig) { c.Keys[0].Algorithm = "RS256" }, "key 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := allKeys()
			tt.change(&cfg)
			j, err := auth.NewJWT(t.Context(), cfg)
			if err == nil {
				j.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}
