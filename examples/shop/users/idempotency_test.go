package users_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

// callKeyed is call with an idempotency key.
func callKeyed(h http.Handler, method, path, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("X-Request-Id", "test")
	r.Header.Set("Content-Type", jsonType)
	r.Header.Set(idempotency.Header, key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A create may be sent again; what else is sent with its key is refused.
func TestCreateOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		s := openAt(t, b.address(t))
		h, _ := newAPI(t, s)
		const ann = `{"name":"Ann","email":"ann@example.org"}`
		first := callKeyed(h, "POST", "/users", "k1", ann)
		if first.Code != 201 {
			t.Fatal(answer(first))
		}
		again := callKeyed(h, "POST", "/users", `"k1"`, ann)
		if again.Code != 201 || again.Body.String() != first.Body.String() || again.Header().Get("Location") != first.Header().Get("Location") ||
			again.Header().Get(idempotency.ReplayedHeader) != "true" || first.Header().Get(idempotency.ReplayedHeader) != "" {
			t.Errorf("%s %v, the first time %s %v", answer(again), again.Header(), answer(first), first.Header())
		}
		for _, tt := range []struct{ method, path, key, body, want string }{
			{"POST", "/users", "k1", `{"name":"Bob","email":"bob@example.org"}`, "422 idempotency_key_reused"},
			{"POST", "/users", "k2", ann, "409 conflict"},
			{"POST", "/users", "k2", ann, "409 conflict"}, // nothing was done, so nothing is kept
			{"POST", "/users", "k3", "{", "400 malformed_body"},
			{"POST", "/users", "a b", ann, "400 idempotency_key_invalid"},
			{"PUT", "/users/7", "k1", ann, "404 not_found"}, // another route
			{"POST", "/nowhere", "k1", ann, "404 not_found"},
			{"POST", "/users", "k4", strings.Repeat(" ", 8<<10) + ann, "413 payload_too_large"},
			{"POST", "/users", "k4", strings.Repeat(" ", 8<<10) + ann, "413 payload_too_large"},
		} {
			w := callKeyed(h, tt.method, tt.path, tt.key, tt.body)
			_, code, _ := strings.Cut(w.Body.String(), `"code":"`)
			code, _, _ = strings.Cut(code, `"`)
			got := fmt.Sprint(w.Code, " ", code)
			if w.Header().Get(idempotency.ReplayedHeader) != "" {
				got += " again"
			}
			if got != tt.want {
				t.Errorf("%s %s %s: %s, want %s", tt.method, tt.path, tt.key, got, tt.want)
			}
		}
		if n := len(list(t, s)); n != 1 {
			t.Errorf("%d users", n)
		}
	})
}

// The same create many times at once, on two instances: one user, and everybody has
// the same answer in the end.
func TestCreateOnceAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		address := b.address(t)
		s := openAt(t, address)
		var instances []http.Handler
		for _, store := range []*users.Store{s, openAt(t, address)} {
			h, _ := newAPI(t, store)
			instances = append(instances, h)
		}
		const keys, clients = 4, 4
		answers := make([]string, keys*clients)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				body := fmt.Sprintf(`{"name":"N","email":"n%d@example.org"}`, i%keys)
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				for {
					w := callKeyed(instances[i/keys%2], "POST", "/users", fmt.Sprint("k", i%keys), body)
					answers[i] = fmt.Sprint(w.Code, w.Body)
					if w.Code != 409 {
						return
					}
					select {
					case <-time.After(10 * time.Millisecond):
					case <-ctx.Done():
						return
					}
				}
			})
		}
		wg.Wait()
		for i, got := range answers {
			if !strings.HasPrefix(got, "201") || got != answers[i%keys] {
				t.Errorf("%s, want %s", got, answers[i%keys])
			}
		}
		if n := len(list(t, s)); n != keys {
			t.Errorf("%d users", n)
		}
	})
}

// A create of which nobody knows what became, as after a crash behind its commit or a
// connection lost in it, is not done again.
func TestCreateInDoubtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		s := openAt(t, b.address(t))
		for committed, want := range map[bool]string{true: "409", false: "503"} {
			once, err := idempotency.Middleware(users.Keys(s))
			if err != nil {
				t.Fatal(err)
			}
			creates := 0
			h := once(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if creates++; committed {
					if _, err := s.Create(r.Context(), "Ann", "ann@example.org"); err != nil {
						t.Error(err)
					}
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			key := fmt.Sprint("committed-", committed)
			if w := callKeyed(h, "POST", "/users", key, "{}"); w.Code != 503 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			w := callKeyed(h, "POST", "/users", key, "{}")
			if got := fmt.Sprint(w.Code); got != want || creates != map[bool]int{true: 1, false: 2}[committed] {
				t.Errorf("committed: %t: %s, and %d creates", committed, answer(w), creates)
			}
		}
		if n := len(list(t, s)); n != 1 {
			t.Errorf("%d users", n)
		}
	})
}

// Whose key another request has taken over makes no user.
func TestCreateLost(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		s := openAt(t, b.address(t))
		h, _ := newAPI(t, s)
		c := idempotency.Claim{Key: "k", Owner: "late", Lease: time.Minute, TTL: time.Minute}
		other := c
		other.Owner = "other"
		if o, err := users.Keys(s).Claim(t.Context(), other); err != nil || o.State != idempotency.Claimed {
			t.Fatal(o, err)
		}
		r := httptest.NewRequest("POST", "/users", strings.NewReader(`{"name":"Ann","email":"ann@example.org"}`))
		r.Header.Set("X-Request-Id", "test")
		r.Header.Set("Content-Type", jsonType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(idempotency.ContextWithClaim(t.Context(), c)))
		if got, want := answer(w), refusal(503, "unavailable", "This took so long that another request with the same Idempotency-Key was begun. Nothing was done here.", "/users"); got != want {
			t.Errorf("%s, want\n%s", got, want)
		}
		if n := len(list(t, s)); n != 0 {
			t.Errorf("%d users", n)
		}
	})
}

// The migrations make the table that the store wants.
func TestKeysMigration(t *testing.T) {
	t.Parallel()
	migrations, err := users.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	onEach(t, func(t *testing.T, b backend) {
		dialect := map[string]sqlidempotency.Dialect{"sqlite": sqlidempotency.SQLite, "postgres": sqlidempotency.Postgres}[b.name]
		want := "-- +goose Up\n" + users.Keys(openAt(t, b.quick(t))).Schema() + "\n-- +goose Down\nDROP TABLE idempotency_keys;\n"
		if diff := cmp.Diff(want, migrations[dialect]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// BenchmarkCreateOnce is BenchmarkCreate through the whole service, with a key and
// without.
func BenchmarkCreateOnce(b *testing.B) {
	benchEach(b, func(b *testing.B, s *users.Store) {
		h, _ := newAPI(b, s)
		for _, key := range []string{"", "k"} {
			b.Run(map[bool]string{true: "with key", false: "without"}[key != ""], func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					body := fmt.Sprintf(`{"name":"Ann","email":"ann%s%d@example.org"}`, key, i)
					var w *httptest.ResponseRecorder
					if key == "" {
						w = call(h, "POST", "/users", jsonType, body)
					} else {
						w = callKeyed(h, "POST", "/users", fmt.Sprint(key, i), body)
					}
					if w.Code != 201 {
						b.Fatal(answer(w))
					}
				}
			})
		}
	})
}
