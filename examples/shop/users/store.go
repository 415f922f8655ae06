package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"

	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

// What a [Store] is asked for and can't do. Other errors are failures of the
// database.
var (
	ErrNotFound   = errors.New("no such user")
	ErrEmailTaken = errors.New("another user has this email address")
	// ErrUnavailable is wrapped by errors of a database that can't be used now: out
	// of reach, stopping, locked for too long, out of connections, and for writes
	// read-only or full. The write was not done.
	ErrUnavailable = errors.New("the database is not available")
	// ErrInDoubt is wrapped by errors of a write that a lost connection has left
	// without an answer: it may have been done or not.
	ErrInDoubt = errors.New("the connection to the database broke during the write, which may have been done")
)

// User is a person the shop knows.
type User struct {
	ID        string    `json:"id" format:"uuid" doc:"UUIDv7: later users have greater ids"`
	Name      string    `json:"name"`
	Email     string    `json:"email" format:"email"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// Store keeps users in an SQLite or PostgreSQL database, which several processes
// may share. Every method is one transaction, is safe for concurrent use, and
// gives up when its context ends; a write may be done by then or not. When a
// write returns nil, it is on the disk.
type Store struct {
	db database
}

// database is what SQLite and PostgreSQL do each in its own way. Its methods are
// those of Store, with errors as the driver has them.
type database interface {
	get(ctx context.Context, id string) *sql.Row
	list(ctx context.Context, after string, limit int) (*sql.Rows, error)
	// create gives the user an id above those of all who were ever seen; see List.
	create(ctx context.Context, name, email string) (User, error)
	replace(ctx context.Context, id, name, email string) (User, error)
	// delete returns the number of users deleted.
	delete(ctx context.Context, id string) (int64, error)
	check(ctx context.Context) error
	// idempotency is where the keys of requests are; create marks them as carried out.
	idempotency() *sqlidempotency.Store
	// classify gives an error the name that this package has for it. lost is the
	// name of a lost connection.
	classify(err, lost error) error
	close() error
}

// Open opens the database at address and brings its schema up to date; processes
// that start at the same time do so one after another. The address is one of
//
//	sqlite:///absolute/path.db    a file, made with its folders for this user alone
//	sqlite::memory:               gone when closed
//	postgres://user:password@host:5432/database?sslmode=verify-full
//	""                            the file .keelson/data/user-service.db in the working folder
//
// Of a PostgreSQL address all is as with libpq, and what it leaves out comes from
// the environment (PGPASSFILE and the like): postgresql: for postgres:, several
// hosts (with target_session_attrs=read-write for the one that takes writes),
// sslmode and the other settings after the "?". They may also have
// pool_max_conns, the most connections (4, or the number of processors if that
// is more), pool_max_conn_lifetime (1h) and pool_max_conn_idle_time (30m).
// With default_query_exec_mode=cache_statement reading takes half the time, but a
// pooler in between, such as PgBouncer, must then know prepared statements. It
// must have session mode for a start that changes the schema, for which the user
// also needs CREATE. In a password, characters that mean something in a URL
// are written with %.
//
// A PostgreSQL server that can't be reached yet is waited for, at most 25 s.
// No error repeats the password.
func Open(ctx context.Context, address string) (*Store, error) {
	return open(ctx, address, slog.New(slog.DiscardHandler))
}

// open is Open; what it waits for goes to log.
func open(ctx context.Context, address string, log *slog.Logger) (*Store, error) {
	scheme, _, _ := strings.Cut(address, ":")
	var db database
	var err error
	switch scheme {
	case "postgres", "postgresql":
		db, err = openPostgres(ctx, address, log)
	default:
		db, err = openSQLite(ctx, address)
	}
	if err != nil {
		return nil, err
	}
	return &Store{db: db}, nil
}

// migrate brings the schema up to date with the SQL files in dir.
func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect, files fs.FS, dir string, opts ...goose.ProviderOption) error {
	files, err := fs.Sub(files, dir)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(dialect, db, files, append(opts, goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return err
	}
	// Mostly there is nothing to do, and so nothing to lock.
	pending, err := provider.HasPending(ctx)
	if err == nil && pending {
		_, err = provider.Up(ctx)
	}
	if err != nil {
		return fmt.Errorf("bring the schema up to date: %w", err)
	}
	return nil
}

// Close closes the database. A connection in use is closed as soon as its user is
// done; what has not begun fails.
func (s *Store) Close() error { return s.db.close() }

const (
	columns    = "id, name, email, created_at, updated_at"
	getUser    = "SELECT " + columns + " FROM users WHERE id = $1"
	listUsers  = "SELECT " + columns + " FROM users WHERE id > $1 ORDER BY id LIMIT $2"
	deleteUser = "DELETE FROM users WHERE id = $1"
)

// List returns at most limit users in the order of their ids, beginning after
// the id after, which need not exist any more; "" begins at the first. No user
// ever appears before one that was seen: who goes on after the last id he has
// read misses none. With SQLite that takes a clock that is not set back.
func (s *Store) List(ctx context.Context, after string, limit int) ([]User, error) {
	if after == "" {
		after = uuid.Nil.String() // before all
	}
	if !isID(after) {
		return nil, fmt.Errorf("list users after %q: that is no id", after)
	}
	users, err := s.list(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", s.db.classify(err, ErrUnavailable))
	}
	return users, nil
}

func (s *Store) list(ctx context.Context, after string, limit int) ([]User, error) {
	rows, err := s.db.list(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err below has what went wrong
	users := []User{}
	for rows.Next() {
		u, err := scan(rows)
		if err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

// Get returns one user, or [ErrNotFound].
func (s *Store) Get(ctx context.Context, id string) (User, error) {
	if !isID(id) {
		return User{}, fmt.Errorf("get user: %w", ErrNotFound)
	}
	u, err := scan(s.db.get(ctx, id))
	if err != nil {
		return User{}, fmt.Errorf("get user: %w", s.classify(err, ErrUnavailable))
	}
	return u, nil
}

// Create stores a new user under a new id. No two users have the same email,
// whatever its case: [ErrEmailTaken]. If ctx is that of a request with an
// idempotency key, the request is marked as carried out in the same transaction, and
// the error wraps idempotency.ErrLost if another one has its key by now.
func (s *Store) Create(ctx context.Context, name, email string) (User, error) {
	u, err := s.db.create(ctx, name, email)
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", s.classify(err, ErrInDoubt))
	}
	return u, nil
}

// Replace sets a user's name and email, and when it was updated.
// Errors: [ErrNotFound], [ErrEmailTaken].
func (s *Store) Replace(ctx context.Context, id, name, email string) (User, error) {
	if !isID(id) {
		return User{}, fmt.Errorf("replace user: %w", ErrNotFound)
	}
	u, err := s.db.replace(ctx, id, name, email)
	if err != nil {
		return User{}, fmt.Errorf("replace user: %w", s.classify(err, ErrInDoubt))
	}
	return u, nil
}

// Delete removes a user, or returns [ErrNotFound].
func (s *Store) Delete(ctx context.Context, id string) error {
	if !isID(id) {
		return fmt.Errorf("delete user: %w", ErrNotFound)
	}
	n, err := s.db.delete(ctx, id)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("delete user: %w", s.classify(err, ErrInDoubt))
	}
	return nil
}

// Check tells whether the database takes writes, [ErrUnavailable] if not: it has
// it write something, of which nothing stays.
func (s *Store) Check(ctx context.Context) error {
	if err := s.db.check(ctx); err != nil {
		return fmt.Errorf("check the database: %w", s.classify(err, ErrUnavailable))
	}
	return nil
}

func (s *Store) classify(err, lost error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return s.db.classify(err, lost)
}

// isID reports whether s is an id in the only form it is ever given out in.
// PostgreSQL would take others too, and fail for all else.
func isID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}

func scan(row interface{ Scan(dest ...any) error }) (User, error) {
	var u User
	err := row.Scan(&u.ID, &u.Name, &u.Email, (*instant)(&u.CreatedAt), (*instant)(&u.UpdatedAt))
	return u, err
}

// instant reads a time, which SQLite has as microseconds since 1970.
type instant time.Time

// Scan implements sql.Scanner.
func (i *instant) Scan(v any) error {
	switch v := v.(type) {
	case int64:
		*i = instant(time.UnixMicro(v).UTC())
	case time.Time:
		*i = instant(v.UTC())
	default:
		return fmt.Errorf("a %T is no time", v)
	}
	return nil
}
