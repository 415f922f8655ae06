// Package sqlidempotency keeps idempotency keys in an SQLite or PostgreSQL
// database, by database/sql and whatever driver the caller has.
//
//	keys, err := sqlidempotency.New(db, sqlidempotency.Postgres)
//	err = keys.CreateTable(ctx) // or Schema in a migration of your own
//	once, err := idempotency.Middleware(keys)
//
// Times are the database's, so the clocks of the processes don't matter. Expired
// rows are deleted along the way, when answers are kept; see [Store.Purge].
//
// # Exactly once
//
// If what the request does is in the same database, have it say so in its own
// transaction:
//
//	tx, err := db.BeginTx(ctx, nil)
//	…                              // the work
//	err = keys.Done(ctx, tx)       // ctx is the request's
//	err = tx.Commit()
//
// Then the work and the key are decided together. After a crash behind the commit
// the request is not carried out again, but is answered with 409
// idempotency_answer_not_kept once the lease has expired; after one before it, it is
// carried out then; and a handler that was away for longer than its lease can't commit if
// another one has taken over. That goes for a lost connection too: a handler that
// answers 503 because it does not know whether its commit was done is right.
package sqlidempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/idempotency"
)

// DefaultTable is the name of the table unless [WithTable] gives another.
const DefaultTable = "idempotency_keys"

// Dialect is a kind of database.
type Dialect int

// The dialects.
const (
	SQLite   Dialect = iota + 1 // 3.42 or later
	Postgres                    // 13 or later
)

// String is the name of the database.
func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "SQLite"
	case Postgres:
		return "PostgreSQL"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// now is the time in milliseconds since 1970, as the dialect has it. In PostgreSQL
// it is not that of the transaction's start, before which others may have waited.
func (d Dialect) now() string {
	if d == Postgres {
		return "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
	}
	return "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
}

const (
	sqliteSchema = `CREATE TABLE TABLE_NAME (
    key         TEXT    NOT NULL PRIMARY KEY,
    fingerprint BLOB    NOT NULL,
    owner       TEXT    NOT NULL, -- who has claimed the key
    expires_at  INTEGER NOT NULL, -- the claim or the answer; milliseconds since 1970
    done        INTEGER NOT NULL, -- 0, or carried out: the answer may come until this time
    answer      BLOB              -- NULL while it is not known
) STRICT;
CREATE INDEX TABLE_NAME_expires_at ON TABLE_NAME (expires_at);
`
	postgresSchema = `CREATE TABLE TABLE_NAME (
    key         text   NOT NULL PRIMARY KEY,
    fingerprint bytea  NOT NULL,
    owner       text   NOT NULL, -- who has claimed the key
    expires_at  bigint NOT NULL, -- the claim or the answer; milliseconds since 1970
    done        bigint NOT NULL, -- 0, or carried out: the answer may come until this time
    answer      bytea            -- NULL while it is not known
);
CREATE INDEX TABLE_NAME_expires_at ON TABLE_NAME (expires_at);
`
)

// Option changes a default of [New].
type Option func(*Store)

// WithTable sets the name of the table, of a-z, 0-9 and _; [DefaultTable] by
// default. Services that share a database have a table each, or they would answer
// for one another.
func WithTable(name string) Option { return func(s *Store) { s.table = name } }

// Store implements [idempotency.Store]. It is safe for concurrent use, and
// several processes may use one table.
type Store struct {
	db      *sql.DB
	dialect Dialect
	table   string
	purged  atomic.Int64 // when, in nanoseconds since 1970

	claim, find, renew, complete, release, giveUp, done, purge string
}

var tableName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,47}$`)

// New returns a store in db, which stays the caller's. It does not ask the
// database anything; the table must be there before the first key.
func New(db *sql.DB, dialect Dialect, opts ...Option) (*Store, error) {
	s := &Store{db: db, dialect: dialect, table: DefaultTable}
	for _, o := range opts {
		o(s)
	}
	switch {
	case db == nil:
		return nil, errors.New("sqlidempotency: db is nil: give an open database")
	case dialect != SQLite && dialect != Postgres:
		return nil, fmt.Errorf("sqlidempotency: the dialect %v is unknown: give SQLite or Postgres", dialect)
	case !tableName.MatchString(s.table):
		return nil, fmt.Errorf("sqlidempotency: WithTable(%q) is no table's name: give one of a-z, 0-9 and _, such as %s", s.table, DefaultTable)
	}
	parameter := "$"
	if dialect == SQLite { // where $1 is the first one it meets, and ?1 the first one given
		parameter = "?"
	}
	fill := func(statement string) string {
		return strings.NewReplacer("TABLE_NAME", s.table, "NOW", dialect.now(), "$", parameter).Replace(statement)
	}
	// One statement each, so that no lock is held while the database waits for us.
	// A claim that somebody has is not touched, since Done may have locked it.
	s.claim = fill(`INSERT INTO TABLE_NAME AS old (key, fingerprint, owner, expires_at, done, answer)
		SELECT $1, $2, $3, NOW + $4, 0, NULL
		WHERE NOT EXISTS (SELECT 1 FROM TABLE_NAME WHERE key = $1 AND owner <> $3 AND expires_at > NOW)
		ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, owner = excluded.owner,
			expires_at = excluded.expires_at, done = 0, answer = NULL
		WHERE old.expires_at <= NOW OR old.owner = excluded.owner AND old.done = 0`)
	s.find = fill(`SELECT fingerprint, CASE WHEN done = 0 OR done > NOW THEN 1 ELSE 0 END, answer
		FROM TABLE_NAME WHERE key = $1 AND expires_at > NOW`)
	// What is done is kept for longer than any lease, which only says how long to
	// wait for its answer.
	s.renew = fill(`UPDATE TABLE_NAME SET expires_at = CASE done WHEN 0 THEN NOW + $3 ELSE expires_at END,
			done = CASE done WHEN 0 THEN 0 ELSE NOW + $3 END
		WHERE key = $1 AND owner = $2`)
	// The row of a claim that expired may have been deleted.
	s.complete = fill(`INSERT INTO TABLE_NAME AS old (key, fingerprint, owner, expires_at, done, answer)
		VALUES ($1, $2, $3, NOW + $4, 1, $5)
		ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at, done = 1, answer = excluded.answer
		WHERE old.owner = excluded.owner`)
	s.release = fill(`DELETE FROM TABLE_NAME WHERE key = $1 AND owner = $2 AND done = 0`)
	s.giveUp = fill(`UPDATE TABLE_NAME SET done = 1 WHERE key = $1 AND owner = $2`)
	s.done = fill(`INSERT INTO TABLE_NAME AS old (key, fingerprint, owner, expires_at, done, answer)
		VALUES ($1, $2, $3, NOW + $4, NOW + $5, NULL)
		ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at, done = excluded.done
		WHERE old.owner = excluded.owner`)
	// By the time its row is reached, an expired key may be claimed again.
	s.purge = fill(`DELETE FROM TABLE_NAME WHERE expires_at <= NOW
		AND key IN (SELECT key FROM TABLE_NAME WHERE expires_at <= NOW LIMIT $1)`)
	return s, nil
}

// Schema returns the statements that make the table and its index, for a migration.
func (s *Store) Schema() string {
	schema := sqliteSchema
	if s.dialect == Postgres {
		schema = postgresSchema
	}
	return strings.ReplaceAll(schema, "TABLE_NAME", s.table)
}

// CreateTable makes the table if it is not there. Several processes may do so at
// once.
func (s *Store) CreateTable(ctx context.Context) error {
	if s.exists(ctx) == nil {
		return nil
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("create the table %s: %w", s.table, err)
	}
	_, err = tx.ExecContext(ctx, s.Schema())
	if err == nil {
		err = tx.Commit()
	} else {
		_ = tx.Rollback() // err says it all
	}
	if err != nil && s.exists(ctx) != nil { // else somebody was faster
		return fmt.Errorf("create the table %s: %w", s.table, err)
	}
	return nil
}

func (s *Store) exists(ctx context.Context) error {
	_, _, err := s.read(ctx, "")
	return err
}

// claimTries bounds the rounds of claim, too late, look, gone.
const claimTries = 5

// Claim implements [idempotency.Store].
func (s *Store) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Outcome, error) {
	for range claimTries {
		claimed, err := s.exec(ctx, s.db, s.claim, c.Key, c.Fingerprint[:], c.Owner, c.Lease.Milliseconds())
		if err != nil {
			return idempotency.Outcome{}, failed("claim", err)
		}
		if claimed {
			return idempotency.Outcome{State: idempotency.Claimed}, nil
		}
		outcome, there, err := s.read(ctx, c.Key)
		if err != nil {
			return idempotency.Outcome{}, failed("read", err)
		}
		if there {
			return outcome, nil
		}
	}
	return idempotency.Outcome{}, failed("claim", fmt.Errorf("%w: others claim it and give it back all the time", idempotency.ErrUnavailable))
}

func (s *Store) read(ctx context.Context, key string) (o idempotency.Outcome, there bool, err error) {
	var fingerprint, answer []byte
	var going int
	err = s.db.QueryRowContext(ctx, s.find, key).Scan(&fingerprint, &going, &answer)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return o, false, nil
	case err != nil:
		return o, false, err
	case copy(o.Fingerprint[:], fingerprint) != len(o.Fingerprint):
		return o, false, errors.New("the stored fingerprint has another length")
	}
	o.State = idempotency.InProgress
	switch {
	case answer != nil:
		o.State, err = idempotency.Completed, o.Answer.UnmarshalBinary(answer)
	case going == 0: // it is done, and then the process died
		o.State, o.Answer.Omitted = idempotency.Completed, true
	}
	return o, err == nil, err
}

// Renew implements [idempotency.Store].
func (s *Store) Renew(ctx context.Context, c idempotency.Claim) error {
	held, err := s.exec(ctx, s.db, s.renew, c.Key, c.Owner, c.Lease.Milliseconds())
	return verdict("renew", held, err)
}

// Complete implements [idempotency.Store].
func (s *Store) Complete(ctx context.Context, c idempotency.Claim, a idempotency.Answer) error {
	encoded, err := a.MarshalBinary()
	if err != nil {
		return failed("complete", err)
	}
	kept, err := s.exec(ctx, s.db, s.complete, c.Key, c.Fingerprint[:], c.Owner, c.TTL.Milliseconds(), encoded)
	if err := verdict("complete", kept, err); err != nil {
		return err
	}
	s.tidy(ctx)
	return nil
}

// Release implements [idempotency.Store].
func (s *Store) Release(ctx context.Context, c idempotency.Claim) error {
	released, err := s.exec(ctx, s.db, s.release, c.Key, c.Owner)
	if err == nil && !released { // nothing comes any more for what is done
		_, err = s.exec(ctx, s.db, s.giveUp, c.Key, c.Owner)
	}
	return failed("release", err)
}

// Done marks the request of ctx as carried out, as a part of tx: from its commit
// on no other request with that key is carried out, even if no answer is ever
// kept. Without a key, see [idempotency.ClaimFrom], it does nothing. On an error
// the caller rolls back; it wraps [idempotency.ErrLost] if the claim has expired
// and another request has the key.
//
// It locks the key's row until tx ends, so it is best called last.
func (s *Store) Done(ctx context.Context, tx *sql.Tx) error {
	c, ok := idempotency.ClaimFrom(ctx)
	if !ok {
		return nil
	}
	done, err := s.exec(ctx, tx, s.done, c.Key, c.Fingerprint[:], c.Owner, c.TTL.Milliseconds(), c.Lease.Milliseconds())
	return verdict("mark as carried out", done, err)
}

const (
	purgeEvery = time.Minute
	// purgeBatch is deleted at once: a few milliseconds for whoever waits for it.
	purgeBatch = 500
)

// tidy deletes some of what has expired, at most once a minute, or at once again
// while there is more. A failure is no failure of the caller's: it is tried again.
func (s *Store) tidy(ctx context.Context) {
	last, now := s.purged.Load(), time.Now().UnixNano()
	if now-last < int64(purgeEvery) || !s.purged.CompareAndSwap(last, now) {
		return
	}
	if n, err := s.purgeSome(ctx); err == nil && n == purgeBatch {
		s.purged.Store(0)
	}
}

func (s *Store) purgeSome(ctx context.Context) (int64, error) {
	result, err := s.db.ExecContext(ctx, s.purge, purgeBatch)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Purge deletes everything that has expired and returns how many rows that were.
// The store does so by itself, a little at a time, while keys are used.
func (s *Store) Purge(ctx context.Context) (rows int64, err error) {
	for {
		n, err := s.purgeSome(ctx)
		rows += n
		if err != nil {
			return rows, fmt.Errorf("purge idempotency keys: %w", err)
		}
		if n < purgeBatch {
			return rows, nil
		}
	}
}

// executor is a database or a transaction.
type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// exec reports whether the statement found a row it could change.
func (s *Store) exec(ctx context.Context, on executor, statement string, args ...any) (bool, error) {
	result, err := on.ExecContext(ctx, statement, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

func verdict(what string, held bool, err error) error {
	if err == nil && !held {
		err = idempotency.ErrLost
	}
	return failed(what, err)
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s idempotency key: %w", what, err)
}
