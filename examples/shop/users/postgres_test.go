package users_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/internal/postgrestest"
)

// openPostgres opens a new database with settings added to its address.
func openPostgres(t *testing.T, settings string) *users.Store {
	t.Helper()
	return openAt(t, with(postgrestest.URL(t), settings))
}

// Addresses that can't be meant: at once, with how to write it, and without a
// word of what is in them.
func TestPostgresRefusesAddresses(t *testing.T) {
	t.Parallel()
	const form = "write it like postgres://user:password@host:5432/database"
	tests := []struct{ name, address, want string }{
		{"a slash in the password", "postgres://shop:hunter2/x@db/shop", form},
		{"a percent sign in the password", "postgres://shop:hunter2%zz@db/shop", form},
		{"no port", "postgres://shop:hunter2@db:hunter2/shop", form},
		{"sslmode", "postgres://shop:hunter2@db/shop?sslmode=hunter2", "sslmode is disable, "},
		{"a certificate that is not there", "postgresql://shop:hunter2@db/shop?sslmode=verify-full&sslrootcert=/hunter2", "files it names must exist"},
		{"pool_max_conns", "postgres://shop:hunter2@db/shop?pool_max_conns=0", "pool_max_conns is a number from 1"},
		{"pool_max_conn_lifetime", "postgres://shop@db/shop?password=hunter2&pool_max_conn_lifetime=hunter2", "times are written like 30m"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := users.Open(t.Context(), tt.address)
			if err == nil {
				t.Fatalf("Open succeeded: %v", s.Close())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the address got into %q", err)
			}
		})
	}
}

// A server that refuses us will not do otherwise later: no waiting for it. And no
// password in errors and logs.
func TestPostgresRefusesUs(t *testing.T) {
	t.Parallel()
	good, err := url.Parse(postgrestest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	password, database := *good, *good
	password.User = url.UserPassword(good.User.Username(), "hunter2")
	database.Path = "/nowhere"
	for want, address := range map[string]url.URL{
		"password authentication failed":    password,
		`database "nowhere" does not exist`: database,
	} {
		log := new(logged)
		s, err := users.OpenLogging(t.Context(), address.String(), slog.New(slog.NewTextHandler(log, nil)))
		if err == nil {
			t.Errorf("Open succeeded: %v", s.Close())
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want %q", err, want)
		}
		if log.String() != "" {
			t.Errorf("it was waited for:\n%s", log)
		}
		secret, _ := address.User.Password()
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the password got into %q", err)
		}
	}
}

// Settings in the address reach the pool and the sessions.
func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	s := openAt(t, with(address, "pool_max_conns=3&pool_max_conn_lifetime=10m&work_mem=1MB"))
	if n := users.MostConnections(s); n != 3 {
		t.Errorf("%d connections", n)
	}
	if got := users.One[string](t, s, "SELECT current_setting('work_mem') || ' ' || current_setting('application_name')"); got != "1MB user-service" {
		t.Errorf("settings: %q", got)
	}
	other := openAt(t, with(address, "application_name=mine"))
	if got := users.One[string](t, other, "SELECT current_setting('application_name')"); got != "mine" {
		t.Errorf("application_name = %q", got)
	}
}

// An instance that starts while another one changes the schema waits for it.
func TestPostgresOpenWaitsForMigration(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // the session that has the lock
	if _, err := db.ExecContext(t.Context(), "SELECT pg_advisory_lock($1)", users.MigrationLock); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := users.Open(ctx, address); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v", err)
	}
	opened := make(chan error)
	go func() {
		s, err := users.Open(t.Context(), address)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	if _, err := db.ExecContext(t.Context(), "SELECT pg_advisory_unlock($1)", users.MigrationLock); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// Ids tell the time, and go on rising when the clock does not.
func TestPostgresIDs(t *testing.T) {
	t.Parallel()
	s := openPostgres(t, "pool_max_conns=2")
	before := time.Now()
	u := create(t, s, "Ann", "ann@example.org")
	sec, nsec := uuid.MustParse(u.ID).Time().UnixTime()
	if at := time.Unix(sec, nsec); at.Before(before.Add(-time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("%s is of %v, not %v", u.ID, at, before)
	}
	// As if the clock had been an hour ahead, at the end of a millisecond.
	users.Exec(t, s, fmt.Sprintf("SELECT setval('users_tick', %d)", time.Now().Add(time.Hour).UnixMilli()*4096+4094))
	for i := range 5 {
		next := create(t, s, "Bob", fmt.Sprintf("bob%d@example.org", i))
		if id, err := uuid.Parse(next.ID); err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 || next.ID <= u.ID {
			t.Errorf("%s after %s: %v", next.ID, u.ID, err)
		}
		u = next
	}
	sec, _ = uuid.MustParse(u.ID).Time().UnixTime()
	if ahead := time.Until(time.Unix(sec, 0)); ahead < 50*time.Minute || ahead > time.Hour {
		t.Errorf("the ids are %v ahead", ahead)
	}
}

// A pooler may give us another session at any time, and clear the one we had.
func TestPostgresSessionReset(t *testing.T) {
	t.Parallel()
	s := openPostgres(t, "pool_max_conns=1")
	for i := range 3 {
		u := create(t, s, "Ann", fmt.Sprintf("ann%d@example.org", i))
		if _, err := s.Get(t.Context(), u.ID); err != nil {
			t.Error(err)
		}
		if n := len(list(t, s)); n != i+1 {
			t.Errorf("%d users", n)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if n := users.One[int](t, s, "SELECT count(*) FROM pg_prepared_statements"); n != 0 {
			t.Errorf("%d statements depend on the session", n)
		}
		users.Exec(t, s, "DISCARD ALL")
	}

	// Who asks for prepared statements is told when one is missing, and has it the
	// next time.
	s = openPostgres(t, "pool_max_conns=1&default_query_exec_mode=cache_statement")
	create(t, s, "Ann", "ann@example.org")
	if n := users.One[int](t, s, "SELECT count(*) FROM pg_prepared_statements"); n == 0 {
		t.Error("the address has no say")
	}
	users.Exec(t, s, "DISCARD ALL")
	if _, err := s.Create(t.Context(), "Bob", "bob@example.org"); !errors.Is(err, users.ErrUnavailable) {
		t.Errorf("Create = %v", err)
	}
	create(t, s, "Bob", "bob@example.org")
}

// What the server gives up by itself was not done, and may be tried again.
func TestPostgresTimeouts(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	holder := openAt(t, address)
	u := create(t, holder, "Ann", "ann@example.org")
	for _, settings := range []string{"SET statement_timeout = '50ms'", "SET lock_timeout = '50ms'"} {
		s := openAt(t, with(address, "pool_max_conns=1"))
		users.Exec(t, s, settings) // for the one session there is
		release := users.HoldWrite(t, holder)
		_, createErr := s.Create(t.Context(), "Bob", "bob@example.org")
		_, replaceErr := s.Replace(t.Context(), u.ID, "Bob", "bob@example.org")
		deleteErr := s.Delete(t.Context(), u.ID)
		release()
		for name, err := range map[string]error{"create": createErr, "replace": replaceErr, "delete": deleteErr} {
			if !errors.Is(err, users.ErrUnavailable) {
				t.Errorf("%s, %s: %v", settings, name, err)
			}
		}
		if got := list(t, holder); len(got) != 1 || got[0] != u {
			t.Errorf("%s: %v", settings, got)
		}
	}
}

// Of two who wait for each other PostgreSQL ends one: what that was can be tried
// again.
func TestPostgresDeadlock(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	s, other := openAt(t, address), openAt(t, address)
	ann, bob := create(t, s, "Ann", "ann@example.org"), create(t, s, "Bob", "bob@example.org")
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), "UPDATE users SET email = 'x@example.org' WHERE id = $1", ann.ID); err != nil {
		t.Fatal(err)
	}
	replaced := make(chan error, 1)
	go func() {
		_, err := s.Replace(t.Context(), bob.ID, "Bob", ann.Email) // waits to see whether ann gives it up
		replaced <- err
	}()
	eventually(t, "Replace waits", func() bool { return users.One[int](t, other, waiting) > 0 })
	_, err = tx.ExecContext(t.Context(), "UPDATE users SET name = 'Bob' WHERE id = $1", bob.ID) // waits for Replace
	ended, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil: // Replace was ended, which waited for longer
		if err := <-replaced; !errors.Is(err, users.ErrUnavailable) {
			t.Errorf("Replace = %v", err)
		}
	case !ok || ended.Code != "40P01":
		t.Errorf("UPDATE = %v", err)
	default: // on a machine so slow that it was ours
		tx.Rollback()
		if err := <-replaced; !errors.Is(err, users.ErrEmailTaken) {
			t.Errorf("Replace, alone = %v", err)
		}
	}
}

// waiting counts the statements that wait for a lock.
const waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

// No connection left for us: told as such, and over when there is one.
func TestPostgresNoConnectionLeft(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	s := openAt(t, address)
	h, _ := newAPI(t, s)
	users.KeepNoConnection(s)
	alter(t, address, "CONNECTION LIMIT 0")
	want := refusal(503, "unavailable", unavailable, "/users")
	if got := answer(call(h, "POST", "/users", jsonType, `{"name":"Ann","email":"ann@example.org"}`)); got != want {
		t.Errorf("POST: %s", got)
	}
	if got := answer(call(h, "GET", "/users", "", "")); got != want {
		t.Errorf("GET: %s", got)
	}
	if err := s.Check(t.Context()); !errors.Is(err, users.ErrUnavailable) || !strings.Contains(err.Error(), "too many connections") {
		t.Errorf("Check = %v", err)
	}
	alter(t, address, "CONNECTION LIMIT -1")
	create(t, s, "Ann", "ann@example.org")
}

// Creates that wait for one another leave connections to all else.
func TestPostgresCreatesLeaveConnections(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	holder, s := openAt(t, address), openAt(t, with(address, "pool_max_conns=4"))
	u := create(t, holder, "Ann", "ann@example.org")
	release := users.HoldWrite(t, holder)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			_, err := s.Create(t.Context(), "U", fmt.Sprintf("u%d@example.org", i))
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "a create waits", func() bool {
		return users.One[int](t, holder, waiting) > 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := s.Get(ctx, u.ID); err != nil {
		t.Error(err)
	}
	release()
	wg.Wait()
}
