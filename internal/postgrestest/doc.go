// Package postgrestest runs a real PostgreSQL server for tests.
//
// A package whose tests need one has this TestMain, which costs nothing unless a
// test asks for a database:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(postgrestest.M{M: m}) }
//
// and each test takes a database of its own, which is dropped after it:
//
//	db, err := sql.Open("pgx", postgrestest.URL(t))
//
// Tests that break the server start one for themselves with [Start], and kill,
// restart or pause it.
//
// PostgreSQL must be installed, 13 or later: initdb and postgres in PATH or where
// Debian, Red Hat, Homebrew and Postgres.app put them. A test that needs it fails
// without it. The server listens on a socket in a private folder alone and
// demands a password. PostgreSQL refuses to run as root; for root it runs as the
// user postgres, or nobody. On Linux it ends with the test process, however that
// ends.
package postgrestest
