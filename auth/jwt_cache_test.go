package auth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keelson-go/keelson/auth"
)

// A verified token gets the very same identity again, and only for a minute.
func TestJWTRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJWT(t, allKeys())
		token := sign(t, jwt.SigningMethodEdDSA, edKey(), claims(), kid("ed"))
		first, err := j.Authenticate(t.Context(), bearer(token))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - 1)
		if again, err := j.Authenticate(t.Context(), bearer(token)); again != first || err != nil {
			t.Errorf("a nanosecond before the minute's end: %p, %v; want %p", again, err, first)
		}
		time.Sleep(1)
		third, err := j.Authenticate(t.Context(), bearer(token))
		if err != nil || third == first {
			t.Errorf("after a minute: not verified again, %v", err)
		}
		if again, _ := j.Authenticate(t.Context(), bearer(token)); again != third {
			t.Error("not remembered again")
		}
		// It is not remembered as anything else's: no other authenticator, no other token, has it.
		cfg := allKeys()
		cfg.Audience = "else"
		if _, err := newJWT(t, cfg).Authenticate(t.Context(), bearer(token)); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("for another audience: %v", err)
		}
		for i := range token {
			changed := []byte(token)
			changed[i] ^= 1 // stays within what a token may contain, or is refused for that
			if id, err := j.Authenticate(t.Context(), bearer(string(changed))); id != nil || !errors.Is(err, auth.ErrInvalidToken) {
				t.Fatalf("with byte %d changed: %v, %v", i, id, err)
			}
		}
	})
}

// A remembered token ends at the very moment, and with the very error, of one that is not.
func TestJWTRemembersNotPastExpiry(t *testing.T) {
	for name, tt := range map[string]struct{ leeway, want time.Duration }{
		"default leeway": {0, 20*time.Second + auth.DefaultLeeway},
		"own leeway":     {7 * time.Second, 27 * time.Second},
		"no leeway":      {-1, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := allKeys()
				cfg.Leeway = tt.leeway
				j := newJWT(t, cfg)
				c := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", time.Now().Add(20*time.Second).Unix()), kid("ed")))
				first, err := j.Authenticate(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.want - 1)
				if again, err := j.Authenticate(t.Context(), c); again != first || err != nil {
					t.Errorf("a nanosecond before the end: %v", err)
				}
				if _, err := newJWT(t, cfg).Authenticate(t.Context(), c); err != nil {
					t.Errorf("a nanosecond before the end, not remembered: %v", err)
				}
				time.Sleep(1)
				if id, err := j.Authenticate(t.Context(), c); id != nil || err != auth.ErrExpired {
					t.Errorf("at the end: %v, %v", id, err)
				}
				if id, err := newJWT(t, cfg).Authenticate(t.Context(), c); id != nil || err != auth.ErrExpired {
					t.Errorf("at the end, not remembered: %v, %v", id, err)
				}
			})
		})
	}
}

// A token that is refused is looked at anew each time: it may become good.
func TestJWTRemembersNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJWT(t, allKeys())
		c := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("nbf", time.Now().Add(40*time.Second).Unix()), kid("ed")))
		for range 2 {
			if _, err := j.Authenticate(t.Context(), c); !errors.Is(err, auth.ErrInvalidToken) {
				t.Fatalf("too early: %v", err)
			}
		}
		time.Sleep(10 * time.Second)
		first, err := j.Authenticate(t.Context(), c)
		if err != nil {
			t.Fatalf("at nbf less the leeway: %v", err)
		}
		if again, err := j.Authenticate(t.Context(), c); again != first || err != nil {
			t.Errorf("not remembered: %v", err)
		}
	})
}

// A key that is withdrawn takes what was verified with it along at once; a fetch that changes nothing does not.
func TestJWTRemembersNotPastItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuerServer{body: jwks("one", edKey())}
		cfg := remoteConfig(s)
		cfg.RefreshInterval = time.Minute
		j := newJWT(t, cfg)
		life := time.Now().Add(time.Hour).Unix()
		one := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", life), kid("one")))
		two := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims("exp", life), kid("two")))
		if _, err := j.Authenticate(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second) // an unknown key may now cause a fetch
		first, err := j.Authenticate(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Authenticate(t.Context(), two); !errors.Is(err, auth.ErrInvalidToken) || s.fetches.Load() != 2 {
			t.Fatalf("%v after %d fetches", err, s.fetches.Load())
		}
		if again, err := j.Authenticate(t.Context(), one); again != first || err != nil {
			t.Errorf("after a fetch of the same keys: verified again, %v", err)
		}
		// useUntilFetched uses a token again and again, so that it is remembered when the fetch comes.
		useUntilFetched := func(c auth.Credentials) {
			for before := s.fetches.Load(); s.fetches.Load() == before; time.Sleep(10 * time.Millisecond) {
				if _, err := j.Authenticate(t.Context(), c); err != nil {
					t.Fatalf("before the fetch: %v", err)
				}
			}
			synctest.Wait()
		}
		s.set(jwks("two", otherKey()), nil, 0)
		useUntilFetched(one)
		if id, err := j.Authenticate(t.Context(), one); id != nil || !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("right after the key was withdrawn: %v, %v", id, err)
		}
		// The same ID may get another key.
		s.set(jwks("two", edKey()), nil, 0)
		useUntilFetched(two)
		if id, err := j.Authenticate(t.Context(), two); id != nil || !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("right after the key was replaced: %v, %v", id, err)
		}
		j.Close()
	})
}

// Tokens that are remembered cannot get into a log, even if somebody prints the JWT.
func TestJWTDoesNotPrintTokens(t *testing.T) {
	t.Parallel()
	j := newJWT(t, allKeys())
	token := sign(t, jwt.SigningMethodEdDSA, edKey(), claims(), kid("ed"))
	if _, err := j.Authenticate(t.Context(), bearer(token)); err != nil {
		t.Fatal(err)
	}
	signature := token[strings.LastIndex(token, ".")+1:]
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if text := fmt.Sprintf(format, j); strings.Contains(text, signature) || strings.Contains(text, fmt.Sprintf("%x", signature)) {
			t.Errorf("%s prints the token", format)
		}
	}
}

// Many requests with few tokens, while the issuer changes its keys again and again: no token outlives its key, and each
// gets its own subject.
func TestJWTConcurrentRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuerServer{body: jwks("one", edKey())}
		cfg := remoteConfig(s)
		cfg.RefreshInterval = time.Minute
		j := newJWT(t, cfg)
		life := time.Now().Add(time.Hour).Unix()
		const n = 10
		var tokens [n]auth.Credentials
		for i := range tokens {
			tokens[i] = bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", life, "sub", fmt.Sprint("user-", i)), kid("one")))
		}
		_, _ = j.Authenticate(t.Context(), tokens[0]) // waits for the first fetch
		var accepted, refused atomic.Int64
		for round := range 6 {
			key, good := edKey(), round%2 == 0
			if !good {
				key = otherKey()
			}
			if round > 0 {
				s.set(jwks("one", key), nil, 0)
				var wg sync.WaitGroup
				for i := range n { // requests while the fetch comes
					wg.Go(func() {
						for range 130 {
							time.Sleep(500 * time.Millisecond)
							if id, err := j.Authenticate(context.Background(), tokens[i]); err == nil && id.Subject != fmt.Sprint("user-", i) {
								t.Errorf("user-%d got %s", i, id.Subject)
							}
						}
					})
				}
				wg.Wait()
			}
			for i := range n {
				if _, err := j.Authenticate(t.Context(), tokens[i]); (err == nil) != good {
					t.Errorf("round %d: %v", round, err)
				} else if good {
					accepted.Add(1)
				} else {
					refused.Add(1)
				}
			}
		}
		if accepted.Load() != 3*n || refused.Load() != 3*n {
			t.Errorf("%d accepted, %d refused", accepted.Load(), refused.Load())
		}
		j.Close()
	})
}
