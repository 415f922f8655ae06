package auth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	ann, annHash := auth.GenerateAPIKey()
	bob, bobHash := auth.GenerateAPIKey()
	old, oldHash := auth.GenerateAPIKey()
	if ann == bob || len(ann) < 26 || strings.Contains(annHash, ann) {
		t.Fatalf("keys %q, %q", ann, bob)
	}
	keys, err := auth.NewAPIKeys("",
		auth.APIKey{Hash: annHash, Subject: "ann", Scopes: []string{"read"}},
		auth.APIKey{Hash: strings.ToUpper(bobHash), Subject: "bob", Expires: time.Now().Add(time.Hour)},
		auth.APIKey{Hash: oldHash, Subject: "old", Expires: time.Now().Add(-time.Second)},
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		values  []string
		subject string
		want    error
	}{
		"first":          {[]string{ann}, "ann", nil},
		"second":         {[]string{" " + bob + " "}, "bob", nil},
		"expired":        {[]string{old}, "", auth.ErrExpired},
		"none":           {nil, "", auth.ErrNoCredentials},
		"empty":          {[]string{""}, "", auth.ErrNoCredentials},
		"unknown":        {[]string{ann + "x"}, "", auth.ErrInvalidToken},
		"the hash":       {[]string{annHash}, "", auth.ErrInvalidToken},
		"too long":       {[]string{strings.Repeat("k", 513)}, "", auth.ErrInvalidToken},
		"two keys":       {[]string{ann, bob}, "", auth.ErrInvalidToken},
		"the same twice": {[]string{ann, ann}, "", auth.ErrInvalidToken},
	} {
		h := http.Header{"X-Api-Key": tt.values}
		id, err := keys.Authenticate(t.Context(), auth.FromHeader(h))
		if !errors.Is(err, tt.want) || (id == nil) != (tt.want != nil) {
			t.Errorf("%s: %v, %v", name, id, err)
			continue
		}
		if id != nil && id.Subject != tt.subject {
			t.Errorf("%s: subject %q", name, id.Subject)
		}
		if err != nil && strings.Contains(err.Error(), ann) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestAPIKeysWithTokens(t *testing.T) {
	t.Parallel()
	key, hash := auth.GenerateAPIKey()
	keys, err := auth.NewAPIKeys("x-shop-key", auth.APIKey{Hash: hash, Subject: "robot"})
	if err != nil {
		t.Fatal(err)
	}
	k := devKey(t)
	token, err := k.Mint(auth.TokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	a := auth.Any(newJWT(t, k.JWTConfig()), keys)
	for name, tt := range map[string]struct {
		h    http.Header
		want string
	}{
		"token":             {http.Header{"Authorization": {"Bearer " + token}}, "dev"},
		"key":               {http.Header{"X-Shop-Key": {key}}, "robot"},
		"both":              {http.Header{"Authorization": {"Bearer " + token}, "X-Shop-Key": {key}}, "dev"},
		"bad token, key":    {http.Header{"Authorization": {"Bearer x"}, "X-Shop-Key": {key}}, ""},
		"other scheme, key": {http.Header{"Authorization": {"Basic eA=="}, "X-Shop-Key": {key}}, "robot"},
		"neither":           {http.Header{}, ""},
	} {
		id, err := a.Authenticate(t.Context(), auth.FromHeader(tt.h))
		if (tt.want == "") != (err != nil) || id != nil && id.Subject != tt.want {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}

func TestNewAPIKeysRefuses(t *testing.T) {
	t.Parallel()
	_, hash := auth.GenerateAPIKey()
	good := auth.APIKey{Hash: hash, Subject: "ann"}
	for name, tt := range map[string]struct {
		header string
		keys   []auth.APIKey
		want   string
	}{
		"no keys":     {"", nil, "no API keys"},
		"bad header":  {"X Key", []auth.APIKey{good}, "header"},
		"no hash":     {"", []auth.APIKey{good, {Subject: "bob"}}, "key 2"},
		"short hash":  {"", []auth.APIKey{{Hash: hash[:62], Subject: "bob"}}, "key 1"},
		"plain key":   {"", []auth.APIKey{{Hash: "hunter2hunter2", Subject: "bob"}}, "SHA-256"},
		"no subject":  {"", []auth.APIKey{{Hash: hash}}, "subject"},
		"scope space": {"", []auth.APIKey{{Hash: hash, Subject: "a", Scopes: []string{"a b"}}}, "scope"},
		"twice":       {"", []auth.APIKey{good, good}, "twice"},
	} {
		if _, err := auth.NewAPIKeys(tt.header, tt.keys...); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
