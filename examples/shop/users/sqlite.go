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

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

const (
	// defaultPath is the database if none is named, as `keelson up` names it.
	defaultPath = ".keelson/data/user-service.db"
	// readers is how many reads run at once. Each connection keeps a page cache.
	readers = 4
	// busyTimeout is how long a write waits for another process that writes.
	busyTimeout = 5 * time.Second
)

//go:embed migrations/sqlite
var sqliteMigrations embed.FS

// sqliteDB is a database in a file, or in memory.
type sqliteDB struct {
	write *sql.DB   // one connection: SQLite has one writer at a time, and waiting in line is cheaper than polling for its lock
	read  *sql.DB   // the same as write for a database in memory
	found *sql.Stmt // getUser, parsed once: that is half of its time
	keys  *sqlidempotency.Store
}

func openSQLite(ctx context.Context, address string) (database, error) {
	path, err := location(address)
	if err != nil {
		return nil, err
	}
	db, err := openFile(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	return db, nil
}

func openFile(ctx context.Context, path string) (_ *sqliteDB, err error) {
	if path != "" {
		release, err := prepare(ctx, path)
		if err != nil {
			return nil, err
		}
		defer release() //nolint:errcheck // closing the file frees the lock, whatever it says
	}
	d := new(sqliteDB)
	if d.write, err = connect(path, 1); err != nil {
		return nil, err
	}
	if err = migrate(ctx, d.write, goose.DialectSQLite3, sqliteMigrations, "migrations/sqlite"); err != nil {
		return nil, errors.Join(err, d.write.Close())
	}
	d.read = d.write
	if path != "" {
		if d.read, err = connect(path, readers, "query_only(1)"); err != nil {
			return nil, errors.Join(err, d.write.Close())
		}
	}
	if d.keys, err = sqlidempotency.New(d.write, sqlidempotency.SQLite); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if d.found, err = d.read.PrepareContext(ctx, getUser); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *sqliteDB) close() error {
	err := d.write.Close()
	if d.read != d.write {
		err = errors.Join(err, d.read.Close())
	}
	if d.found != nil {
		err = errors.Join(err, d.found.Close())
	}
	return err
}

func (d *sqliteDB) idempotency() *sqlidempotency.Store { return d.keys }

func (d *sqliteDB) get(ctx context.Context, id string) *sql.Row {
	return d.found.QueryRowContext(ctx, id)
}

func (d *sqliteDB) list(ctx context.Context, after string, limit int) (*sql.Rows, error) {
	return d.read.QueryContext(ctx, listUsers, after, limit)
}

func (d *sqliteDB) create(ctx context.Context, name, email string) (u User, err error) {
	err = d.transact(ctx, func(tx *sql.Tx) error {
		// Made in here, so that ids are in the order in which users appear.
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		u, err = scan(tx.QueryRowContext(ctx, "INSERT INTO users ("+columns+") VALUES ($1, $2, $3, $4, $4) RETURNING "+columns,
			id.String(), name, email, time.Now().UnixMicro()))
		if err != nil {
			return err
		}
		return d.keys.Done(ctx, tx)
	})
	return u, err
}

func (d *sqliteDB) replace(ctx context.Context, id, name, email string) (u User, err error) {
	err = d.transact(ctx, func(tx *sql.Tx) (err error) {
		// max: a clock that is set back does not make an update older than the one before.
		u, err = scan(tx.QueryRowContext(ctx,
			"UPDATE users SET name = $2, email = $3, updated_at = max(updated_at, $4) WHERE id = $1 RETURNING "+columns,
			id, name, email, time.Now().UnixMicro()))
		return err
	})
	return u, err
}

func (d *sqliteDB) delete(ctx context.Context, id string) (n int64, err error) {
	err = d.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, deleteUser, id)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, err
}

// filler takes a few database pages.
var filler = strings.Repeat(" ", 16<<10)

// check stores something of some length and deletes it in one transaction, so
// that nobody sees it.
func (d *sqliteDB) check(ctx context.Context) error {
	return d.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO users ("+columns+") VALUES ('', $1, '', 0, 0)", filler); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM users WHERE id = ''")
		return err
	})
}

// transact runs f in a transaction that has the write lock from the start.
func (d *sqliteDB) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		// It fails if SQLite has rolled back by itself, or database/sql because ctx
		// has ended: err says it all.
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func (d *sqliteDB) classify(err, _ error) error {
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch code := failure.Code(); {
	case code == lib.SQLITE_CONSTRAINT_UNIQUE:
		return ErrEmailTaken
	case code&0xff == lib.SQLITE_BUSY, code&0xff == lib.SQLITE_READONLY, code&0xff == lib.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

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
		return "", errors.New("the database address is no URL: write it like sqlite:///var/lib/shop/users.db or postgres://user@host/database")
	}
	switch {
	case u.Scheme != "sqlite":
		return "", fmt.Errorf("databases of the scheme %q are not supported: write it like sqlite:///var/lib/shop/users.db or postgres://user@host/database", u.Scheme)
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
