package sqlidempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
	"github.com/keelson-go/keelson/internal/postgrestest"
)

func TestMain(m *testing.M) {
	if idempotencytest.Child(openChild) {
		return
	}
	idempotencytest.RealTime()
	goleak.VerifyTestMain(postgrestest.M{M: m})
}

// backend is a database that the tests run on.
type backend struct {
	name    string
	dialect sqlidempotency.Dialect
	driver  string
	address func(t testing.TB) string // of a new, empty database
}

var backends = []backend{
	{"sqlite", sqlidempotency.SQLite, "sqlite", func(t testing.TB) string {
		return "file:" + filepath.Join(t.TempDir(), "keys.db") + "?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_txlock=immediate"
	}},
	{"postgres", sqlidempotency.Postgres, "pgx", func(t testing.TB) string { return postgrestest.URL(t) }},
}

func onEach(t *testing.T, test func(t *testing.T, b backend)) {
	t.Helper()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

// open opens the database with the table, once more if it is there.
func (b backend) open(ctx context.Context, address string) (*sql.DB, *sqlidempotency.Store, error) {
	db, err := sql.Open(b.driver, address)
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(4)
	store, err := sqlidempotency.New(db, b.dialect)
	if err == nil {
		err = store.CreateTable(ctx)
	}
	return db, store, err
}

func (b backend) mustOpen(t testing.TB, address string) (*sql.DB, *sqlidempotency.Store) {
	t.Helper()
	db, store, err := b.open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, store
}

const (
	childBackend = "KEELSON_TEST_BACKEND"
	childAddress = "KEELSON_TEST_ADDRESS"
	childWork    = "KEELSON_TEST_WORK"
)

// openChild opens the store; its work is what the variable says, in the database.
func openChild(ctx context.Context) (idempotency.Store, func(context.Context) error, error) {
	for _, b := range backends {
		if b.name == os.Getenv(childBackend) {
			db, store, err := b.open(ctx, os.Getenv(childAddress))
			return store, func(ctx context.Context) error { return work(ctx, db, store, os.Getenv(childWork)) }, err
		}
	}
	return nil, nil, fmt.Errorf("no backend %q", os.Getenv(childBackend))
}

// work places an order, marked as done together with it; before the commit or after
// it is told to end.
func work(ctx context.Context, db *sql.DB, store *sqlidempotency.Store, how string) error {
	if how == "" {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (item) VALUES ('7')"); err != nil {
		return err
	}
	if err := store.Done(ctx, tx); err != nil {
		_ = tx.Rollback() // err says it all
		return err
	}
	if how == "uncommitted" {
		return nil
	}
	return tx.Commit()
}
