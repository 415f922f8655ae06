package registrytest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

func open(t *testing.T, d registry.Driver, opts ...registry.Option) *registry.Registry {
	t.Helper()
	r := registry.Open(t.Context(), d, opts...)
	t.Cleanup(r.Close)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := r.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

func register(t *testing.T, r *registry.Registry, in registry.Instance) *registry.Registration {
	t.Helper()
	g, err := r.Register(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Err(); err != nil {
		t.Fatalf("registered, but: %v", err)
	}
	return g
}

// sees waits until r has exactly the instances in want, with their status.
func sees(t *testing.T, r *registry.Registry, want ...registry.Instance) {
	t.Helper()
	truth := map[registry.Key]registry.Status{}
	for _, in := range want {
		truth[in.Key()] = in.Status
	}
	eventually(t, func() string { return differ(truth, statuses(r.List())) })
}

func statuses(list []registry.Instance) map[registry.Key]registry.Status {
	all := map[registry.Key]registry.Status{}
	for _, in := range list {
		all[in.Key()] = in.Status
	}
	return all
}

func differ(want, got map[registry.Key]registry.Status) string {
	for k, s := range want {
		if got[k] != s {
			return fmt.Sprintf("%s is %q, want %q", k, got[k], s)
		}
	}
	for k, s := range got {
		if want[k] == "" {
			return fmt.Sprintf("%s is %q, want it gone", k, s)
		}
	}
	return ""
}

func testAnnounce(t *testing.T, s Store) {
	a, b := open(t, s.Connect(t)), open(t, s.Connect(t))
	in := instance(t, "users", 1)
	g := register(t, a, in)
	for _, r := range []*registry.Registry{a, b} {
		sees(t, r, in)
		equal(t, "Discover", []registry.Instance{in}, r.Discover("users"))
		if n := r.Endpoints("users").Len(); n != 1 {
			t.Errorf("%d endpoints, want 1", n)
		}
	}
	for _, status := range []registry.Status{health.Degraded, health.Unhealthy, health.Healthy, health.Draining} {
		if err := g.SetStatus(t.Context(), status); err != nil {
			t.Fatal(err)
		}
		in.Status = status
		sees(t, b, in)
		if n := b.Endpoints("users").Len(); (n == 1) != status.Serving() {
			t.Errorf("%d endpoints in rotation while %s", n, status)
		}
	}
	if err := g.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	sees(t, a)
	sees(t, b)
	if b.Endpoints("users").Len() != 0 {
		t.Error("an endpoint is left")
	}
	if err := g.Err(); !errors.Is(err, registry.ErrReleased) {
		t.Errorf("Err is %v after Deregister, want ErrReleased", err)
	}
}

func testComesBackAfterSever(t *testing.T, s Store) {
	conn, other := s.Connect(t), s.Connect(t)
	mine, watching := open(t, conn), open(t, other)
	in := instance(t, "users", 1)
	g := register(t, mine, in)
	if err := g.SetStatus(t.Context(), health.Degraded); err != nil {
		t.Fatal(err)
	}
	in.Status = health.Degraded
	sees(t, watching, in)
	follow, _ := leases(t, other)
	for range 3 {
		conn.Sever()
		awaitLease(t, follow, registry.LeaseDisconnected, in.Key())
		// A registry node finds it dead.
		if err := other.Deregister(t.Context(), in.Key(), 0); err != nil {
			t.Fatal(err)
		}
		sees(t, watching)
		conn.Mend()
		awaitLease(t, follow, registry.LeaseHeld, in.Key())
		sees(t, watching, in)
		sees(t, mine, in)
		eventually(t, func() string {
			if err := errors.Join(g.Err(), mine.Err()); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

func testComesBackAfterDeletion(t *testing.T, s Store) {
	node := s.Connect(t)
	mine, watching := open(t, s.Connect(t)), open(t, node)
	in := instance(t, "users", 1)
	register(t, mine, in)
	sees(t, watching, in)
	for range 3 {
		events, stop := collect(t, watching)
		if err := node.Deregister(t.Context(), in.Key(), 0); err != nil {
			t.Fatal(err)
		}
		events.until(t, func(e registry.Event) bool { return e.Type == registry.Deregister })
		events.until(t, func(e registry.Event) bool { return e.Type == registry.Register && e.Instance.ID == in.ID })
		stop()
		sees(t, watching, in)
		sees(t, mine, in)
	}
}

func testComesBackAfterWipe(t *testing.T, s Store) {
	if s.Wipe == nil {
		t.Log("this store can't be wiped")
		return
	}
	a, b, watching := open(t, s.Connect(t)), open(t, s.Connect(t)), open(t, s.Connect(t))
	one, two, dead := instance(t, "users", 1), instance(t, "orders", 2), instance(t, "users", 3)
	register(t, a, one)
	register(t, b, two)
	lost := s.Connect(t)
	mustRegister(t, lost, dead, longTTL) // nobody will register it again
	sees(t, watching, one, two, dead)
	events, stop := collect(t, watching)
	defer stop()
	s.Wipe(t)
	// Those who live are back before they are missed; the other one goes.
	events.until(t, func(e registry.Event) bool {
		if e.Type == registry.Deregister && e.Instance.ID != dead.ID {
			t.Errorf("%s was taken out though it only had to register again", e.Instance.Key())
		}
		return e.Type == registry.Deregister && e.Instance.ID == dead.ID
	})
	for _, r := range []*registry.Registry{watching, a, b} {
		sees(t, r, one, two)
	}
	_, there := watch(t, s.Connect(t))
	equal(t, "what the store has", map[registry.Key]registry.Instance{one.Key(): one, two.Key(): two}, there)
}

func testErrAndOnChange(t *testing.T, s Store) {
	conn := s.Connect(t)
	r := open(t, conn, registry.WithTTL(3*time.Second))
	g := register(t, r, instance(t, "users", 1))
	told := make(chan error, 100)
	g.OnChange(func(err error) {
		_ = g.Err() // it is called outside the lock
		told <- err
	})
	conn.Sever()
	eventually(t, func() string {
		if r.Err() == nil {
			return "Registry.Err is nil though the store is away"
		}
		return ""
	})
	if err := <-told; !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("told %v, want ErrUnavailable", err)
	}
	if err := g.SetStatus(t.Context(), health.Draining); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("SetStatus without store: %v, want ErrUnavailable", err)
	}
	if g.Err() == nil {
		t.Error("Err is nil though the store is away")
	}
	conn.Mend()
	if err := <-told; err != nil {
		t.Errorf("told %v, want nil", err)
	}
	in := g.Instance()
	if in.Status != health.Draining {
		t.Errorf("status %s, want the one that was set while the store was away", in.Status)
	}
	sees(t, r, in)
}

func testReplaced(t *testing.T, s Store) {
	a, b := open(t, s.Connect(t)), open(t, s.Connect(t))
	in := instance(t, "users", 1)
	first := register(t, a, in)
	in.RegisteredAt = in.RegisteredAt.Add(-time.Hour) // clocks prove nothing
	in.Version = "second"
	second := register(t, b, in)
	eventually(t, func() string {
		if err := first.Err(); !errors.Is(err, registry.ErrReplaced) {
			return fmt.Sprintf("the first one's Err is %v, want ErrReplaced", err)
		}
		return ""
	})
	if err := second.Err(); err != nil {
		t.Errorf("the second one's Err is %v", err)
	}
	if err := first.SetStatus(t.Context(), health.Draining); !errors.Is(err, registry.ErrReplaced) {
		t.Errorf("SetStatus of what was replaced: %v, want ErrReplaced", err)
	}
	if got, _ := a.Get(in.Key()); got.Version != "second" || got.Status != health.Healthy {
		t.Errorf("in the registry is %+v", got)
	}
	// When the second goes, the first is there again; when that goes, none is.
	if err := second.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	sees(t, b, first.Instance())
	eventually(t, func() string {
		if err := first.Err(); err != nil {
			return err.Error()
		}
		return ""
	})
	third := register(t, b, in)
	eventually(t, func() string {
		if first.Err() == nil {
			return "the first one does not notice that it is replaced again"
		}
		return ""
	})
	if err := first.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	sees(t, a, third.Instance())
}

func testFailStatic(t *testing.T, s Store) {
	conn, other := s.Connect(t), s.Connect(t)
	cut := open(t, conn)
	stays, goes := instance(t, "users", 1), instance(t, "users", 2)
	mustRegister(t, other, stays, longTTL)
	mustRegister(t, other, goes, longTTL)
	sees(t, cut, stays, goes)
	before := cut.Endpoints("users")
	kept := before.At(0)
	conn.Sever()
	eventually(t, func() string {
		if cut.Err() == nil {
			return "Registry.Err is nil though the store is away"
		}
		return ""
	})
	if err := other.Deregister(t.Context(), goes.Key(), 0); err != nil {
		t.Fatal(err)
	}
	added := instance(t, "users", 3)
	mustRegister(t, other, added, longTTL)
	if cut.Endpoints("users") != before || len(cut.List()) != 2 {
		t.Error("the snapshot changed while the store was away")
	}
	conn.Mend()
	// What was removed meanwhile goes at once, or after the registry's patience.
	sees(t, cut, stays, added)
	if cut.Endpoints("users").At(0) != kept {
		t.Error("an instance that stayed has another endpoint after the store came back")
	}
}

func testSlowWatcher(t *testing.T, s Store) {
	d := s.Connect(t)
	r := open(t, s.Connect(t))
	in := instance(t, "users", 1)
	mustRegister(t, d, in, longTTL)
	sees(t, r, in)

	const changes = 3000
	final := func(e registry.Event) bool {
		if e.Type == registry.Snapshot {
			e.Instance = e.Instances[0]
		}
		return e.Instance.Metadata["n"] == fmt.Sprint(changes)
	}
	entered, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	var got []registry.Event
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	wg.Go(func() {
		for e := range r.Watch(t.Context(), "users") {
			if got = append(got, e); len(got) == 1 {
				close(entered)
				<-released // very slow
			}
			if final(e) {
				return
			}
		}
	})
	<-entered
	fast, stop := collect(t, r)
	defer stop()
	for n := 1; n <= changes; n++ {
		in.Metadata = map[string]string{"n": fmt.Sprint(n)}
		mustRegister(t, d, in, longTTL)
	}
	fast.until(t, final)
	release()
	wg.Wait()
	if len(got) < 2 || got[0].Type != registry.Snapshot || got[1].Type != registry.Snapshot {
		t.Fatalf("the slow watcher got %d events, want a snapshot and then another", len(got))
	}
	if len(got) > changes/2 {
		t.Errorf("the slow watcher got %d of %d events", len(got), changes)
	}
}

// tape is what a watch of a registry told, in order.
type tape struct{ events chan registry.Event }

// collect watches r until stop is called.
func collect(t *testing.T, r *registry.Registry) (*tape, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &tape{make(chan registry.Event, 10_000)}
	done := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(done)
		first := true
		for e := range r.Watch(ctx) {
			c.events <- e
			if first {
				first = false
				close(ready)
			}
		}
	}()
	<-ready
	return c, func() { cancel(); <-done }
}

// until reads on until match.
func (c *tape) until(t *testing.T, match func(registry.Event) bool) {
	t.Helper()
	late := time.After(deadline)
	for {
		select {
		case e := <-c.events:
			if match(e) {
				return
			}
		case <-late:
			t.Fatal("the watch did not tell what it should")
		}
	}
}
