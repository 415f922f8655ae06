package users

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

// SetCheck makes services that are made from now on check their database that
// often, and for that long.
func SetCheck(interval, timeout time.Duration) { checkInterval, checkTimeout = interval, timeout }

// SetConnectWait sets how long a server that can't be reached is waited for.
func SetConnectWait(d time.Duration) { connectWait = d }

// OpenLogging is open.
var OpenLogging = open

// writer returns the connections that write.
func writer(s *Store) *sql.DB {
	switch d := s.db.(type) {
	case *sqliteDB:
		return d.write
	case *postgresDB:
		return d.db
	}
	panic("an unknown database")
}

// Exec runs a statement, such as a PRAGMA that breaks it, on a connection that
// writes.
func Exec(t *testing.T, s *Store, statement string) {
	t.Helper()
	if _, err := writer(s).ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// One returns the only value of a query, on a connection that writes.
func One[T any](t *testing.T, s *Store, query string) (value T) {
	t.Helper()
	if err := writer(s).QueryRowContext(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

// KeepNoConnection makes each statement open its own from now on, with the settings of
// that moment.
func KeepNoConnection(s *Store) { writer(s).SetMaxIdleConns(-1) }

// MostConnections returns how many connections write at once, at most.
func MostConnections(s *Store) int { return writer(s).Stats().MaxOpenConnections }

// HoldWrite makes all writes wait until the returned function is called.
func HoldWrite(t *testing.T, s *Store) (release func()) {
	t.Helper()
	tx, err := writer(s).BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.db.(*postgresDB); ok {
		if _, err := tx.ExecContext(t.Context(), "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// ReadConnections returns the most reads of an SQLite database at once.
func ReadConnections(s *Store) int { return s.db.(*sqliteDB).read.Stats().MaxOpenConnections }

// Prepare is the first part of opening a file, which another one waits for.
var Prepare = prepare

// MigrationLock is what opening a PostgreSQL database waits for.
const MigrationLock = migrationLock

// Keys returns the store of idempotency keys.
func Keys(s *Store) *sqlidempotency.Store { return s.db.idempotency() }

// Migrations are those that make the table of keys.
func Migrations() (map[sqlidempotency.Dialect]string, error) {
	all := map[sqlidempotency.Dialect]string{}
	lite, err := sqliteMigrations.ReadFile("migrations/sqlite/0002_idempotency_keys.sql")
	if err != nil {
		return nil, err
	}
	post, err := postgresMigrations.ReadFile("migrations/postgres/0002_idempotency_keys.sql")
	all[sqlidempotency.SQLite], all[sqlidempotency.Postgres] = string(lite), string(post)
	return all, err
}
