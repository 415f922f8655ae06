package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// What a [Store] is asked for and can't do. Other errors are failures of the
// database.
var (
	ErrNotFound   = errors.New("no such user")
	ErrEmailTaken = errors.New("another user has this email address")
	// ErrUnavailable is wrapped by errors of a database that can't take a write
	// now: locked for too long, read-only, or full. The write was not done.
	ErrUnavailable = errors.New("the database takes no writes")
)

// User is a person the shop knows.
type User struct {
	ID        string    `json:"id" format:"uuid" doc:"UUIDv7: later users have greater ids"`
	Name      string    `json:"name"`
	Email     string    `json:"email" format:"email"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// Store keeps users in an SQLite database, which several processes may share.
// Every method is one transaction, is safe for concurrent use, and gives up when
// its context ends. When a write returns nil, it is on the disk.
type Store struct {
	write *sql.DB   // one connection: SQLite has one writer at a time, and waiting in line is cheaper than polling for its lock
	read  *sql.DB   // the same as write for a database in memory
	get   *sql.Stmt // parsed once: that is half of its time
}

// Open opens the database at address and brings its schema up to date; processes
// that start at the same time do so one after another. The address is
// sqlite:///absolute/path.db, sqlite::memory:, or "" for
// .keelson/data/user-service.db in the working folder. A file that does not exist
// is made, with its folders, for this user alone.
func Open(ctx context.Context, address string) (*Store, error) {
	path, err := location(address)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (_ *Store, err error) {
	if path != "" {
		release, err := prepare(ctx, path)
		if err != nil {
			return nil, err
		}
		defer release() //nolint:errcheck // closing the file frees the lock, whatever it says
	}
	s := new(Store)
	if s.write, err = connect(path, 1); err != nil {
		return nil, err
	}
	if err = migrate(ctx, s.write); err != nil {
		return nil, errors.Join(fmt.Errorf("bring the schema up to date: %w", err), s.write.Close())
	}
	s.read = s.write
	if path != "" {
		if s.read, err = connect(path, readers, "query_only(1)"); err != nil {
			return nil, errors.Join(err, s.write.Close())
		}
	}
	if s.get, err = s.read.PrepareContext(ctx, "SELECT "+columns+" FROM users WHERE id = ?"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close waits for what is in progress and closes the database.
func (s *Store) Close() error {
	err := s.write.Close()
	if s.read != s.write {
		err = errors.Join(err, s.read.Close())
	}
	if s.get != nil {
		err = errors.Join(err, s.get.Close())
	}
	return err
}

const columns = "id, name, email, created_at, updated_at"

// List returns at most limit users in the order of their ids, beginning after
// the id after, which need not exist any more; "" begins at the first.
func (s *Store) List(ctx context.Context, after string, limit int) ([]User, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT "+columns+" FROM users WHERE id > ? ORDER BY id LIMIT ?", after, limit)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err below has what went wrong
	users := []User{}
	for rows.Next() {
		u, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		users = append(users, u)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return users, nil
}

// Get returns one user, or [ErrNotFound].
func (s *Store) Get(ctx context.Context, id string) (User, error) {
	u, err := scan(s.get.QueryRowContext(ctx, id))
	if err != nil {
		return User{}, fmt.Errorf("get user: %w", classify(err))
	}
	return u, nil
}

// Create stores a new user under a new id. No two users have the same email,
// whatever its case: [ErrEmailTaken].
func (s *Store) Create(ctx context.Context, name, email string) (User, error) {
	var u User
	err := s.transact(ctx, func(tx *sql.Tx) error {
		// Made in here, so that ids are in the order in which users appear and a
		// walk through the list does not miss one.
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		now := time.Now().UnixMicro()
		u, err = scan(tx.QueryRowContext(ctx, "INSERT INTO users ("+columns+") VALUES (?, ?, ?, ?, ?) RETURNING "+columns,
			id.String(), name, email, now, now))
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", err)
	}
	return u, nil
}

// Replace sets a user's name and email, and when it was updated.
// Errors: [ErrNotFound], [ErrEmailTaken].
func (s *Store) Replace(ctx context.Context, id, name, email string) (User, error) {
	var u User
	err := s.transact(ctx, func(tx *sql.Tx) (err error) {
		// max: a clock that is set back does not make an update older than the one before.
		u, err = scan(tx.QueryRowContext(ctx,
			"UPDATE users SET name = ?, email = ?, updated_at = max(updated_at, ?) WHERE id = ? RETURNING "+columns,
			name, email, time.Now().UnixMicro(), id))
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("replace user: %w", err)
	}
	return u, nil
}

// Delete removes a user, or returns [ErrNotFound].
func (s *Store) Delete(ctx context.Context, id string) error {
	err := s.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, "DELETE FROM users WHERE id = ?", id)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete user: %w", err)
	}
	return nil
}

// filler takes a few database pages.
var filler = strings.Repeat(" ", 16<<10)

// Check tells whether the database takes writes: it stores something of some
// length and deletes it in one transaction, so that nobody sees it.
func (s *Store) Check(ctx context.Context) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO users ("+columns+") VALUES ('', ?, '', 0, 0)", filler); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM users WHERE id = ''")
		return err
	})
}

// transact runs f in a transaction that has the write lock from the start.
func (s *Store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	if err := f(tx); err != nil {
		// A failed rollback leaves a connection that database/sql drops, and SQLite
		// then rolls back itself: err says it all.
		_ = tx.Rollback()
		return classify(err)
	}
	return classify(tx.Commit())
}

// classify gives SQLite's result codes the names of this package.
func classify(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
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

func scan(row interface{ Scan(dest ...any) error }) (User, error) {
	var u User
	var created, updated int64
	if err := row.Scan(&u.ID, &u.Name, &u.Email, &created, &updated); err != nil {
		return User{}, err
	}
	u.CreatedAt, u.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return u, nil
}
