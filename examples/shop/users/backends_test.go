package users_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/internal/postgrestest"
)

// backend is a database that the tests run on.
type backend struct {
	name    string
	address func(t testing.TB) string // of a new, empty database
	quick   func(t testing.TB) string // the same, for many small writes
	faults  []fault
	setTime string                             // for fmt: sets updated_at to microseconds since 1970
	noTable string                             // what it says when the table is missing
	closed  func(t *testing.T, address string) // fails unless nobody uses the database
}

// fault is something that keeps a database from taking writes. Reads go on.
type fault struct {
	name        string
	cause, mend func(t *testing.T, s *users.Store, address string)
}

var backends = []backend{
	{
		name:    "sqlite",
		address: func(t testing.TB) string { return address(filepath.Join(t.TempDir(), "users.db")) },
		quick:   func(testing.TB) string { return "sqlite::memory:" },
		setTime: "UPDATE users SET updated_at = %d",
		noTable: "no such table: users",
		closed: func(t *testing.T, address string) {
			// SQLite removes it when the last connection is closed, which a check of the
			// database may still use when the service closes it.
			eventually(t, "the service closes its connections", func() bool {
				_, err := os.Stat(strings.TrimPrefix(address, "sqlite://") + "-wal")
				return os.IsNotExist(err)
			})
		},
		faults: []fault{
			{name: "read-only", cause: statement("PRAGMA query_only = 1"), mend: statement("PRAGMA query_only = 0")},
			// SQLite takes the number of pages there are.
			{name: "full", cause: statement("PRAGMA max_page_count = 1"), mend: statement("PRAGMA max_page_count = 1000000")},
		},
	},
	{
		name:    "postgres",
		address: postgrestest.URL,
		quick:   postgrestest.URL,
		setTime: "UPDATE users SET updated_at = 'epoch'::timestamptz + %d * interval '1 microsecond'",
		noTable: `relation "users" does not exist`,
		closed: func(t *testing.T, address string) {
			s := openAt(t, with(address, "application_name=test"))
			eventually(t, "the service closes its connections", func() bool {
				return users.One[int](t, s, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'user-service'") == 0
			})
		},
		faults: []fault{
			{name: "read-only", cause: setting("default_transaction_read_only = on"), mend: setting("default_transaction_read_only = off")},
			{
				name: "full",
				cause: func(t *testing.T, s *users.Store, address string) {
					statement(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
						$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$`)(t, s, address)
					statement("CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE ON users EXECUTE FUNCTION full_disk()")(t, s, address)
					setting("temp_file_limit = '64kB'")(t, s, address)
				},
				mend: func(t *testing.T, s *users.Store, address string) {
					statement("DROP TRIGGER full_disk ON users")(t, s, address)
					setting("temp_file_limit = -1")(t, s, address)
				},
			},
		},
	},
}

func statement(sql string) func(*testing.T, *users.Store, string) {
	return func(t *testing.T, s *users.Store, _ string) {
		t.Helper()
		users.Exec(t, s, sql)
	}
}

// setting changes a setting of a PostgreSQL database for all sessions to come.
func setting(sql string) func(*testing.T, *users.Store, string) {
	return func(t *testing.T, s *users.Store, address string) {
		t.Helper()
		alter(t, address, "SET "+sql)
		users.KeepNoConnection(s)
	}
}

// alter changes a database of the shared server.
func alter(t *testing.T, address, change string) {
	t.Helper()
	if err := postgrestest.Shared(t).Exec(t.Context(), "ALTER DATABASE "+database(t, address)+" "+change); err != nil {
		t.Fatal(err)
	}
}

// database is the name of the database at address, as in a statement.
func database(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return `"` + strings.TrimPrefix(u.Path, "/") + `"`
}

// onEach runs a test on each database.
func onEach(t *testing.T, test func(t *testing.T, b backend)) {
	t.Helper()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

// with adds settings to a PostgreSQL address.
func with(address, settings string) string { return address + "&" + settings }

func address(path string) string { return "sqlite://" + path }

func openAt(t testing.TB, address string) *users.Store {
	t.Helper()
	s, err := users.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func create(t testing.TB, s *users.Store, name, email string) users.User {
	t.Helper()
	u, err := s.Create(t.Context(), name, email)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func list(t *testing.T, s *users.Store) []users.User {
	t.Helper()
	all, err := s.List(t.Context(), "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fill creates users until one fails.
func fill(t *testing.T, s *users.Store) error {
	t.Helper()
	for i := range 10_000 {
		if _, err := s.Create(t.Context(), "Filler", fmt.Sprintf("filler-%d@example.org", i)); err != nil {
			return err
		}
	}
	t.Error("the database does not get full")
	return nil
}

// eventually polls until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}
