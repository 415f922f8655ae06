package postgrestest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared is the server of this test process.
var shared struct {
	mu      sync.Mutex
	running bool // tests run below M, which stops it
	server  *Server
	err     error
}

// M runs tests and then stops the server they share, if they have used it.
type M struct{ *testing.M }

// Run runs the tests and returns the code to exit with.
func (m M) Run() int {
	shared.mu.Lock()
	shared.running = true
	shared.mu.Unlock()
	code := m.M.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.running = false
	if shared.server == nil {
		return nil
	}
	err := shared.server.Stop()
	shared.server = nil
	return err
}

// Shared returns the server the tests of this process share, which the first call
// starts. It must neither be stopped nor broken. It may be called concurrently.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	switch {
	case !shared.running:
		t.Fatal("nobody would stop the server: run the tests by postgrestest.M in TestMain")
	case shared.err != nil:
		t.Fatal(shared.err) // not once more for each test
	case shared.server == nil:
		if shared.server, shared.err = Start(context.WithoutCancel(t.Context())); shared.err != nil {
			t.Fatal(shared.err)
		}
	}
	return shared.server
}

// URL returns the address of a new, empty database on the shared server, for a
// user who owns it. It is dropped after the test, when all that the test cleans
// up later has been. It may be called concurrently.
func URL(t testing.TB) string {
	t.Helper()
	return Shared(t).Database(t)
}

// Database is [URL] for this server.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	address, drop, err := s.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return address
}
