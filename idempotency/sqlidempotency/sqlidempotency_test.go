package sqlidempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		idempotencytest.Run(t, func(t *testing.T) idempotencytest.Open {
			address := b.address(t)
			return func(t testing.TB) idempotency.Store { _, s := b.mustOpen(t, address); return s }
		})
	})
}

func TestCrash(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		address := b.address(t)
		b.mustOpen(t, address)
		idempotencytest.Crash(t, func(t testing.TB) idempotency.Store { _, s := b.mustOpen(t, address); return s },
			childBackend+"="+b.name, childAddress+"="+address)
	})
}

// order is a handler that places one in a transaction.
func order(t *testing.T, db *sql.DB, s *sqlidempotency.Store) http.Handler {
	t.Helper()
	once, err := idempotency.Middleware(s, idempotency.WithLease(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return once(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := work(r.Context(), db, s, "committed"); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
	}))
}

func post(t *testing.T, h http.Handler) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader("{}"))
	r.Header.Set(idempotency.Header, "k")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func orders(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM orders").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// A process is killed before or after its commit: the order is placed exactly once.
func TestDoneSurvivesCrash(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		for _, how := range []string{"uncommitted", "committed"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				address := b.address(t)
				db, s := b.mustOpen(t, address)
				exec(t, db, "CREATE TABLE orders (item text)")
				idempotencytest.Start(t, childBackend+"="+b.name, childAddress+"="+address, childWork+"="+how).Die(t, "k")
				h := order(t, db, s)
				late := time.After(30 * time.Second)
				want := `"code":"idempotency_answer_not_kept"`
				if how == "uncommitted" {
					want = ""
				}
				for w := post(t, h); w.Code == http.StatusConflict && strings.Contains(w.Body.String(), "idempotency_in_progress"); w = post(t, h) {
					select {
					case <-time.After(50 * time.Millisecond):
					case <-late:
						t.Fatalf("%d %s", w.Code, w.Body)
					}
				}
				if w := post(t, h); !strings.Contains(w.Body.String(), want) || orders(t, db) != 1 {
					t.Errorf("%d %s, and %d orders", w.Code, w.Body, orders(t, db))
				}
			})
		}
	})
}

// Who was away for longer than his lease can't commit once another has taken over.
func TestDoneAfterLoss(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		db, s := b.mustOpen(t, b.address(t))
		exec(t, db, "CREATE TABLE orders (item text)")
		slow, quick := idempotencytest.NewClaim("a", "one"), idempotencytest.NewClaim("a", "one")
		claim := func(c idempotency.Claim) idempotency.Outcome {
			o, err := s.Claim(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		claim(slow)
		exec(t, db, "UPDATE idempotency_keys SET expires_at = 0")
		if o := claim(quick); o.State != idempotency.Claimed {
			t.Fatal(o.State)
		}
		for _, c := range []idempotency.Claim{slow, quick, slow, quick} {
			err := work(idempotency.ContextWithClaim(t.Context(), c), db, s, "committed")
			if lost := errors.Is(err, idempotency.ErrLost); lost != (c == slow) || !lost && err != nil {
				t.Errorf("Done = %v", err)
			}
		}
		// Its answer is waited for until it gives up.
		if err := s.Renew(t.Context(), quick); err != nil {
			t.Error(err)
		}
		if o := claim(slow); o.State != idempotency.InProgress {
			t.Errorf("it is %+v", o)
		}
		if err := errors.Join(s.Release(t.Context(), slow), s.Release(t.Context(), quick)); err != nil {
			t.Error(err)
		}
		if o := claim(slow); o.State != idempotency.Completed || !o.Answer.Omitted {
			t.Errorf("it is %+v", o)
		}
		if err := s.Complete(t.Context(), quick, idempotency.Answer{Status: 201}); err != nil {
			t.Error(err)
		}
		if o := claim(slow); o.State != idempotency.Completed || o.Answer.Status != 201 {
			t.Errorf("it is %+v", o)
		}
		if err := work(idempotency.ContextWithClaim(t.Context(), slow), db, s, "committed"); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Done = %v", err)
		}
		if err := work(t.Context(), db, s, "committed"); err != nil {
			t.Errorf("without a key: %v", err)
		}
	})
}

// What has expired is deleted along the way, and by Purge.
func TestPurge(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		db, s := b.mustOpen(t, b.address(t))
		use := func(n int, ttl time.Duration) {
			for range n {
				c := idempotencytest.NewClaim(fmt.Sprint(ttl), "one")
				c.TTL = ttl
				c.Key = c.Owner + c.Owner
				if _, err := s.Claim(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if err := s.Complete(t.Context(), c, idempotency.Answer{Status: 200}); err != nil {
					t.Fatal(err)
				}
			}
		}
		rows := func() (n int) {
			if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM idempotency_keys").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		use(1, time.Hour) // the first one looks, and finds nothing
		use(3, time.Hour)
		exec(t, db, "UPDATE idempotency_keys SET expires_at = 0")
		use(1, time.Hour)
		if n := rows(); n != 5 {
			t.Fatalf("%d rows: it looks more often than once a minute", n)
		}
		if n, err := s.Purge(t.Context()); n != 4 || err != nil || rows() != 1 {
			t.Errorf("Purge = %d, %v; %d rows", n, err, rows())
		}
		exec(t, db, "UPDATE idempotency_keys SET expires_at = 0")
		again, err := sqlidempotency.New(db, b.dialect) // whose minute begins anew
		if err != nil {
			t.Fatal(err)
		}
		s = again
		use(1, time.Hour)
		if n := rows(); n != 1 {
			t.Errorf("%d rows, of which one has not expired", n)
		}
	})
}

// Instances that start together make one table.
func TestCreateTableAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		address := b.address(t)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				db, _, err := b.open(context.WithoutCancel(t.Context()), address)
				if err != nil {
					t.Error(err)
				}
				db.Close()
			})
		}
		wg.Wait()
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file::memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, tt := range []struct {
		db      *sql.DB
		dialect sqlidempotency.Dialect
		table   string
		want    string
	}{
		{nil, sqlidempotency.SQLite, "keys", "db is nil"},
		{db, 0, "keys", "dialect"},
		{db, 9, "keys", "Dialect(9)"},
		{db, sqlidempotency.SQLite, "", "WithTable"},
		{db, sqlidempotency.SQLite, "keys; DROP TABLE users", "WithTable"},
		{db, sqlidempotency.Postgres, "Keys", "WithTable"},
	} {
		if _, err := sqlidempotency.New(tt.db, tt.dialect, sqlidempotency.WithTable(tt.table)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, %q: %v", tt.dialect, tt.table, err)
		}
	}
}

// Without its table the store fails, and says what is missing; with another name it
// is another table.
func TestTable(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		db, _ := b.mustOpen(t, b.address(t))
		s, err := sqlidempotency.New(db, b.dialect, sqlidempotency.WithTable("payments_keys"))
		if err != nil {
			t.Fatal(err)
		}
		c := idempotencytest.NewClaim("a", "one")
		if _, err := s.Claim(t.Context(), c); err == nil || !strings.Contains(err.Error(), "payments_keys") {
			t.Errorf("Claim = %v", err)
		}
		for range 2 {
			if err := s.CreateTable(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if o, err := s.Claim(t.Context(), c); err != nil || o.State != idempotency.Claimed {
			t.Errorf("Claim = %v, %v", o.State, err)
		}
		exec(t, db, "UPDATE payments_keys SET fingerprint = "+map[string]string{"sqlite": "x'00'", "postgres": `'\x00'`}[b.name])
		if o, err := s.Claim(t.Context(), idempotencytest.NewClaim("a", "one")); err == nil || o.State == idempotency.Claimed {
			t.Errorf("garbage in the table: %v, %v", o.State, err)
		}
	})
}

func BenchmarkCycle(b *testing.B) {
	for _, backend := range backends {
		b.Run(backend.name, func(b *testing.B) {
			_, s := backend.mustOpen(b, backend.address(b))
			idempotencytest.Benchmark(b, s)
		})
	}
}
