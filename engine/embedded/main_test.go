package embedded_test

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
)

const patience = 20 * time.Second // for what takes milliseconds on an idle machine

func TestMain(m *testing.M) {
	if child := os.Getenv("KEELSON_TEST_CHILD"); child != "" {
		os.Exit(children[child]())
	}
	goleak.VerifyTestMain(m)
}

// start runs an engine and stops it at the end of the test.
func start(t testing.TB, cfg embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t testing.TB, s *embedded.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// connect gives an engine that is closed before the server stops.
func connect(t testing.TB, s *embedded.Server) *engine.Engine {
	t.Helper()
	e, err := s.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}
