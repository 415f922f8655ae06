package registrytest

import (
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
)

// shortTTL is the shortest a store has to honour.
const shortTTL = time.Second

func expectLease(t *testing.T, s *stream[registry.LeaseChange], state registry.LeaseState, k registry.Key) registry.LeaseChange {
	t.Helper()
	c := s.next(t)
	if c.State != state || c.Key != k {
		t.Fatalf("lease change %+v, want state %d of %s", c, state, k)
	}
	return c
}

// awaitLease reads on until the lease of k is in the given state: a registry
// may renew it at any time.
func awaitLease(t *testing.T, s *stream[registry.LeaseChange], state registry.LeaseState, k registry.Key) {
	t.Helper()
	for {
		if c := s.next(t); c.State == state && c.Key == k {
			return
		}
	}
}

func testLeaseHeld(t *testing.T, s Store) {
	a, node := s.Connect(t), s.Connect(t)
	before, after := instance(t, "users", 1), instance(t, "users", 2)
	mustRegister(t, a, before, longTTL)
	follow, held := leases(t, node)
	equal(t, "held at the start", map[registry.Key]bool{before.Key(): true}, held)

	mustRegister(t, a, after, longTTL)
	given := expectLease(t, follow, registry.LeaseHeld, after.Key())
	// A second apart at most, by the store's clock.
	if d := time.Since(given.At); d < -time.Second || d > deadline {
		t.Errorf("given at %v, %v ago", given.At, d)
	}
	if err := a.Renew(t.Context(), after.Key(), longTTL); err != nil {
		t.Fatal(err)
	}
	if renewed := expectLease(t, follow, registry.LeaseHeld, after.Key()); renewed.At.Before(given.At) {
		t.Errorf("renewed at %v, before it was given at %v", renewed.At, given.At)
	}
}

func testLeaseExpires(t *testing.T, s Store) {
	a, node := s.Connect(t), s.Connect(t)
	follow, _ := leases(t, node)
	in := instance(t, "users", 1)
	mustRegister(t, a, in, shortTTL)
	expectLease(t, follow, registry.LeaseHeld, in.Key())
	// Renewed, it outlives its first time to live by far.
	for range 6 {
		tick(t, shortTTL/3)
		if err := a.Renew(t.Context(), in.Key(), shortTTL); err != nil {
			t.Fatal(err)
		}
		expectLease(t, follow, registry.LeaseHeld, in.Key())
	}
	last := time.Now()
	expectLease(t, follow, registry.LeaseExpired, in.Key())
	if lasted := time.Since(last); lasted < shortTTL*8/10 {
		t.Errorf("the lease of %v ended after %v", shortTTL, lasted)
	}
	// The record is not the lease's business.
	if _, there := watch(t, a); len(there) != 1 {
		t.Error("the record has gone with the lease")
	}
	if err := a.Renew(t.Context(), in.Key(), longTTL); err != nil {
		t.Fatal(err)
	}
	expectLease(t, follow, registry.LeaseHeld, in.Key())
}

func tick(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func testLeaseDisconnected(t *testing.T, s Store) {
	a, b, node := s.Connect(t), s.Connect(t), s.Connect(t)
	one, two, other := instance(t, "users", 1), instance(t, "orders", 2), instance(t, "users", 3)
	moved := instance(t, "users", 4)
	mustRegister(t, a, one, longTTL)
	mustRegister(t, a, two, longTTL)
	mustRegister(t, a, moved, longTTL)
	mustRegister(t, b, other, longTTL)
	mustRegister(t, b, moved, longTTL) // b has it now
	follow, _ := leases(t, node)
	a.Sever()
	lost := map[registry.Key]bool{}
	for range 2 {
		c := follow.next(t)
		if c.State != registry.LeaseDisconnected {
			t.Fatalf("lease change %+v, want LeaseDisconnected", c)
		}
		lost[c.Key] = true
	}
	equal(t, "lost", map[registry.Key]bool{one.Key(): true, two.Key(): true}, lost)

	a.Mend()
	eventually(t, func() string {
		if err := a.Renew(t.Context(), one.Key(), longTTL); err != nil {
			return "renew after Mend: " + err.Error()
		}
		return ""
	})
	expectLease(t, follow, registry.LeaseHeld, one.Key())
	// And again, on the new connection.
	a.Sever()
	expectLease(t, follow, registry.LeaseDisconnected, one.Key())
}

func testLeaseReleased(t *testing.T, s Store) {
	d := s.Connect(t)
	in := instance(t, "users", 1)
	mustRegister(t, d, in, longTTL)
	follow, _ := leases(t, d)
	if err := d.Deregister(t.Context(), in.Key(), 0); err != nil {
		t.Fatal(err)
	}
	expectLease(t, follow, registry.LeaseReleased, in.Key())
	if _, held := leases(t, d); len(held) != 0 {
		t.Errorf("leases left: %v", held)
	}
	mustRegister(t, d, in, longTTL)
	expectLease(t, follow, registry.LeaseHeld, in.Key())
}
