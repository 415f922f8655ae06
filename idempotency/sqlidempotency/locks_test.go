package sqlidempotency_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
)

// blocked waits until a statement waits for a lock of another one.
func blocked(t *testing.T, db *sql.DB) {
	t.Helper()
	late := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n == 0; {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("nothing waits for a lock")
		}
		const waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
		if err := db.QueryRowContext(t.Context(), waiting).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

func begin(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() }) // nothing after a commit
	return tx
}

// A key that is claimed again while expired ones are deleted stays. In SQLite one
// has to wait for the other.
func TestPurgeSparesNewClaim(t *testing.T) {
	t.Parallel()
	b := backends[1]
	db, s := b.mustOpen(t, b.address(t))
	if _, err := s.Claim(t.Context(), idempotencytest.NewClaim("a", "one")); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "UPDATE idempotency_keys SET expires_at = 0")
	tx := begin(t, db)
	if _, err := tx.ExecContext(t.Context(), "UPDATE idempotency_keys SET owner = 'new', expires_at = 1e15"); err != nil {
		t.Fatal(err)
	}
	purged := make(chan int64)
	go func() {
		n, err := s.Purge(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Error(err)
		}
		purged <- n
	}()
	blocked(t, db)
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if n := <-purged; n != 0 {
		t.Errorf("%d claims of others were deleted", n)
	}
}

// While the work of a request goes on in a transaction that has marked it, the
// same request is told so at once: it does not wait with a connection in its hand.
// What takes over an expired claim does wait, and then does not get it.
func TestClaimDuringDone(t *testing.T) {
	t.Parallel()
	b := backends[1]
	db, s := b.mustOpen(t, b.address(t))
	first, second := idempotencytest.NewClaim("a", "one"), idempotencytest.NewClaim("a", "one")
	if _, err := s.Claim(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	tx := begin(t, db)
	if err := s.Done(idempotency.ContextWithClaim(t.Context(), first), tx); err != nil {
		t.Fatal(err)
	}
	at, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if o, err := s.Claim(at, second); err != nil || o.State != idempotency.InProgress {
		t.Fatalf("%v, %v", o.State, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}

	exec(t, db, "UPDATE idempotency_keys SET expires_at = 0")
	tx = begin(t, db)
	if err := s.Done(idempotency.ContextWithClaim(t.Context(), first), tx); err != nil {
		t.Fatal(err)
	}
	got := make(chan idempotency.State)
	go func() {
		o, err := s.Claim(context.WithoutCancel(t.Context()), second)
		if err != nil {
			t.Error(err)
		}
		got <- o.State
	}()
	blocked(t, db)
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if state := <-got; state != idempotency.InProgress {
		t.Errorf("it is %v", state)
	}
}
