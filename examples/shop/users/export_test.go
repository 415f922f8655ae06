package users

import (
	"context"
	"testing"
	"time"
)

// SetCheckInterval makes services that are made from now on check their database
// that often.
func SetCheckInterval(d time.Duration) { checkInterval = d }

// ExecWriter runs a statement, such as a PRAGMA that breaks it, on the connection
// that writes.
func ExecWriter(t *testing.T, s *Store, statement string) {
	t.Helper()
	if _, err := s.write.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// HoldWrite takes the database's write lock until the returned function is called.
func HoldWrite(t *testing.T, s *Store) (release func()) {
	t.Helper()
	tx, err := s.write.BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// Pragma reads a setting of the connection that writes.
func Pragma(t *testing.T, s *Store, name string) (value string) {
	t.Helper()
	if err := s.write.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// Versions returns how often migrations were recorded.
func Versions(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.read.QueryRowContext(t.Context(), "SELECT count(*) FROM goose_db_version WHERE version_id > 0").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// ReadConnections returns the most reads at once.
func ReadConnections(s *Store) int { return s.read.Stats().MaxOpenConnections }

// Prepare is the first part of Open, which another Open waits for.
var Prepare = prepare
