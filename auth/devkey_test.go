package auth_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/auth"
)

func devKey(t testing.TB) *auth.DevKey {
	t.Helper()
	k, err := auth.LoadOrCreateDevKey(filepath.Join(t.TempDir(), ".keelson", "dev.key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDevKeyMint(t *testing.T) {
	t.Parallel()
	k := devKey(t)
	j := newJWT(t, k.JWTConfig())
	token, err := k.Mint(auth.TokenRequest{Subject: "ann", Scopes: []string{"read", "write"}, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.Authenticate(t.Context(), bearer(token))
	if err != nil {
		t.Fatal(err)
	}
	if id.Subject != "ann" || id.Issuer != "keelson-dev" || id.Claims["aud"] != "keelson" || !id.HasScopes("read", "write") {
		t.Errorf("%+v", id)
	}
	for _, claim := range []string{"jti", "iat", "nbf", "exp"} {
		if id.Claims[claim] == nil {
			t.Errorf("no %s", claim)
		}
	}
	again, err := k.Mint(auth.TokenRequest{Subject: "ann", Scopes: []string{"read", "write"}, TTL: time.Minute})
	if err != nil || again == token {
		t.Error("two tokens are the same", err)
	}

	plain, err := k.Mint(auth.TokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	id, err = j.Authenticate(t.Context(), bearer(plain))
	if err != nil || id.Subject != "dev" || len(id.Scopes) != 0 || time.Until(id.Expires) < 59*time.Minute {
		t.Errorf("%+v, %v", id, err)
	}
	if _, err := newJWT(t, devKey(t).JWTConfig()).Authenticate(t.Context(), bearer(token)); !errors.Is(err, auth.ErrInvalidToken) {
		t.Errorf("another project's key: %v", err)
	}
	for name, req := range map[string]auth.TokenRequest{
		"negative TTL":         {TTL: -time.Hour},
		"scope with a space":   {Scopes: []string{"a b"}},
		"empty scope":          {Scopes: []string{""}},
		"subject with newline": {Subject: "a\nb"},
		"subject of spaces":    {Subject: " "},
	} {
		if tok, err := k.Mint(req); err == nil {
			t.Errorf("%s: minted %s", name, tok)
		}
	}
}

func TestDevKeyTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := devKey(t)
		j := newJWT(t, k.JWTConfig())
		token, err := k.Mint(auth.TokenRequest{TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + auth.DefaultLeeway - time.Second)
		if _, err := j.Authenticate(t.Context(), bearer(token)); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := j.Authenticate(t.Context(), bearer(token)); !errors.Is(err, auth.ErrExpired) {
			t.Error(err)
		}
	})
}

func TestDevKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "dev.key")
	k, err := auth.LoadOrCreateDevKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	again, err := auth.LoadOrCreateDevKey(path)
	if err != nil || again.ID() != k.ID() || !again.Public().Equal(k.Public()) {
		t.Errorf("read again: %v, %v", again, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.LoadOrCreateDevKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("loose permissions: %v", err)
	}
}

func TestDevKeyRefusesFiles(t *testing.T) {
	t.Parallel()
	ec, err := x509.MarshalPKCS8PrivateKey(ecKey())
	must(err)
	for name, text := range map[string][]byte{
		"empty":            nil,
		"text":             []byte("hunter2"),
		"a public key":     publicPEM(t, edKey().Public()),
		"not PKCS #8":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hunter2")}),
		"an EC key":        pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ec}),
		"too large a file": []byte(strings.Repeat("x", 256<<10+1)),
	} {
		path := filepath.Join(t.TempDir(), "dev.key")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := auth.LoadOrCreateDevKey(path)
		if err == nil {
			t.Fatalf("%s: accepted as %s", name, k.ID())
		}
		if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || len(after) != len(text) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := auth.LoadOrCreateDevKey(filepath.Join("/proc", "none", "dev.key")); err == nil {
		t.Error("created a key where none can be")
	}
}

// However many start at once, one file is made and everybody has its key.
func TestDevKeyCreatedTogether(t *testing.T) {
	t.Parallel()
	for range 20 {
		path := filepath.Join(t.TempDir(), ".keelson", "dev.key")
		ids := make([]string, 16)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				k, err := auth.LoadOrCreateDevKey(path)
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = k.ID()
			})
		}
		wg.Wait()
		for _, id := range ids {
			if diff := cmp.Diff(ids[0], id); diff != "" {
				t.Fatal(diff)
			}
		}
	}
}
