package engine_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/idempotency"
)

func claim(name string) idempotency.Claim {
	return idempotency.Claim{Key: name, Owner: name, Lease: time.Minute, TTL: time.Hour}
}

// The bucket is made when it is first asked for, by whoever asks first.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	e := connect(t, engine.Config{URL: s.ClientURL()})
	if _, err := e.JetStream().KeyValue(t.Context(), engine.IdempotencyBucket); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Fatalf("before anybody asks: %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			e, err := engine.Connect(t.Context(), engine.Config{URL: s.ClientURL()})
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Close()
			for range 3 {
				if _, err := e.Idempotency(t.Context(), "order-service"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c := config(t, e, engine.IdempotencyBucket)
	if c.MaxMsgsPerSubject != 1 || c.MaxBytes <= 0 || !c.AllowMsgTTL || c.SubjectDeleteMarkerTTL != time.Second || c.Storage != jetstream.FileStorage {
		t.Errorf("%+v", c)
	}
	// An operator may give it more room, and keeps that.
	c.MaxBytes *= 2
	if _, err := e.JetStream().UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Idempotency(t.Context(), "order-service"); err != nil {
		t.Fatal(err)
	}
	if got := config(t, e, engine.IdempotencyBucket).MaxBytes; got != c.MaxBytes {
		t.Errorf("%d bytes, want the operator's %d", got, c.MaxBytes)
	}
	if _, err := e.Idempotency(t.Context(), "No.Name"); err == nil || !strings.Contains(err.Error(), "user-service") {
		t.Errorf("a bad name: %v", err)
	}
}

// A server that comes back empty gets this bucket, too, from who has asked for it.
func TestIdempotencyComesBack(t *testing.T) {
	t.Parallel()
	first := bare(t, nil)
	port := first.Addr().(*net.TCPAddr).Port
	e := connect(t, engine.Config{URL: first.ClientURL()})
	store, err := e.Idempotency(t.Context(), "order-service")
	if err != nil {
		t.Fatal(err)
	}
	first.Shutdown()
	first.WaitForShutdown()
	if _, err := store.Claim(t.Context(), claim("a")); !errors.Is(err, idempotency.ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
	bare(t, func(o *server.Options) { o.Port = port })
	eventually(t, "a key can be claimed again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o, err := store.Claim(ctx, claim("b"))
		return err == nil && o.State == idempotency.Claimed
	})
}
