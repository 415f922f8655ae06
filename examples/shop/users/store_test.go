package users_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/examples/shop/users"
)

func address(path string) string { return "sqlite://" + path }

func openFile(t testing.TB, path string) *users.Store {
	t.Helper()
	s, err := users.Open(t.Context(), address(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", path, err)
		}
	})
	return s
}

func openTemp(t testing.TB) *users.Store {
	return openFile(t, filepath.Join(t.TempDir(), "users.db"))
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
	all, err := s.List(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, address, want string }{
		{"another database", "postgres://shop:hunter2@db/shop", `databases of the scheme "postgres" are not supported, only sqlite`},
		{"no scheme", "/tmp/hunter2.db", `databases of the scheme "" are not supported, only sqlite`},
		{"a relative path", "sqlite:hunter2.db", "the absolute path of a file"},
		{"a host", "sqlite://hunter2/users.db", "the absolute path of a file"},
		{"a folder", "sqlite:///tmp/hunter2/", "the absolute path of a file"},
		{"no path", "sqlite://", "the absolute path of a file"},
		{"settings", "sqlite:///tmp/users.db?_pragma=hunter2", "nothing after the path"},
		{"a fragment", "sqlite:///tmp/users.db#hunter2", "nothing after the path"},
		{"no URL", "sqlite://%zzhunter2", "is no URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := users.Open(t.Context(), tt.address)
			if err == nil {
				t.Fatalf("Open succeeded: %v", s.Close())
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "sqlite:///") && !strings.Contains(err.Error(), "%3F") {
				t.Errorf("err = %v, want %q and how to write it", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the address got into %q", err)
			}
		})
	}
}

func TestOpenNoDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"another file": text, "below a file": filepath.Join(text, "users.db"), "a folder": dir} {
		if s, err := users.Open(t.Context(), address(path)); err == nil {
			t.Errorf("%s: Open succeeded: %v", name, s.Close())
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v does not name %s", name, err, path)
		}
	}
}

// The settings that persistence and patience depend on are in force.
func TestOpenSettings(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	got := map[string]string{}
	for _, name := range []string{"journal_mode", "synchronous", "busy_timeout", "foreign_keys"} {
		got[name] = users.Pragma(t, s, name)
	}
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000", "foreign_keys": "1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := users.ReadConnections(s); n < 2 || n > 8 {
		t.Errorf("%d read connections", n)
	}
}

// The file and all that SQLite puts beside it are the user's alone, and any
// character may be in its path.
func TestOpenMakesPrivateFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b", "50%?#&ü")
	path := filepath.Join(dir, "users.db")
	s, err := users.Open(t.Context(), "sqlite://"+strings.NewReplacer(" ", "%20", "%", "%25", "?", "%3F", "#", "%23").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "Ann", "ann@example.org")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = info.Mode().String()
	}
	want := map[string]string{
		"users.db": "-rw-------", "users.db-wal": "-rw-------", "users.db-shm": "-rw-------", "users.db.lock": "-rw-------",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenDefault(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := users.Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for path, want := range map[string]os.FileMode{".keelson": 0o700, ".keelson/data": 0o700, ".keelson/data/user-service.db": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
}

func TestInMemory(t *testing.T) {
	t.Parallel()
	var stores [2]*users.Store
	for i := range stores {
		var err error
		if stores[i], err = users.Open(t.Context(), "sqlite::memory:"); err != nil {
			t.Fatal(err)
		}
		defer stores[i].Close()
	}
	u := create(t, stores[0], "Ann", "ann@example.org")
	if diff := cmp.Diff([]users.User{u}, list(t, stores[0])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if other := list(t, stores[1]); len(other) != 0 {
		t.Errorf("another database has %v", other)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	s, ctx := openTemp(t), t.Context()
	before := time.Now().Truncate(time.Microsecond)
	ann := create(t, s, "Ann", "Ann@example.org")
	bob := create(t, s, "Bob", "bob@example.org")
	if id, err := uuid.Parse(ann.ID); err != nil || id.Version() != 7 || bob.ID <= ann.ID {
		t.Errorf("ids %s, %s: %v", ann.ID, bob.ID, err)
	}
	if ann.CreatedAt.Before(before) || ann.CreatedAt.After(time.Now()) || ann.UpdatedAt != ann.CreatedAt || ann.CreatedAt.Location() != time.UTC {
		t.Errorf("created %v, updated %v", ann.CreatedAt, ann.UpdatedAt)
	}

	if _, err := s.Create(ctx, "Other", "aNN@EXAMPLE.org"); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("create with a taken email: %v", err)
	}
	if _, err := s.Replace(ctx, bob.ID, "Bob", "ANN@example.org"); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("replace with a taken email: %v", err)
	}
	changed, err := s.Replace(ctx, ann.ID, "Anna", "ANN@example.org") // her own, in another case
	if err != nil {
		t.Fatal(err)
	}
	want := users.User{ID: ann.ID, Name: "Anna", Email: "ANN@example.org", CreatedAt: ann.CreatedAt, UpdatedAt: changed.UpdatedAt}
	if diff := cmp.Diff(want, changed); diff != "" || changed.UpdatedAt.Before(ann.UpdatedAt) {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if got, err := s.Get(ctx, ann.ID); err != nil || got != changed {
		t.Errorf("Get = %v, %v", got, err)
	}
	if diff := cmp.Diff([]users.User{changed, bob}, list(t, s)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}

	if err := s.Delete(ctx, ann.ID); err != nil {
		t.Error(err)
	}
	_, getErr := s.Get(ctx, ann.ID)
	_, replaceErr := s.Replace(ctx, ann.ID, "Ann", "ann@example.org")
	for name, err := range map[string]error{"get": getErr, "replace": replaceErr, "delete": s.Delete(ctx, ann.ID)} {
		if !errors.Is(err, users.ErrNotFound) {
			t.Errorf("%s a deleted user: %v", name, err)
		}
	}
	if after, err := s.List(ctx, ann.ID, 10); err != nil || len(after) != 1 || after[0] != bob {
		t.Errorf("list after a deleted one = %v, %v", after, err)
	}
	create(t, s, "Ann again", "ann@example.org")
}

// A clock that is set back does not let an update look older than the last one.
func TestReplaceClockBack(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	u := create(t, s, "Ann", "ann@example.org")
	future := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	users.ExecWriter(t, s, fmt.Sprintf("UPDATE users SET updated_at = %d", future.UnixMicro()))
	got, err := s.Replace(t.Context(), u.ID, "Ann", "ann@example.org")
	if err != nil || !got.UpdatedAt.Equal(future) {
		t.Errorf("updatedAt = %v, %v, want %v", got.UpdatedAt, err, future)
	}
}

func TestPersistence(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.db")
	var want []users.User
	for i := range 3 { // each opening runs the migrations
		s, err := users.Open(t.Context(), address(path))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(len(want), len(list(t, s))); diff != "" {
			t.Errorf("opening %d (-want +got):\n%s", i, diff)
		}
		want = append(want, create(t, s, "U", fmt.Sprintf("u%d@example.org", i)))
		if n := users.Versions(t, s); n != 1 {
			t.Errorf("migrations were recorded %d times", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, list(t, openFile(t, path))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Instances that start at once on a new file set it up once, and then write side
// by side without a lost or a doubled user.
func TestTwoStoresOneFile(t *testing.T) {
	t.Parallel()
	const stores, writes = 4, 25
	path := filepath.Join(t.TempDir(), "users.db")
	var wg sync.WaitGroup
	var taken [writes]int
	var mu sync.Mutex
	for i := range stores {
		wg.Go(func() {
			s, err := users.Open(t.Context(), address(path))
			if err != nil {
				t.Errorf("store %d: %v", i, err)
				return
			}
			defer s.Close()
			for j := range writes {
				if _, err := s.Create(t.Context(), "Own", fmt.Sprintf("own-%d-%d@example.org", i, j)); err != nil {
					t.Errorf("store %d: %v", i, err)
				}
				_, err := s.Create(t.Context(), "Shared", fmt.Sprintf("Shared-%d@example.org", j))
				if err == nil {
					mu.Lock()
					taken[j]++
					mu.Unlock()
				} else if !errors.Is(err, users.ErrEmailTaken) {
					t.Errorf("store %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	s := openFile(t, path)
	if n := len(list(t, s)); n != stores*writes+writes {
		t.Errorf("%d users", n)
	}
	for j, n := range taken {
		if n != 1 {
			t.Errorf("email %d was given %d times", j, n)
		}
	}
	if n := users.Versions(t, s); n != 1 {
		t.Errorf("migrations were recorded %d times", n)
	}
}

// Waiting for a lock ends with the context, for starting as for writing, and
// leaves the store in order.
func TestCancellation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.db")
	holder, s := openFile(t, path), openFile(t, path)
	release := users.HoldWrite(t, holder)
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 { // one waits for SQLite's lock, the others behind it
		wg.Go(func() {
			if _, err := s.Create(ctx, "Ann", "ann@example.org"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Create = %v", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("giving up took %v", took)
	}
	if all := list(t, s); len(all) != 0 { // reads do not wait for a writer
		t.Errorf("cancelled writes left %v", all)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.List(canceled, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("List = %v", err)
	}
	release()
	create(t, s, "Ann", "ann@example.org")
}

// A start waits for another one's lock, and no longer than its context.
func TestOpenWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.db")
	release, err := users.Prepare(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := users.Open(ctx, address(path)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock") {
		t.Errorf("Open = %v", err)
	}
	opened := make(chan error)
	go func() {
		s, err := users.Open(t.Context(), address(path))
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, break_ := range map[string]string{
		"read-only": "PRAGMA query_only = 1",
		"full":      "PRAGMA max_page_count = 1", // SQLite takes the number of pages there are
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openTemp(t)
			u := create(t, s, "Ann", "ann@example.org")
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			users.ExecWriter(t, s, break_)
			if err := fill(t, s); !errors.Is(err, users.ErrUnavailable) {
				t.Errorf("Create = %v", err)
			}
			if err := s.Check(t.Context()); !errors.Is(err, users.ErrUnavailable) {
				t.Errorf("Check = %v", err)
			}
			if got, err := s.Get(t.Context(), u.ID); err != nil || got != u {
				t.Errorf("reading = %v, %v", got, err)
			}
			if _, err := s.Get(t.Context(), ""); !errors.Is(err, users.ErrNotFound) {
				t.Errorf("the check left something: %v", err)
			}
		})
	}
}

// fill creates users until one fails.
func fill(t *testing.T, s *users.Store) error {
	for i := range 10_000 {
		if _, err := s.Create(t.Context(), "Filler", fmt.Sprintf("filler-%d@example.org", i)); err != nil {
			return err
		}
	}
	t.Error("the database does not get full")
	return nil
}

// Users and pages of any number: a walk meets each once, in order of creation,
// whoever is deleted behind or created ahead of it.
func TestListWalk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s, err := users.Open(t.Context(), "sqlite::memory:")
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		var want []string
		add := func() {
			u, err := s.Create(t.Context(), "U", fmt.Sprintf("u%d@example.org", len(want)))
			if err != nil {
				rt.Fatal(err)
			}
			want = append(want, u.ID)
		}
		for range rapid.IntRange(0, 40).Draw(rt, "users") {
			add()
		}
		size := rapid.IntRange(1, 45).Draw(rt, "page")
		var got []string
		for after := ""; ; {
			page, err := s.List(t.Context(), after, size)
			if err != nil {
				rt.Fatal(err)
			}
			if len(page) > size {
				rt.Fatalf("a page of %d has %d", size, len(page))
			}
			for _, u := range page {
				got = append(got, u.ID)
			}
			if len(page) < size {
				break
			}
			after = got[len(got)-1]
			if rapid.Bool().Draw(rt, "delete the last one") {
				if err := s.Delete(t.Context(), after); err != nil {
					rt.Fatal(err)
				}
			}
			if len(want) < 60 && rapid.Bool().Draw(rt, "create") {
				add()
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("walk (-want +got):\n%s", diff)
		}
	})
}
