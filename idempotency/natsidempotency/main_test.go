package natsidempotency_test

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
)

func TestMain(m *testing.M) {
	if idempotencytest.Child(openChild) {
		return
	}
	idempotencytest.RealTime()
	goleak.VerifyTestMain(m)
}

// within bounds what a test waits for.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// startServer is an engine of its own, on disk, that other processes reach.
func startServer(t testing.TB) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(within(t), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Credentials: "keelson:only-for-tests"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(within(t)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openAt is another connection.
func openAt(t testing.TB, s *embedded.Server) idempotency.Store {
	t.Helper()
	e, err := s.Connect(within(t), "instance")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	store, err := e.Idempotency(within(t), "order-service")
	if err != nil {
		t.Fatal(err)
	}
	return store
}

const (
	childURL         = "KEELSON_TEST_URL"
	childCredentials = "KEELSON_TEST_CREDENTIALS"
)

func openChild(ctx context.Context) (idempotency.Store, func(context.Context) error, error) {
	e, err := engine.Connect(ctx, engine.Config{URL: os.Getenv(childURL), Credentials: os.Getenv(childCredentials)})
	if err != nil {
		return nil, nil, err
	}
	store, err := e.Idempotency(ctx, "order-service")
	return store, nil, err
}
