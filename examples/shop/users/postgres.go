package users

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

// connectWait is how long a server that can't be reached is waited for at the start.
var connectWait = 25 * time.Second

const (
	// connectTimeout bounds one try to reach it.
	connectTimeout = 5 * time.Second
	// creators is how many users are stored at once. The database stores one after
	// another: the second one is on its way meanwhile, and more would only keep
	// connections from others.
	creators = 2
)

//go:embed migrations/postgres
var postgresMigrations embed.FS

// postgresDB is a database on a PostgreSQL server. Each of its methods but check,
// and create for a request with an idempotency key, is one statement, which is a
// transaction of its own: no lock is held while the server waits for us.
type postgresDB struct {
	db       *sql.DB
	creating chan struct{} // has an element for each create under way
	keys     *sqlidempotency.Store
}

func openPostgres(ctx context.Context, address string, log *slog.Logger) (database, error) {
	config, err := parsePostgres(address)
	if err != nil {
		return nil, err
	}
	d := &postgresDB{db: stdlib.OpenDB(*config.ConnConfig), creating: make(chan struct{}, creators)}
	d.db.SetMaxOpenConns(int(config.MaxConns))
	d.db.SetMaxIdleConns(int(config.MaxConns))
	d.db.SetConnMaxLifetime(config.MaxConnLifetime)
	d.db.SetConnMaxIdleTime(config.MaxConnIdleTime)
	if d.keys, err = sqlidempotency.New(d.db, sqlidempotency.Postgres); err != nil {
		return nil, errors.Join(err, d.db.Close())
	}
	if err := d.start(ctx, log); err != nil {
		return nil, errors.Join(fmt.Errorf("open the PostgreSQL database %q: %w", config.ConnConfig.Database, err), d.db.Close())
	}
	return d, nil
}

// parsePostgres reads the address. Its errors do not repeat any of it, nor does
// what the driver says, since where the password is in a malformed one is anybody's
// guess.
func parsePostgres(address string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		if plain, _, ok := strings.Cut(address, "?"); ok {
			if _, err := pgxpool.ParseConfig(plain); err == nil {
				return nil, errors.New(`a setting after the "?" of the PostgreSQL address is wrong: sslmode is disable, allow, prefer, require, verify-ca or verify-full, files it names must exist, pool_max_conns is a number from 1, and times are written like 30m`)
			}
		}
		return nil, errors.New("the PostgreSQL address can't be read: write it like postgres://user:password@host:5432/database, with %40 for @, %2F for / and so on in the password")
	}
	// Without prepared statements there are none to miss when a pooler has given us
	// another session.
	if !strings.Contains(address, "default_query_exec_mode") {
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	if _, ok := config.ConnConfig.RuntimeParams["application_name"]; !ok {
		config.ConnConfig.RuntimeParams["application_name"] = "user-service"
	}
	return config, nil
}

// start brings the schema up to date. While the server can't be reached it tries
// again: services are often started before their databases.
func (d *postgresDB) start(ctx context.Context, log *slog.Logger) error {
	started := time.Now()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := d.ping(ctx)
		if err == nil {
			return migrate(ctx, d.db, goose.DialectPostgres, postgresMigrations, "migrations/postgres", goose.WithSessionLocker(advisoryLock{}))
		}
		waited := time.Since(started).Round(10 * time.Millisecond)
		switch {
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), err)
		case !mayComeUp(err):
			return err
		case waited+wait > connectWait:
			return fmt.Errorf("it could not be reached in %v: %w", waited, err)
		}
		log.WarnContext(ctx, "waiting for the database", "waited", waited, "atMost", connectWait, "error", err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (d *postgresDB) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return d.db.PingContext(ctx)
}

// mayComeUp reports whether a server that could not be connected to may only be
// starting. One that refuses us has started.
func mayComeUp(err error) bool {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return said.Code == "57P03" /* cannot_connect_now */ || class(said) == "53" /* insufficient resources */
	}
	return disconnected(err) || errors.Is(err, context.DeadlineExceeded)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// advisoryLock lets the instances of a service change the schema one after
// another. goose's own looks once a second at most.
type advisoryLock struct{}

// migrationLock is the number of the lock, within the database.
const migrationLock = 0x75736572 // "user"

// SessionLock takes the lock. It asks again and again: a session that waits in
// the server would hold up a CREATE INDEX CONCURRENTLY of the one that has it.
func (advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	for {
		var locked bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", migrationLock).Scan(&locked); err != nil || locked {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for another instance's migration: %w", err)
		}
	}
}

// SessionUnlock gives the lock back. A session that ends without has none any more.
func (advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var had bool
	err := conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", migrationLock).Scan(&had)
	if err == nil && !had {
		err = errors.New("the session that had the lock is another one: a pooler in between must have session mode")
	}
	return err
}

func (d *postgresDB) close() error { return d.db.Close() }

func (d *postgresDB) idempotency() *sqlidempotency.Store { return d.keys }

func (d *postgresDB) get(ctx context.Context, id string) *sql.Row {
	return d.db.QueryRowContext(ctx, getUser, id)
}

func (d *postgresDB) list(ctx context.Context, after string, limit int) (*sql.Rows, error) {
	return d.db.QueryContext(ctx, listUsers, after, limit)
}

func (d *postgresDB) create(ctx context.Context, name, email string) (User, error) {
	select {
	case d.creating <- struct{}{}:
		defer func() { <-d.creating }()
	case <-ctx.Done():
		return User{}, ctx.Err()
	}
	if _, keyed := idempotency.ClaimFrom(ctx); !keyed {
		return scan(d.db.QueryRowContext(ctx, insertUser, name, email))
	}
	return d.createOnce(ctx, name, email)
}

// insertUser takes the time after the id, for which one waits.
const insertUser = "WITH new AS MATERIALIZED (SELECT next_user_id() AS id, clock_timestamp() AS now) " +
	"INSERT INTO users (" + columns + ") SELECT id, $1, $2, now, now FROM new RETURNING " + columns

// createOnce is create together with the request's idempotency key. That goes first:
// only the same request waits for its row, but all creates wait for the next id.
func (d *postgresDB) createOnce(ctx context.Context, name, email string) (User, error) {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return User{}, err
	}
	defer tx.Rollback() //nolint:errcheck // It does nothing after Commit, and before that err says it all.
	if err := d.keys.Done(ctx, tx); err != nil {
		return User{}, err
	}
	u, err := scan(tx.QueryRowContext(ctx, insertUser, name, email))
	if err != nil {
		return User{}, err
	}
	return u, tx.Commit()
}

func (d *postgresDB) replace(ctx context.Context, id, name, email string) (User, error) {
	// greatest: a clock that is set back does not make an update older than the one before.
	return scan(d.db.QueryRowContext(ctx,
		"UPDATE users SET name = $2, email = $3, updated_at = greatest(updated_at, clock_timestamp()) WHERE id = $1 RETURNING "+columns,
		id, name, email))
}

func (d *postgresDB) delete(ctx context.Context, id string) (int64, error) {
	result, err := d.db.ExecContext(ctx, deleteUser, id)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// check has the server write a temporary file and a message to its log, and flush
// that. A row would have to be vacuumed away, and would often find a place on a
// disk that is full.
func (d *postgresDB) check(ctx context.Context) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // It does nothing after Commit, and before that err says it all.
	if _, err := tx.ExecContext(ctx, "SET LOCAL work_mem = '64kB'"); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "SET LOCAL temp_tablespaces = ''"); err != nil { // the disk of the database
		return err
	}
	var readOnly bool
	var rows int // 10,000 do not fit in work_mem
	err = tx.QueryRowContext(ctx, "SELECT current_setting('transaction_read_only')::bool, count(*) FROM generate_series(1, 10000)").Scan(&readOnly, &rows)
	switch {
	case err != nil:
		return err
	case readOnly: // a standby, or by default_transaction_read_only
		return fmt.Errorf("%w: it is read-only", ErrUnavailable)
	}
	if _, err := tx.ExecContext(ctx, "SELECT pg_logical_emit_message(true, 'user-service', '')"); err != nil {
		return err
	}
	return tx.Commit()
}

// classify reads PostgreSQL's SQLSTATE codes (appendix A of its manual).
func (d *postgresDB) classify(err, lost error) error {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok || pgconn.SafeToRetry(err) || errors.Is(err, driver.ErrBadConn) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err) // nothing was sent
	}
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case said.Code == "23505" && said.ConstraintName == "users_email": // unique_violation
			return ErrEmailTaken
		case said.SeverityUnlocalized != "ERROR":
			// The session was ended (FATAL), at whatever point of the commit.
			return fmt.Errorf("%w: %w", lost, err)
		case transient(said):
			return fmt.Errorf("%w: %w", ErrUnavailable, err) // and rolled back
		}
		return err
	}
	if disconnected(err) {
		return fmt.Errorf("%w: %w", lost, err)
	}
	return err
}

// transient reports whether an error is about the server's state, not about what
// it was asked for.
func transient(said *pgconn.PgError) bool {
	switch class(said) {
	case "08", // connection exception
		"40", // transaction rollback: serialization failure, deadlock
		"53", // insufficient resources: disk full, out of memory, too many connections
		"57", // operator intervention: shutdown, statement timeout
		"58": // system error: I/O
		return true
	}
	switch said.Code {
	case "25006", // read-only transaction
		"55P03", // lock not available, in time
		"26000": // no such statement: the pooler has changed sessions
		return true
	}
	return false
}

func class(said *pgconn.PgError) string { return said.Code[:min(2, len(said.Code))] }

// disconnected reports whether err is of a connection that broke. The end of a
// caller's patience is none.
func disconnected(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
