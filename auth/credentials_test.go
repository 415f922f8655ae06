package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keelson-go/keelson/auth"
)

func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	j := newJWT(t, allKeys())
	good := sign(t, jwt.SigningMethodEdDSA, edKey(), claims(), kid("ed"))
	for name, tt := range map[string]struct {
		values []string
		want   error
	}{
		"none":                  {nil, auth.ErrNoCredentials},
		"empty":                 {[]string{""}, auth.ErrNoCredentials},
		"Bearer":                {[]string{"Bearer " + good}, nil},
		"bearer":                {[]string{"bearer " + good}, nil},
		"BEARER, spaces around": {[]string{" BEARER   " + good + " \t"}, nil},
		"Basic":                 {[]string{"Basic dXNlcjpwYXNz"}, auth.ErrNoCredentials},
		"token without scheme":  {[]string{good}, auth.ErrNoCredentials},
		"scheme without token":  {[]string{"Bearer"}, auth.ErrInvalidToken},
		"two, the same":         {[]string{"Bearer " + good, "Bearer " + good}, auth.ErrInvalidToken},
		"two, one of them bad":  {[]string{"Bearer " + good, "Bearer x"}, auth.ErrInvalidToken},
		"two schemes":           {[]string{"Basic eA==", "Bearer " + good}, auth.ErrInvalidToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Authorization": tt.values}
			if _, err := j.Authenticate(t.Context(), auth.FromHeader(h)); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if len(tt.values) < 2 {
				if _, err := j.Authenticate(t.Context(), auth.HeaderFunc(h.Get)); !errors.Is(err, tt.want) {
					t.Errorf("by HeaderFunc: error %v, want %v", err, tt.want)
				}
			}
		})
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	id := &auth.Identity{Subject: "ann", Scopes: []string{"read"}}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, `Bearer`},
		{auth.ErrNoCredentials, `Bearer`},
		{auth.ErrUnavailable, `Bearer`},
		{errors.New("else"), `Bearer`},
		{auth.ErrInvalidToken, `Bearer error="invalid_token"`},
		{fmt.Errorf("request 7: %w", auth.ErrExpired), `Bearer error="invalid_token", error_description="the token has expired"`},
		{id.Require("read", "write"), `Bearer error="insufficient_scope", error_description="the token lacks a scope", scope="read write"`},
		{id.Require(`a"b`), `Bearer error="insufficient_scope", error_description="the token lacks a scope"`},
	} {
		if got := auth.Challenge(tt.err); got != tt.want {
			t.Errorf("Challenge(%v)\n got %s\nwant %s", tt.err, got, tt.want)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	id := &auth.Identity{Scopes: []string{"read", "write"}}
	if !id.HasScopes() || !id.HasScopes("read") || !id.HasScopes("write", "read") || id.HasScopes("read", "admin") {
		t.Error("HasScopes")
	}
	var none *auth.Identity
	if !none.HasScopes() || none.HasScopes("read") {
		t.Error("HasScopes of nil")
	}
	err := id.Require("admin")
	se, ok := errors.AsType[*auth.ScopeError](err)
	if !ok || !errors.Is(err, auth.ErrInsufficientScope) || len(se.Required) != 1 {
		t.Errorf("Require: %v", err)
	}
	if err := id.Require("read"); err != nil {
		t.Error(err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	if id, ok := auth.FromContext(t.Context()); id != nil || ok {
		t.Error("an identity from nowhere")
	}
	want := &auth.Identity{Subject: "ann"}
	if id, ok := auth.FromContext(auth.WithIdentity(t.Context(), want)); id != want || !ok {
		t.Error("identity lost")
	}
	if id, ok := auth.FromContext(auth.WithIdentity(t.Context(), nil)); id != nil || ok {
		t.Error("a nil identity counts as one")
	}
}

func TestAny(t *testing.T) {
	t.Parallel()
	answers := func(subject string, err error) auth.Authenticator {
		return auth.Func(func(context.Context, auth.Credentials) (*auth.Identity, error) {
			if err != nil {
				return nil, err
			}
			return &auth.Identity{Subject: subject}, nil
		})
	}
	pass, refuse := answers("", auth.ErrNoCredentials), answers("", auth.ErrInvalidToken)
	for name, tt := range map[string]struct {
		chain   []auth.Authenticator
		subject string
		want    error
	}{
		"none":                       {nil, "", auth.ErrNoCredentials},
		"all pass":                   {[]auth.Authenticator{pass, pass}, "", auth.ErrNoCredentials},
		"first wins":                 {[]auth.Authenticator{answers("a", nil), answers("b", nil)}, "a", nil},
		"passed on":                  {[]auth.Authenticator{pass, answers("b", nil)}, "b", nil},
		"a refusal is final":         {[]auth.Authenticator{refuse, answers("b", nil)}, "", auth.ErrInvalidToken},
		"unavailable is final":       {[]auth.Authenticator{answers("", auth.ErrUnavailable), answers("b", nil)}, "", auth.ErrUnavailable},
		"nested":                     {[]auth.Authenticator{auth.Any(pass), auth.Any(pass, answers("c", nil))}, "c", nil},
		"refusal after one who pass": {[]auth.Authenticator{pass, refuse}, "", auth.ErrInvalidToken},
	} {
		id, err := auth.Any(tt.chain...).Authenticate(t.Context(), auth.HeaderFunc(func(string) string { return "" }))
		if !errors.Is(err, tt.want) || (err == nil) != (id != nil) || id != nil && id.Subject != tt.subject {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}
