package natsidempotency_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
	"github.com/keelson-go/keelson/idempotency/natsidempotency"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	idempotencytest.Run(t, func(t *testing.T) idempotencytest.Open {
		s := startServer(t)
		return func(t testing.TB) idempotency.Store { return openAt(t, s) }
	})
}

func TestCrash(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	idempotencytest.Crash(t, func(t testing.TB) idempotency.Store { return openAt(t, s) },
		childURL+"="+s.URL(), childCredentials+"="+s.Credentials())
}

// Two services have keys of their own in the one bucket.
func TestServicesApart(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	e, err := s.Connect(within(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, service := range []string{"order-service", "payment-service"} {
		store, err := e.Idempotency(within(t), service)
		if err != nil {
			t.Fatal(err)
		}
		o, err := store.Claim(within(t), idempotencytest.NewClaim("a", "one"))
		if err != nil || o.State != idempotency.Claimed {
			t.Errorf("%s: %v, %v", service, o.State, err)
		}
	}
	for _, service := range []string{"", "Order", "a.b", "*", "a b"} {
		if _, err := e.Idempotency(within(t), service); err == nil {
			t.Errorf("the service name %q was taken", service)
		}
	}
}

// Claims, answers and the marks of what is gone leave the bucket by themselves.
func TestBucketEmpties(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	store := openAt(t, s)
	for name, do := range map[string]func(idempotency.Claim) error{
		"claimed":   func(idempotency.Claim) error { return nil },
		"released":  func(c idempotency.Claim) error { return store.Release(within(t), c) },
		"completed": func(c idempotency.Claim) error { return store.Complete(within(t), c, idempotency.Answer{Status: 200}) },
	} {
		c := idempotencytest.NewClaim(name, "one")
		c.Lease, c.TTL = time.Second, 1500*time.Millisecond
		if _, err := store.Claim(within(t), c); err != nil {
			t.Fatal(err)
		}
		if err := do(c); err != nil {
			t.Fatal(err)
		}
	}
	e, err := s.Connect(within(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	eventually(t, "the bucket is empty", func() bool {
		stream, err := e.JetStream().Stream(within(t), "KV_"+engine.IdempotencyBucket)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
}

// A store that is away, full or not there says so, and nothing hangs.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	e, err := s.Connect(within(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	if _, err := natsidempotency.New(within(t), e.Conn(), "order-service"); !errors.Is(err, idempotency.ErrUnavailable) {
		t.Errorf("without a bucket: %v", err)
	}
	store, err := e.Idempotency(within(t), "order-service")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := e.JetStream().Stream(within(t), "KV_"+engine.IdempotencyBucket)
	if err != nil {
		t.Fatal(err)
	}
	full := stream.CachedInfo().Config
	full.MaxBytes = 1000
	if _, err := e.JetStream().UpdateStream(within(t), full); err != nil {
		t.Fatal(err)
	}
	first := idempotencytest.NewClaim("first", "one")
	_, err = store.Claim(within(t), first)
	for i := 0; err == nil; i++ {
		_, err = store.Claim(within(t), idempotencytest.NewClaim(string(rune('a'+i)), "one"))
	}
	if !errors.Is(err, idempotency.ErrUnavailable) {
		t.Errorf("full: %v", err)
	}
	testFull(t, store, first)
	if err := e.JetStream().DeleteKeyValue(within(t), engine.IdempotencyBucket); err != nil {
		t.Fatal(err)
	}
	c := idempotencytest.NewClaim("z", "one")
	calls := map[string]func(ctx context.Context) error{
		"Claim":    func(ctx context.Context) error { _, err := store.Claim(ctx, c); return err },
		"Renew":    func(ctx context.Context) error { return store.Renew(ctx, c) },
		"Complete": func(ctx context.Context) error { return store.Complete(ctx, c, idempotency.Answer{Status: 200}) },
		"Release":  func(ctx context.Context) error { return store.Release(ctx, c) },
	}
	for what, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := call(ctx); !errors.Is(err, idempotency.ErrUnavailable) {
			t.Errorf("%s without a bucket: %v", what, err)
		}
		cancel()
	}
	e.Close()
	for what, call := range calls {
		if err := call(within(t)); !errors.Is(err, idempotency.ErrUnavailable) {
			t.Errorf("%s without a connection: %v", what, err)
		}
	}
}

// What was begun before the bucket was full goes on, and is not done again.
func testFull(t *testing.T, store idempotency.Store, begun idempotency.Claim) {
	t.Helper()
	for range 12 {
		if err := store.Renew(within(t), begun); err != nil {
			t.Fatalf("full: Renew = %v", err)
		}
	}
	begun.TTL = idempotency.DefaultTTL
	if err := store.Complete(within(t), begun, idempotency.Answer{Status: 201, Body: make([]byte, 500)}); err != nil {
		t.Errorf("full: Complete = %v", err)
	}
	again := begun
	again.Owner = "another"
	if o, err := store.Claim(within(t), again); err != nil || o.State != idempotency.Completed || !o.Answer.Omitted || o.Answer.Status != 201 {
		t.Errorf("full: %+v, %v", o, err)
	}
}

// Another release's, or somebody's garbage, in the bucket is no answer.
func TestGarbage(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	store := openAt(t, s)
	e, err := s.Connect(within(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	kv, err := e.JetStream().KeyValue(within(t), engine.IdempotencyBucket)
	if err != nil {
		t.Fatal(err)
	}
	c := idempotencytest.NewClaim("a", "one")
	if _, err := kv.Put(within(t), "order-service."+c.Key, []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if o, err := store.Claim(within(t), c); err == nil || o.State == idempotency.Claimed {
		t.Errorf("Claim = %v, %v", o, err)
	}
}

func BenchmarkCycle(b *testing.B) {
	s, err := embedded.Start(within(b), embedded.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Stop(within(b))
	idempotencytest.Benchmark(b, openAt(b, s))
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}
