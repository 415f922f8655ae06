package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// longTTL does not end during a test.
const longTTL = time.Hour

func testRegister(t *testing.T, s Store) {
	a, b := s.Connect(t), s.Connect(t)
	in := instance(t, "users", 1)
	first := mustRegister(t, a, in, longTTL)
	if first == 0 {
		t.Error("Register returned revision 0, which means any")
	}
	changes, there := watch(t, b)
	equal(t, "after Register", map[registry.Key]registry.Instance{in.Key(): in}, there)

	in.Version, in.Tags, in.Metadata = "2", []string{}, map[string]string{"<&>": "ü\"", "": ""}
	second := mustRegister(t, b, in, longTTL) // from another connection
	if second <= first {
		t.Errorf("revision %d after %d", second, first)
	}
	equal(t, "the change", registry.Change{Kind: registry.Put, Key: in.Key(), Instance: in, Revision: second}, changes.next(t))
}

func testWatchEverything(t *testing.T, s Store) {
	d := s.Connect(t)
	_, there := watch(t, d)
	equal(t, "an empty store", map[registry.Key]registry.Instance{}, there)
	want := map[registry.Key]registry.Instance{}
	for n := range 60 {
		in := instance(t, fmt.Sprintf("s%d", n%4), n)
		mustRegister(t, d, in, longTTL)
		if n%5 == 0 {
			if err := d.Deregister(t.Context(), in.Key(), 0); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want[in.Key()] = in
	}
	_, there = watch(t, s.Connect(t))
	equal(t, "a new watch", want, there)
}

// Changes of different records are all told, in order. Of one record's changes
// some may be left out, but never the last one.
func testWatchOrder(t *testing.T, s Store) {
	a := s.Connect(t)
	one, _ := watch(t, a)
	two, _ := watch(t, s.Connect(t))
	const records = 40
	var want []string
	busy := instance(t, "busy", 999)
	for n := range records {
		in := instance(t, "users", n)
		want = append(want, fmt.Sprint(mustRegister(t, a, in, longTTL), " ", in.ID))
		busy.Version = fmt.Sprint(n)
		mustRegister(t, a, busy, longTTL)
		if n%10 == 9 {
			if err := a.Deregister(t.Context(), busy.Key(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	fence := instance(t, "zz", 1000)
	mustRegister(t, a, fence, longTTL)
	for _, w := range []*stream[registry.Change]{one, two} {
		var got []string
		lastBusy := registry.Change{}
		for last := uint64(0); ; {
			c := w.next(t)
			if c.Revision <= last {
				t.Fatalf("revision %d after %d", c.Revision, last)
			}
			last = c.Revision
			if c.Key == fence.Key() {
				break
			}
			if c.Key == busy.Key() {
				lastBusy = c
				continue
			}
			got = append(got, fmt.Sprint(c.Revision, " ", c.Key.ID))
		}
		equal(t, "the changes", want, got)
		if lastBusy.Kind != registry.Delete {
			t.Errorf("the last change of a busy record is %+v, want its removal", lastBusy)
		}
	}
}

func testUpdate(t *testing.T, s Store) {
	a, b := s.Connect(t), s.Connect(t)
	in := instance(t, "users", 1)
	first := mustRegister(t, a, in, longTTL)
	changes, _ := watch(t, a)
	lost, _ := leases(t, b)

	in.Status, in.Announced = health.Unhealthy, health.Degraded
	second, err := b.Update(t.Context(), in, first)
	if err != nil || second <= first {
		t.Fatalf("Update: revision %d, %v", second, err)
	}
	equal(t, "the change", registry.Change{Kind: registry.Put, Key: in.Key(), Instance: in, Revision: second}, changes.next(t))
	if _, err := b.Update(t.Context(), in, first); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Update of an old revision: %v, want ErrConflict", err)
	}
	if _, err := b.Update(t.Context(), instance(t, "users", 2), 1); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Update of an unknown key: %v, want ErrConflict", err)
	}
	// The lease is still a's: only then does it end with a.
	a.Sever()
	if c := lost.next(t); c.State != registry.LeaseDisconnected || c.Key != in.Key() {
		t.Errorf("after the end of the connection: %+v", c)
	}
}

func testDeregister(t *testing.T, s Store) {
	d := s.Connect(t)
	in := instance(t, "users", 1)
	put := mustRegister(t, d, in, longTTL)
	changes, _ := watch(t, d)
	if err := d.Deregister(t.Context(), in.Key(), 0); err != nil {
		t.Fatal(err)
	}
	c := changes.next(t)
	if c.Kind != registry.Delete || c.Key != in.Key() || c.Revision <= put {
		t.Errorf("the change is %+v", c)
	}
	if err := d.Deregister(t.Context(), in.Key(), 0); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := d.Deregister(t.Context(), registry.Key{Service: "none", ID: "such"}, 0); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
	_, there := watch(t, d)
	equal(t, "after all", map[registry.Key]registry.Instance{}, there)
	if again := mustRegister(t, d, in, longTTL); again <= c.Revision {
		t.Errorf("revision %d after %d", again, c.Revision)
	}
}

func testDeregisterConditional(t *testing.T, s Store) {
	d := s.Connect(t)
	in := instance(t, "users", 1)
	first := mustRegister(t, d, in, longTTL)
	second := mustRegister(t, d, in, longTTL)
	if err := d.Deregister(t.Context(), in.Key(), first); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("at an old revision: %v, want ErrConflict", err)
	}
	if _, there := watch(t, d); len(there) != 1 {
		t.Fatal("the record is gone all the same")
	}
	if err := d.Deregister(t.Context(), in.Key(), second); err != nil {
		t.Fatalf("at its revision: %v", err)
	}
	if _, there := watch(t, d); len(there) != 0 {
		t.Error("the record is still there")
	}
	for _, k := range []registry.Key{in.Key(), {Service: "none", ID: "such"}} {
		if err := d.Deregister(t.Context(), k, second); err != nil {
			t.Errorf("the unknown key %s: %v", k, err)
		}
	}
	// The lease, which may be a successor's, is left alone.
	if _, held := leases(t, d); !held[in.Key()] {
		t.Error("the lease has been taken away with the record")
	}
}

func testSevered(t *testing.T, s Store) {
	a, b := s.Connect(t), s.Connect(t)
	kept, gone, changed := instance(t, "users", 1), instance(t, "users", 2), instance(t, "users", 3)
	for _, in := range []registry.Instance{kept, gone, changed} {
		mustRegister(t, b, in, longTTL)
	}
	records, _ := watch(t, a)
	held, _ := leases(t, a)
	a.Sever()
	if err := records.fails(t); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("the watch ended with %v, want ErrUnavailable", err)
	}
	if err := held.fails(t); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("following the leases ended with %v, want ErrUnavailable", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	began := time.Now()
	for what, op := range map[string]func() error{
		"Register":   func() error { _, err := a.Register(ctx, kept, longTTL); return err },
		"Renew":      func() error { return a.Renew(ctx, kept.Key(), longTTL) },
		"Update":     func() error { _, err := a.Update(ctx, kept, 1); return err },
		"Deregister": func() error { return a.Deregister(ctx, kept.Key(), 0) },
	} {
		if err := op(); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%s on a severed connection: %v, want ErrUnavailable", what, err)
		}
	}
	if took := time.Since(began); took > deadline/2 {
		t.Errorf("it took %v to find out that the connection is severed", took)
	}

	if err := b.Deregister(t.Context(), gone.Key(), 0); err != nil {
		t.Fatal(err)
	}
	changed.Version = "changed"
	mustRegister(t, b, changed, longTTL)
	added := instance(t, "orders", 4)
	mustRegister(t, b, added, longTTL)
	a.Mend()
	eventually(t, func() string {
		if err := a.Renew(t.Context(), kept.Key(), longTTL); err != nil {
			return "after Mend: " + err.Error()
		}
		return ""
	})
	_, there := watch(t, a)
	equal(t, "a new watch", map[registry.Key]registry.Instance{
		kept.Key(): kept, changed.Key(): changed, added.Key(): added,
	}, there)
}

func testContextEnds(t *testing.T, s Store) {
	d := s.Connect(t)
	in := instance(t, "users", 1)
	mustRegister(t, d, in, longTTL)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	for what, op := range map[string]func() error{
		"Register":   func() error { _, err := d.Register(ended, in, longTTL); return err },
		"Renew":      func() error { return d.Renew(ended, in.Key(), longTTL) },
		"Update":     func() error { _, err := d.Update(ended, in, 1); return err },
		"Deregister": func() error { return d.Deregister(ended, in.Key(), 0) },
	} {
		if err := op(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s after its context ended: %v, want context.Canceled", what, err)
		}
	}
	for _, err := range d.Watch(ended) {
		t.Errorf("a watch without time yields (error %v)", err)
		break
	}
	watching, _ := watch(t, d)
	watching.stop() // it checks that no error comes
	following, _ := leases(t, d)
	following.stop()
	for c := range d.Watch(t.Context()) { // the consumer may stop at any time
		if c.Kind == registry.Synced {
			break
		}
	}
	for range d.Leases(t.Context()) {
		break
	}
	if took := time.Since(began); took > deadline/4 {
		t.Errorf("it took %v for all that to end", took)
	}
}

func testConcurrent(t *testing.T, s Store) {
	conns := []Connection{s.Connect(t), s.Connect(t), s.Connect(t)}
	changes, there := watch(t, s.Connect(t))
	shared := instance(t, "shared", 0)
	revision := mustRegister(t, conns[0], shared, longTTL)
	won := make([]bool, 6)
	var wg sync.WaitGroup
	for g := range won {
		wg.Go(func() {
			d := conns[g%len(conns)]
			own := instance(t, "users", 100+g)
			for n := range 10 {
				own.Version = fmt.Sprint(n)
				if _, err := d.Register(t.Context(), own, longTTL); err != nil {
					t.Error(err)
				}
				if err := d.Renew(t.Context(), own.Key(), longTTL); err != nil {
					t.Error(err)
				}
				if n%2 == 0 {
					if err := d.Deregister(t.Context(), own.Key(), 0); err != nil {
						t.Error(err)
					}
				}
			}
			_, err := d.Update(t.Context(), shared, revision)
			if won[g] = err == nil; err != nil && !errors.Is(err, registry.ErrConflict) {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	fence := instance(t, "zz", 999)
	for fenced := false; ; {
		select {
		case <-done:
			done = nil
			mustRegister(t, conns[0], fence, longTTL)
			fenced = true
		case r := <-changes.results:
			if r.err != nil {
				t.Fatal(r.err)
			}
			take(there, r.value)
			if !fenced || r.value.Key != fence.Key() {
				continue
			}
			if n := len(slices.DeleteFunc(won, func(w bool) bool { return !w })); n != 1 {
				t.Errorf("%d of the concurrent updates of one revision succeeded, want 1", n)
			}
			_, truth := watch(t, s.Connect(t))
			equal(t, "what the watch told", truth, there)
			if len(there) != 8 {
				t.Errorf("%d records, want 8", len(there))
			}
			return
		}
	}
}
