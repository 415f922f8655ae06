// Package registrytest is the suite that every registry driver passes. It tests
// the driver's own contract, and then the registry on top of it.
//
// A driver's test calls [Run]:
//
//	func TestConformance(t *testing.T) {
//		registrytest.Run(t, func(t *testing.T) registrytest.Store { … })
//	}
package registrytest

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// Store is one store under test, with as many connections as a test wants.
// Everything it started ends with the test.
type Store struct {
	// Connect opens another connection.
	Connect func(t *testing.T) Connection
	// Wipe makes the store lose everything it holds, and cuts all connections
	// that mend by themselves. Nil if the store can't do that.
	Wipe func(t *testing.T)
}

// Connection is one process's way to the store.
type Connection struct {
	registry.Driver
	// Sever cuts the connection without a word; it stays cut until Mend.
	Sever func()
	// Mend lets a severed connection come back, soon if not at once.
	Mend func()
	// Stall lets nothing through any more, without telling either end, until
	// resume is called. Nil if the connection can't stall.
	Stall func() (resume func())
}

// Option changes how [Run] runs.
type Option func(*suite)

// InBubble runs each test in a bubble of testing/synctest, in virtual time. For
// stores that are entirely in memory.
func InBubble() Option { return func(s *suite) { s.bubble = true } }

type suite struct {
	newStore func(t *testing.T) Store
	bubble   bool
}

// deadline is how long a test waits for what must happen. What is to be fast
// is measured elsewhere.
const deadline = 20 * time.Second

// Run runs the suite. newStore is called for each test, on a fresh store.
func Run(t *testing.T, newStore func(t *testing.T) Store, opts ...Option) {
	s := &suite{newStore: newStore}
	for _, o := range opts {
		o(s)
	}
	for _, c := range []struct {
		name string
		test func(t *testing.T, s Store)
	}{
		{"Register", testRegister},
		{"WatchEverything", testWatchEverything},
		{"WatchOrder", testWatchOrder},
		{"Update", testUpdate},
		{"Deregister", testDeregister},
		{"DeregisterConditional", testDeregisterConditional},
		{"LeaseHeld", testLeaseHeld},
		{"LeaseExpires", testLeaseExpires},
		{"LeaseDisconnected", testLeaseDisconnected},
		{"LeaseReleased", testLeaseReleased},
		{"Severed", testSevered},
		{"ContextEnds", testContextEnds},
		{"Concurrent", testConcurrent},
		{"Lead", testLead},
		{"LeadLasts", testLeadLasts},
		{"LeadEnds", testLeadEnds},
		{"LeadShared", testLeadShared},
		{"LeadSevered", testLeadSevered},
		{"LeadStalled", testLeadStalled},
		{"LeadWipe", testLeadWipe},
		{"LeadRandom", testLeadRandom},
		{"Announce", testAnnounce},
		{"ComesBackAfterSever", testComesBackAfterSever},
		{"ComesBackAfterDeletion", testComesBackAfterDeletion},
		{"ComesBackAfterWipe", testComesBackAfterWipe},
		{"ErrAndOnChange", testErrAndOnChange},
		{"Replaced", testReplaced},
		{"FailStatic", testFailStatic},
		{"SlowWatcher", testSlowWatcher},
		{"Churn", testChurn},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test := func(t *testing.T) { c.test(t, s.newStore(t)) }
			if s.bubble {
				synctest.Test(t, test)
				return
			}
			test(t)
		})
	}
}

// instance returns a normalized instance for a test.
func instance(t *testing.T, service string, n int) registry.Instance {
	t.Helper()
	in := registry.Instance{
		Name: service, Address: fmt.Sprintf("http://10.0.%d.%d:3001", n/250, n%250+1), Health: "/health",
		Version: "1.2.3", Tags: []string{"a", "b"}, Metadata: map[string]string{"k": "v"}, Zone: "north",
		Status: health.Healthy, RegisteredAt: time.Date(2026, 1, 2, 3, 4, 5, n, time.UTC),
	}
	if err := in.Normalize(); err != nil {
		t.Fatal(err)
	}
	return in
}

func mustRegister(t *testing.T, d registry.Driver, in registry.Instance, ttl time.Duration) uint64 {
	t.Helper()
	revision, err := d.Register(t.Context(), in, ttl)
	if err != nil {
		t.Fatalf("Register %s: %v", in.Key(), err)
	}
	return revision
}

// result is what a driver's sequence yielded at one time.
type result[T any] struct {
	value T
	err   error
}

// stream runs a driver's sequence in the background. stop ends it and waits.
type stream[T any] struct {
	results chan result[T] // closed when the sequence has ended
	stop    func()
}

func start[T any](t *testing.T, follow func(context.Context) iter.Seq2[T, error]) *stream[T] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream[T]{results: make(chan result[T])}
	go func() {
		defer close(s.results)
		for v, err := range follow(ctx) {
			if err != nil && ctx.Err() != nil {
				t.Errorf("the sequence yielded %v after its context had ended", err)
			}
			select {
			case s.results <- result[T]{v, err}:
			case <-ctx.Done():
			}
		}
	}()
	s.stop = func() {
		cancel()
		for range s.results {
			// Nobody wants them any more.
		}
	}
	t.Cleanup(s.stop)
	return s
}

// next returns the next value.
func (s *stream[T]) next(t *testing.T) T {
	t.Helper()
	select {
	case r, ok := <-s.results:
		if !ok {
			t.Fatal("the sequence has ended")
		}
		if r.err != nil {
			t.Fatalf("the sequence yielded the error %v", r.err)
		}
		return r.value
	case <-time.After(deadline):
		t.Fatal("the sequence yielded nothing")
	}
	panic("not reached")
}

// fails reads on until the sequence yields an error, and checks that it then
// ends.
func (s *stream[T]) fails(t *testing.T) error {
	t.Helper()
	late := time.After(deadline)
	var failed error
	for {
		select {
		case r, ok := <-s.results:
			switch {
			case !ok && failed == nil:
				t.Fatal("the sequence ended without an error")
			case !ok:
				return failed
			case failed != nil:
				t.Fatal("the sequence goes on after an error")
			}
			failed = r.err
		case <-late:
			t.Fatalf("the sequence has not ended; error so far: %v", failed)
		}
	}
}

// watch starts a watch and reads until it is synced; it returns what was there.
func watch(t *testing.T, d registry.Driver) (*stream[registry.Change], map[registry.Key]registry.Instance) {
	t.Helper()
	s := start(t, d.Watch)
	there := map[registry.Key]registry.Instance{}
	for {
		c := s.next(t)
		if c.Kind == registry.Synced {
			return s, there
		}
		take(there, c)
	}
}

func take(there map[registry.Key]registry.Instance, c registry.Change) {
	if c.Kind == registry.Put {
		there[c.Key] = c.Instance
		return
	}
	delete(there, c.Key)
}

// leases starts following leases, and reads until all that are held were told.
func leases(t *testing.T, d registry.Driver) (*stream[registry.LeaseChange], map[registry.Key]bool) {
	t.Helper()
	s := start(t, d.Leases)
	held := map[registry.Key]bool{}
	for {
		c := s.next(t)
		switch c.State {
		case registry.LeasesSynced:
			return s, held
		case registry.LeaseHeld:
			held[c.Key] = true
		default:
			delete(held, c.Key)
		}
	}
}

// eventually waits for cond to return "", which else says what is amiss.
func eventually(t *testing.T, cond func() string) {
	t.Helper()
	late := time.After(deadline)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		amiss := cond()
		if amiss == "" {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(amiss)
		}
	}
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}
