package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keelson-go/keelson/auth"
)

// jwks is a key set with one Ed25519 key.
func jwks(id string, key ed25519.PrivateKey) string {
	x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"keys":[{"kty":"oct","k":"AAAA","kid":%q},{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q,"use":"sig"},
		{"kty":"OKP","crv":"Ed25519","kid":"enc","x":%q,"use":"enc"},{"kty":"new","kid":"n"}]}`, id, id, x, x)
}

// issuerServer answers fetches without a network, so that it works in a synctest bubble.
type issuerServer struct {
	fetches atomic.Int64
	mu      sync.Mutex
	body    string
	err     error
	delay   time.Duration
}

func (s *issuerServer) set(body string, err error, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body, s.err, s.delay = body, err, delay
}

func (s *issuerServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.fetches.Add(1)
	s.mu.Lock()
	body, err, delay := s.body, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func remoteConfig(s *issuerServer) auth.JWTConfig {
	return auth.JWTConfig{Issuer: issuer, Audience: audience, JWKS: "https://issuer.example/jwks", Transport: s}
}

func TestJWKSRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuerServer{body: jwks("one", edKey())}
		j := newJWT(t, remoteConfig(s))
		one := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", time.Now().Add(10*time.Hour).Unix()), kid("one")))
		two := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims("exp", time.Now().Add(10*time.Hour).Unix()), kid("two")))
		noKid := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims("exp", time.Now().Add(10*time.Hour).Unix()), nil))

		// The first fetch is under way at the first request, which waits for it.
		if _, err := j.Authenticate(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the keys are there a moment before the fetch is over
		if err := j.Check(t.Context()); err != nil {
			t.Error(err)
		}
		// Right after a fetch, an unknown key does not cause another.
		if _, err := j.Authenticate(t.Context(), two); !errors.Is(err, auth.ErrInvalidToken) || s.fetches.Load() != 1 {
			t.Fatalf("%v after %d fetches", err, s.fetches.Load())
		}
		// The issuer changes its key: the first token that names the new one brings it in.
		time.Sleep(31 * time.Second)
		s.set(jwks("two", otherKey()), nil, 100*time.Millisecond)
		if _, err := j.Authenticate(t.Context(), two); err != nil || s.fetches.Load() != 2 {
			t.Fatalf("%v after %d fetches", err, s.fetches.Load())
		}
		if _, err := j.Authenticate(t.Context(), noKid); err != nil {
			t.Fatal(err)
		}
		// The old key is gone with it.
		if _, err := j.Authenticate(t.Context(), one); !errors.Is(err, auth.ErrInvalidToken) {
			t.Fatalf("the old key: %v", err)
		}
		// A key for encryption is none for signatures.
		enc := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims(), kid("enc")))
		if _, err := j.Authenticate(t.Context(), enc); !errors.Is(err, auth.ErrInvalidToken) {
			t.Fatalf("encryption key: %v", err)
		}
		// Without any request it is fetched every 15 minutes, so that a withdrawn key goes.
		before := s.fetches.Load()
		time.Sleep(time.Hour)
		if n := s.fetches.Load() - before; n < 4 || n > 5 {
			t.Errorf("%d fetches in an hour", n)
		}
		j.Close()
	})
}

func TestJWKSUnknownKeyFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuerServer{body: jwks("one", edKey())}
		j := newJWT(t, remoteConfig(s))
		life := time.Now().Add(time.Hour).Unix()
		good := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", life), kid("one")))
		if _, err := j.Authenticate(t.Context(), good); err != nil {
			t.Fatal(err)
		}
		s.set(jwks("one", edKey()), nil, 9*time.Second) // the issuer becomes slow
		time.Sleep(31 * time.Second)

		var wg sync.WaitGroup
		var waited atomic.Int64
		begun := time.Now()
		for i := range 1000 {
			bad := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims("exp", life), kid(fmt.Sprint("unknown-", i))))
			wg.Go(func() {
				if _, err := j.Authenticate(context.Background(), bad); !errors.Is(err, auth.ErrInvalidToken) {
					t.Errorf("unknown key: %v", err)
				}
				switch took := time.Since(begun); {
				case took > 2*time.Second:
					t.Errorf("unknown key answered after %v", took)
				case took > 0:
					waited.Add(1)
				}
			})
			wg.Go(func() {
				if _, err := j.Authenticate(context.Background(), good); err != nil {
					t.Errorf("known key: %v", err)
				}
				if took := time.Since(begun); took != 0 { // virtual time: not one moment of waiting
					t.Errorf("known key blocked for %v", took)
				}
			})
		}
		wg.Wait()
		if n := waited.Load(); n != 64 {
			t.Errorf("%d callers waited, want 64", n)
		}
		if n := s.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		// A minute of attack costs the issuer at most two more.
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			wg.Go(func() {
				bad := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims("exp", life), kid("unknown")))
				_, _ = j.Authenticate(context.Background(), bad)
			})
		}
		wg.Wait()
		if n := s.fetches.Load(); n > 4 {
			t.Errorf("%d fetches within a minute of attack", n)
		}
		j.Close()
	})
}

func TestJWKSUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuerServer{err: errors.New("connection refused")}
		cfg := remoteConfig(s)
		cfg.Keys = []auth.Key{{ID: "fixed", Public: ecKey().Public()}}
		j := newJWT(t, cfg)
		synctest.Wait()
		life := time.Now().Add(10 * time.Hour).Unix()
		token := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", life), kid("one")))
		noKid := bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims("exp", life), nil))
		fixed := bearer(sign(t, jwt.SigningMethodES256, ecKey(), claims("exp", life), kid("fixed")))

		for _, c := range []auth.Credentials{token, noKid} {
			id, err := j.Authenticate(t.Context(), c)
			if id != nil || !errors.Is(err, auth.ErrUnavailable) || errors.Is(err, auth.ErrInvalidToken) {
				t.Fatalf("%v, %v", id, err)
			}
			if auth.Challenge(err) != "Bearer" {
				t.Errorf("challenge %q", auth.Challenge(err))
			}
		}
		if _, err := j.Authenticate(t.Context(), fixed); err != nil {
			t.Errorf("a configured key does not need the issuer: %v", err)
		}
		if _, err := j.Authenticate(t.Context(), bearer("garbage")); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("garbage: %v", err)
		}
		if err := j.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "issuer.example: connection refused") {
			t.Errorf("check: %v", err)
		}
		// It keeps trying, ever more slowly but at least every 30 s.
		time.Sleep(10 * time.Minute)
		if n := s.fetches.Load(); n < 20 || n > 35 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		s.set(jwks("one", edKey()), nil, 0)
		time.Sleep(31 * time.Second)
		if _, err := j.Authenticate(t.Context(), token); err != nil {
			t.Errorf("after the issuer came back: %v", err)
		}
		// Away again: what is known stays in use, what is not cannot be judged.
		s.set("", errors.New("away"), 0)
		time.Sleep(20 * time.Minute)
		if _, err := j.Authenticate(t.Context(), token); err != nil {
			t.Errorf("known key while the issuer is away: %v", err)
		}
		unknown := bearer(sign(t, jwt.SigningMethodEdDSA, otherKey(), claims("exp", life), kid("two")))
		if _, err := j.Authenticate(t.Context(), unknown); !errors.Is(err, auth.ErrUnavailable) {
			t.Errorf("unknown key while the issuer is away: %v", err)
		}
		j.Close()
		j.Close()
		if _, err := j.Authenticate(t.Context(), token); err != nil {
			t.Errorf("known key after Close: %v", err)
		}
	})
}

func TestJWKSCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuerServer{body: jwks("one", edKey()), delay: time.Hour}
		j := newJWT(t, remoteConfig(s))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err := j.Authenticate(ctx, bearer(sign(t, jwt.SigningMethodEdDSA, edKey(), claims(), kid("one"))))
		if took := time.Since(begun); !errors.Is(err, auth.ErrUnavailable) || took != 100*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		// A fetch that hangs ends after 10 s, and Close does not wait for one.
		time.Sleep(10 * time.Second)
		if err := j.Check(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("check: %v", err)
		}
		time.Sleep(5 * time.Second)
		begun = time.Now()
		j.Close()
		if took := time.Since(begun); took != 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

func TestJWKSServers(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, jwks("one", edKey()))
	}))
	t.Cleanup(elsewhere.Close)
	token := sign(t, jwt.SigningMethodEdDSA, edKey(), claims(), kid("one"))

	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    string // part of Check's error; "" for none
	}{
		"good": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, jwks("one", edKey())) }, ""},
		"redirect on the same host": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/moved" {
				http.Redirect(w, r, "/moved", http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, jwks("one", edKey()))
		}, ""},
		"redirect to another host": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}, "redirected"},
		"redirect for ever": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, "redirected"},
		"not found": {http.NotFound, "status 404"},
		"HTML":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "malformed"},
		"no keys":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) }, "no key"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[`))
			_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
		}, "more than 262144 bytes"},
		"too many keys": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat(`{},`, 100)+`{}]}`)
		}, "more than 100 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(tt.handler)
			t.Cleanup(s.Close)
			cfg := auth.JWTConfig{Issuer: issuer, Audience: audience, JWKS: s.URL + "/jwks?key=hunter2"}
			j := newJWT(t, cfg)
			deadline := time.Now().Add(20 * time.Second)
			var err error
			for { // the first answer may take longer than a caller waits, on a busy machine
				if _, err = j.Authenticate(t.Context(), bearer(token)); err == nil || tt.want != "" || time.Now().After(deadline) {
					break
				}
			}
			check := j.Check(t.Context())
			for tt.want != "" && !strings.Contains(fmt.Sprint(check), tt.want) && time.Now().Before(deadline) {
				_, _ = j.Authenticate(t.Context(), bearer(token))
				check = j.Check(t.Context())
			}
			if tt.want == "" {
				if err != nil || check != nil {
					t.Fatalf("%v; check %v", err, check)
				}
				return
			}
			if !errors.Is(err, auth.ErrUnavailable) {
				t.Errorf("error %v, want unavailable", err)
			}
			if !strings.Contains(fmt.Sprint(check), tt.want) || strings.Contains(fmt.Sprint(check), "hunter2") {
				t.Errorf("check %v, want %q", check, tt.want)
			}
		})
	}
}
