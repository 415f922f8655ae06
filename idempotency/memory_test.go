package idempotency_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
)

func TestMemoryConforms(t *testing.T) {
	t.Parallel()
	idempotencytest.Run(t, func(*testing.T) idempotencytest.Open {
		m := new(idempotency.Memory)
		return func(testing.TB) idempotency.Store { return m }
	}, idempotencytest.InBubble())
}

// A full memory refuses, and has room again when something has expired.
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &idempotency.Memory{Max: 2}
		claim := func(name string) error {
			_, err := m.Claim(t.Context(), idempotencytest.NewClaim(name, "one"))
			return err
		}
		for _, name := range []string{"a", "b"} {
			if err := claim(name); err != nil {
				t.Fatal(err)
			}
		}
		if err := claim("c"); !errors.Is(err, idempotency.ErrUnavailable) {
			t.Fatalf("Claim = %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := claim("c"); err != nil {
			t.Fatal(err)
		}
	})
}
