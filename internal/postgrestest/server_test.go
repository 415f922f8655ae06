package postgrestest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keelson-go/keelson/internal/postgrestest"
)

// deadline is for what should take a moment.
const deadline = time.Minute

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// one returns the only value of the only row.
func one[T any](t *testing.T, c *pgx.Conn, query string, args ...any) (v T) {
	t.Helper()
	if err := c.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func exec(t *testing.T, c *pgx.Conn, statement string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Each test has a database to itself, and it is gone afterwards.
func TestURL(t *testing.T) {
	t.Parallel()
	var names []string
	t.Run("databases", func(t *testing.T) {
		for range 2 {
			c := connect(t, postgrestest.URL(t))
			exec(t, c, "CREATE TABLE t ()") // in public, the name as of the other one
			names = append(names, one[string](t, c, "SELECT current_database()"))
			if one[bool](t, c, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") {
				t.Error("tests are superuser")
			}
			for setting, want := range map[string]string{"server_encoding": "UTF8", "lc_collate": "C", "fsync": "off", "listen_addresses": ""} {
				if got := one[string](t, c, "SELECT current_setting($1)", setting); got != want {
					t.Errorf("%s = %q", setting, got)
				}
			}
		}
	})
	super := connect(t, postgrestest.Shared(t).URL())
	if n := one[int](t, super, "SELECT count(*) FROM pg_database WHERE datname = ANY($1)", names); n != 0 || len(names) != 2 {
		t.Errorf("%d of %q are left", n, names)
	}
}

func TestPasswordIsAskedFor(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(postgrestest.Shared(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	if c, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		c.Close(t.Context())
		t.Error("connected with a wrong password")
	}
}

// The life of one server.
func TestServer(t *testing.T) {
	t.Parallel()
	s, err := postgrestest.Start(t.Context(), postgrestest.Durable(), postgrestest.Setting("max_connections", "17"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // again, if all goes well
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("restart", func(t *testing.T) { testRestart(t, s) })
	t.Run("pause", func(t *testing.T) { testPause(t, s) })
	t.Run("stop", func(t *testing.T) { testStop(t, s) })
}

// What was committed outlives a restart and a kill, at the same address.
func testRestart(t *testing.T, s *postgrestest.Server) {
	url := s.Database(t)
	c := connect(t, url)
	for setting, want := range map[string]string{"fsync": "on", "synchronous_commit": "on", "max_connections": "17"} {
		if got := one[string](t, c, "SELECT current_setting($1)", setting); got != want {
			t.Errorf("%s = %q", setting, got)
		}
	}
	exec(t, c, "CREATE TABLE t (v int)")
	for i, stop := range []func() error{func() error { return nil }, s.Kill} {
		exec(t, connect(t, url), "INSERT INTO t VALUES (1)")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Error("a connection outlived the server")
		}
		if n := one[int](t, connect(t, url), "SELECT count(*) FROM t"); n != i+1 {
			t.Errorf("%d rows after %d restarts", n, i+1)
		}
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err == nil {
		t.Error("a dead server was killed")
	}
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a dead server takes connections")
	}
	if err := s.Restart(t.Context()); err != nil { // so that the database can be dropped
		t.Fatal(err)
	}
}

// A paused server answers nothing, on old connections and new ones.
func testPause(t *testing.T, s *postgrestest.Server) {
	c := connect(t, s.URL())
	if err := s.Resume(); err != nil { // is no error
		t.Fatal(err)
	}
	if err := s.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(t.Context()); err == nil {
		t.Error("paused twice")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("on a connection: %v", err)
	}
	if _, err := pgx.Connect(ctx, s.URL()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connect: %v", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := one[int](t, connect(t, s.URL()), "SELECT 1"); got != 1 {
		t.Error(got)
	}
	<-c.PgConn().CleanupDone() // it went on in the background
}

// Stopping ends connections, and leaves nothing behind.
func testStop(t *testing.T, s *postgrestest.Server) {
	connect(t, s.URL())
	if err := s.Pause(t.Context()); err != nil { // stopping a paused one is no problem
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir()); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	if c, err := pgx.Connect(t.Context(), s.URL()); err == nil {
		c.Close(t.Context())
		t.Error("it still takes connections")
	}
}

// A server that does not start says why at once.
func TestStartFails(t *testing.T) {
	t.Parallel()
	s, err := postgrestest.Start(t.Context(), postgrestest.Setting("max_connections", "none"))
	if err == nil {
		t.Fatalf("started: %v", s.Stop())
	}
	if !strings.Contains(err.Error(), `invalid value for parameter "max_connections"`) {
		t.Errorf("the log is not in %q", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := postgrestest.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", s, err)
	}
}

func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	install := func(path string, mode os.FileMode, names ...string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(path, name), nil, mode); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	places := []string{filepath.Join(dir, "lib/*/bin"), filepath.Join(dir, "opt/postgresql*/bin")}
	t.Setenv("PATH", filepath.Join(dir, "path"))
	check := func(want string) {
		t.Helper()
		if got, err := postgrestest.Programs(places); err != nil || got != want {
			t.Errorf("found %s, %v, want %s", got, err, want)
		}
	}

	install("lib/18/bin", 0o700, "postgres")           // half of it
	install("lib/17/bin", 0o600, "initdb", "postgres") // not to be run
	install("path", 0o700, "initdb")
	if _, err := postgrestest.Programs(places); !errors.Is(err, postgrestest.ErrMissing) || !strings.Contains(err.Error(), "apt install postgresql") {
		t.Errorf("err = %v", err)
	}
	check9 := install("lib/9.6/bin", 0o700, "initdb", "postgres")
	check(check9)
	check(install("lib/15/bin", 0o700, "initdb", "postgres"))
	check(install("opt/postgresql@16/bin", 0o700, "initdb", "postgres"))
	// PATH wins, also by a link to one of the two.
	if err := os.Remove(filepath.Join(dir, "path/initdb")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(check9, "initdb"), filepath.Join(dir, "path/initdb")); err != nil {
		t.Fatal(err)
	}
	check(check9)
}
