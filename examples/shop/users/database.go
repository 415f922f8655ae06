package users

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

const (
	// defaultPath is the database if none is named, as `keelson up` names it.
	defaultPath = ".keelson/data/user-service.db"
	// readers is how many reads run at once. Each connection keeps a page cache.
	readers = 4
	// busyTimeout is how long a write waits for another process that writes.
	busyTimeout = 5 * time.Second
)

//go:embed migrations
var migrations embed.FS

// location returns the absolute path of the database at address, or "" for one
// in memory. Errors do not repeat the address, which may hold a password.
func location(address string) (string, error) {
	switch address {
	case "":
		return filepath.Abs(defaultPath)
	case "sqlite::memory:":
		return "", nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("the database address is no URL: write it like sqlite:///var/lib/shop/users.db")
	}
	switch {
	case u.Scheme != "sqlite":
		return "", fmt.Errorf("databases of the scheme %q are not supported, only sqlite: write it like sqlite:///var/lib/shop/users.db", u.Scheme)
	case u.Host != "" || u.User != nil || u.Opaque != "" || !filepath.IsAbs(u.Path) || strings.HasSuffix(u.Path, "/"):
		return "", errors.New("a sqlite address is the absolute path of a file: write it like sqlite:///var/lib/shop/users.db")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("a sqlite address has nothing after the path: remove it, or write ? as %3F and # as %23")
	}
	return filepath.Clean(u.Path), nil
}

// connect opens one connection pool. In the file at path, every commit reaches
// the disk before it is acknowledged.
func connect(path string, connections int, more ...string) (*sql.DB, error) {
	query := url.Values{
		"_pragma": {
			// First, since the others may have to wait for a lock.
			fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
			"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
			"cache_size(-512)", // KiB for each connection; the system caches the file as well
		},
		"_txlock":    {"immediate"},
		"_dqs":       {"0"},
		"_defensive": {"1"},
	}
	query["_pragma"] = append(query["_pragma"], more...)
	name := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	if path == "" {
		name.Opaque = ":memory:"
	}
	connector, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if path != "" {
		db.SetConnMaxIdleTime(time.Minute)
	}
	return db, nil
}

// prepare makes the file and its folder, for this user alone, and returns when
// no other process is setting up the same database. The caller then does so, and
// calls release.
func prepare(ctx context.Context, path string) (release func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, lock); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the lock of %s: %w", path, err), lock.Close())
	}
	// SQLite gives its other files the mode of this one. It is opened here only
	// while nobody can have it open: closing a file drops every lock this process
	// has on it (POSIX), SQLite's too.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case err == nil:
		err = f.Close()
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock.Close, nil
}

// flock locks f until it is closed, or the process ends in whatever way.
func flock(ctx context.Context, f *os.File) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}
