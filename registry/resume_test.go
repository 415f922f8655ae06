package registry_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// follower is a watcher that is cut now and then, and comes back with the
// position it had.
type follower struct {
	registry  *registry.Registry
	names     []string
	at        registry.Position
	known     map[registry.Key]registry.Instance
	snapshots int
	events    int
	resumed   int // how often it went on without a snapshot
}

// follow reads at most n events, and stops when there are none.
func (f *follower) follow(n int) {
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan registry.Event), make(chan struct{})
	go func() {
		defer close(done)
		for e := range f.registry.Resume(ctx, f.at, f.names...) {
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	for i := range n {
		synctest.Wait()
		select {
		case e := <-events:
			if i == 0 && e.Type != registry.Snapshot {
				f.resumed++
			}
			f.apply(e)
			continue
		default:
		}
		break
	}
	cancel()
	<-done
}

func (f *follower) apply(e registry.Event) {
	f.at = registry.Position{Store: e.Store, Revision: e.Revision}
	f.events++
	switch e.Type {
	case registry.Snapshot:
		f.snapshots++
		f.known = map[registry.Key]registry.Instance{}
		for _, in := range e.Instances {
			f.known[in.Key()] = in
		}
	case registry.Deregister:
		delete(f.known, e.Instance.Key())
	default:
		f.known[e.Instance.Key()] = e.Instance
	}
}

func (f *follower) truth() map[registry.Key]registry.Instance {
	all := map[registry.Key]registry.Instance{}
	for _, in := range f.registry.List() {
		if len(f.names) == 0 || strings.Contains(strings.Join(f.names, " "), in.Name) {
			all[in.Key()] = in
		}
	}
	return all
}

// act is something that happens, after which a follower reads some events.
type act struct {
	What, Seconds, Follower, Events int
	Service, ID, Version            string
	Status                          registry.Status
}

var acts = rapid.Custom(func(t *rapid.T) act {
	return act{
		What: rapid.IntRange(0, 12).Draw(t, "what"), Seconds: rapid.IntRange(0, 12).Draw(t, "seconds"),
		Follower: rapid.IntRange(0, 2).Draw(t, "follower"), Events: rapid.IntRange(0, 4).Draw(t, "events"),
		Service: rapid.SampledFrom([]string{"users", "orders", "pay"}).Draw(t, "service"),
		ID:      rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id"),
		Version: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version"),
		Status:  rapid.SampledFrom([]registry.Status{health.Healthy, health.Degraded, health.Starting}).Draw(t, "status"),
	}
})

// Whatever happens to the store, and wherever a watcher was cut, it ends with the
// true set.
func TestResumeEndsWithTheTruth(t *testing.T) {
	t.Parallel()
	resumed := 0
	rapid.Check(t, func(rt *rapid.T) {
		plan := rapid.SliceOfN(acts, 1, 60).Draw(rt, "plan")
		var wrong string
		synctest.Test(t, func(t *testing.T) {
			var went int
			wrong, went = play(t, plan)
			resumed += went
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
	if resumed == 0 {
		t.Error("nobody ever went on from where he was")
	}
}

// play returns what a follower got wrong, and how often one went on where it was.
func play(t *testing.T, plan []act) (wrong string, resumed int) {
	hub := memregistry.New()
	d, writer := hub.Connect(), hub.Connect()
	r := registry.Open(context.Background(), d)
	defer r.Close()
	synctest.Wait()
	followers := []*follower{{registry: r}, {registry: r, names: []string{"users", "pay"}}, {registry: r, names: []string{"orders"}}}
	for _, a := range plan {
		switch {
		case a.What < 6:
			put(t, writer, instance(a.ID, func(in *registry.Instance) {
				if in.Name, in.Version, in.Status = a.Service, a.Version, a.Status; a.ID == "3" {
					in.Lease = registry.LeaseHeartbeats
				}
			}))
		case a.What < 9:
			if err := writer.Deregister(context.Background(), registry.Key{Service: a.Service, ID: a.ID}, 0); err != nil {
				t.Fatal(err)
			}
		case a.What == 9:
			d.Disconnect()
		case a.What == 10:
			d.Reconnect()
		case a.What == 11:
			hub.Wipe()
		default:
			time.Sleep(time.Duration(a.Seconds) * time.Second)
		}
		followers[a.Follower].follow(a.Events)
	}
	d.Reconnect()
	time.Sleep(time.Minute)
	for _, f := range followers {
		f.follow(1000)
		resumed += f.resumed
		if diff := cmp.Diff(f.truth(), f.known); diff != "" {
			return fmt.Sprintf("watching %q: %s", f.names, diff), resumed
		}
	}
	announced := 0
	for _, in := range r.List() {
		if in.Lease == registry.LeaseHeartbeats {
			announced++
		}
	}
	if n, bytes := r.Announced(); n != announced || bytes != announced<<10 {
		return fmt.Sprintf("%d announced of %d bytes, want %d", n, bytes, announced), resumed
	}
	return "", resumed
}

// Who comes back with a position that is known gets what he missed, and nothing
// else; every other one gets a snapshot.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d, writer := hub.Connect(), hub.Connect()
		r := open(t, d)
		put(t, writer, instance("a"))
		synctest.Wait()
		f := &follower{registry: r}
		comes := func(when string, at registry.Position, snapshots, events int) {
			t.Helper()
			f.at, f.snapshots, f.events = at, 0, 0
			f.follow(10_000)
			if f.snapshots != snapshots || f.events != events {
				t.Errorf("%s: %d events, %d of them snapshots; want %d and %d", when, f.events, f.snapshots, events, snapshots)
			}
			if diff := cmp.Diff(f.truth(), f.known); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		comes("at first", registry.Position{}, 1, 1)
		start := f.at
		comes("nothing new", start, 0, 0)
		put(t, writer, instance("b"))
		put(t, writer, instance("b", func(in *registry.Instance) { in.Status = health.Degraded }))
		put(t, writer, instance("b", func(in *registry.Instance) { in.Status = health.Degraded })) // no news
		synctest.Wait()
		comes("two changes", start, 0, 2)
		later := f.at
		comes("nothing new", later, 0, 0)
		for what, at := range map[string]registry.Position{
			"no store":      {Revision: later.Revision},
			"another store": {Store: later.Store + "x", Revision: later.Revision},
			"the future":    {Store: later.Store, Revision: later.Revision + 10},
			"before it all": {Store: later.Store},
		} {
			if what == "before it all" {
				comes(what, at, 0, 3) // this registry has seen the store from its beginning
				continue
			}
			comes(what, at, 1, 1)
		}
		// A following that was interrupted, though nothing happened meanwhile.
		d.Disconnect()
		time.Sleep(time.Second)
		d.Reconnect()
		time.Sleep(10 * time.Second)
		comes("after the connection was lost", later, 1, 1)
		later = f.at
		hub.Wipe()
		time.Sleep(8 * time.Second)
		comes("after the store was lost", later, 1, 1)
		later = f.at
		if len(f.known) != 2 {
			t.Errorf("orphans should still be there: %v", f.known)
		}
		time.Sleep(10 * time.Second)
		comes("after the orphans went, at the same revision", later, 1, 1)
		if len(f.known) != 0 {
			t.Errorf("orphans: %v", f.known)
		}
	})
}

// The changes of a time without the store are told together, and who is cut in
// the middle of them has to have them all anew.
func TestResumeInsideOfAResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d, writer := hub.Connect(), hub.Connect()
		r := open(t, d)
		put(t, writer, instance("a"))
		put(t, writer, instance("b"))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var told []registry.Event
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range r.Watch(ctx) {
				told = append(told, e)
			}
		}()
		synctest.Wait()
		d.Disconnect()
		for _, id := range []string{"a", "b"} {
			if err := writer.Deregister(t.Context(), registry.Key{Service: "users", ID: id}, 0); err != nil {
				t.Fatal(err)
			}
		}
		put(t, writer, instance("c"))
		d.Reconnect()
		time.Sleep(10 * time.Second)
		cancel()
		<-done
		if len(told) != 4 {
			t.Fatalf("told %v", told)
		}
		for n, e := range told[1:] {
			if last := n == 2; (e.Store != "") != last || e.Revision != told[3].Revision {
				t.Errorf("%d of the resync: %s %d %q", n, e.Type, e.Revision, e.Store)
			}
		}
		for n, e := range told {
			f := &follower{registry: r, at: registry.Position{Store: e.Store, Revision: e.Revision}, known: map[registry.Key]registry.Instance{}}
			f.follow(10)
			if want := n < 3; (f.snapshots == 1) != want {
				t.Errorf("from event %d: %d snapshots", n, f.snapshots)
			}
		}
	})
}

// told is a driver whose watch tells what the test says.
type told struct {
	registry.Driver
	changes chan registry.Change
}

func (d told) Watch(ctx context.Context) iter.Seq2[registry.Change, error] {
	return func(yield func(registry.Change, error) bool) {
		for {
			select {
			case c := <-d.changes:
				if !yield(c, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// Nobody goes on from a position past a change that is told late, even if what
// came before it was no news.
func TestResumeOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := told{memregistry.New().Connect(), make(chan registry.Change)}
		r := registry.Open(t.Context(), d)
		defer r.Close()
		tell := func(id string, revision uint64) {
			in := instance(id)
			if err := in.Normalize(); err != nil {
				t.Fatal(err)
			}
			d.changes <- registry.Change{Kind: registry.Put, Key: in.Key(), Instance: in, Revision: revision}
			synctest.Wait()
		}
		tell("a", 1)
		d.changes <- registry.Change{Kind: registry.Synced, Store: "s"}
		tell("b", 2)
		tell("a", 10) // the same again
		f := &follower{registry: r, known: map[registry.Key]registry.Instance{}}
		f.follow(10)
		tell("c", 9)
		f.follow(10)
		if len(f.known) != 3 {
			t.Errorf("known: %v", f.known)
		}
	})
}

// The last 4,096 changes are kept, fewer if they are large.
func TestResumeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		position := func() registry.Position {
			f := &follower{registry: r}
			f.follow(1)
			return f.at
		}
		snapshots := func(at registry.Position) (int, int) {
			f := &follower{registry: r, at: at, known: map[registry.Key]registry.Instance{}}
			f.follow(10_000)
			return f.snapshots, f.events
		}
		version := 0
		change := func(n int, metadata map[string]string) {
			for range n {
				version++
				put(t, d, instance("a", func(in *registry.Instance) { in.Version, in.Metadata = fmt.Sprint(version), metadata }))
			}
			synctest.Wait()
		}
		change(1, nil)
		first := position()
		change(4096, nil)
		if s, n := snapshots(first); s != 0 || n != 4096 {
			t.Errorf("4,096 changes ago: %d snapshots of %d events", s, n)
		}
		change(1, nil)
		if s, n := snapshots(first); s != 1 || n != 1 {
			t.Errorf("4,097 changes ago: %d snapshots of %d events", s, n)
		}
		large := map[string]string{}
		for n := range 50 {
			large[fmt.Sprint(n)] = strings.Repeat("x", 1000)
		}
		before := position()
		change(1000, large)
		if s, _ := snapshots(before); s != 1 {
			t.Error("50 MB of changes are kept")
		}
		before = position()
		change(100, large)
		if s, n := snapshots(before); s != 0 || n != 100 {
			t.Errorf("100 large changes ago: %d snapshots of %d events", s, n)
		}
	})
}
