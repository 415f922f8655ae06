package users_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/examples/shop/users"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, address, want string }{
		{"another database", "mysql://shop:hunter2@db/shop", `databases of the scheme "mysql" are not supported`},
		{"no scheme", "/tmp/hunter2.db", `databases of the scheme "" are not supported`},
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
	s := openAt(t, address(filepath.Join(t.TempDir(), "users.db")))
	got := map[string]string{}
	for _, name := range []string{"journal_mode", "synchronous", "busy_timeout", "foreign_keys"} {
		got[name] = users.One[string](t, s, "PRAGMA "+name)
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

// A start waits for another one's lock, and no longer than its context.
func TestOpenFileWaits(t *testing.T) {
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
