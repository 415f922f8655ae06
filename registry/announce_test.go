package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// announced is an instance that others keep alive.
func announced(id string, change ...func(*registry.Instance)) registry.Instance {
	in := registry.Instance{ID: id, Name: "pay", Address: "http://10.0.0.1:3001", Health: "/health", Lease: registry.LeaseChecks}
	for _, c := range change {
		c(&in)
	}
	return in
}

func beating(in *registry.Instance) { in.Health, in.Lease = "", registry.LeaseHeartbeats }

func announce(t *testing.T, r *registry.Registry, in registry.Instance) (registry.Instance, bool) {
	t.Helper()
	out, created, err := r.Announce(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := r.Get(out.Key()); !ok || cmp.Diff(out, got) != "" {
		t.Fatalf("the snapshot has %v %+v after %+v was announced", ok, got, out)
	}
	return out, created
}

// recorded gathers a watch's events as text.
type recorded struct {
	mu     sync.Mutex
	events []string
}

func record(t *testing.T, r *registry.Registry) *recorded {
	t.Helper()
	rec := &recorded{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range r.Watch(ctx) {
			rec.mu.Lock()
			rec.events = append(rec.events, fmt.Sprint(e.Type, " ", e.Instance.ID, " ", e.Instance.Status))
			rec.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	rec.take()
	return rec
}

func (r *recorded) take() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	text := strings.Join(r.events, ", ")
	r.events = nil
	return text
}

func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &counting{Driver: memregistry.New().Connect()}
		r := open(t, d, registry.WithTTL(20*time.Second))
		if r.TTL() != 20*time.Second {
			t.Errorf("the ttl is %v", r.TTL())
		}
		events := record(t, r)
		first, created := announce(t, r, announced("pay-1", func(in *registry.Instance) {
			in.Status, in.Announced, in.LastHeartbeat, in.RegisteredAt = health.Degraded, health.Healthy, time.Now(), time.Now().Add(time.Hour)
		}))
		if !created || first.Status != health.Starting || first.Announced != "" || !first.LastHeartbeat.IsZero() || first.RegisteredAt.After(time.Now()) {
			t.Errorf("created %v: %+v", created, first)
		}
		if got := events.take(); got != "register pay-1 starting" {
			t.Errorf("events %q", got)
		}
		// Not in rotation: it is a new start.
		time.Sleep(time.Second)
		second, created := announce(t, r, announced("pay-1"))
		if created || !second.RegisteredAt.After(first.RegisteredAt) || second.Status != health.Starting {
			t.Errorf("again, while starting: %v %+v", created, second)
		}
		// A check passes.
		second.Status = health.Healthy
		put(t, d, second)
		synctest.Wait()
		events.take()
		d.records.Store(0)
		time.Sleep(time.Second)
		same, created := announce(t, r, announced("pay-1"))
		if diff := cmp.Diff(second, same); diff != "" || created {
			t.Errorf("the same again: %v %s", created, diff)
		}
		if got := events.take(); got != "" || d.records.Load() != 1 {
			t.Errorf("the same again: %d writes, events %q", d.records.Load(), got)
		}
		// Any other record is a new start.
		for _, change := range []func(*registry.Instance){
			func(in *registry.Instance) { in.Version = "2" },
			func(in *registry.Instance) { in.Health = "/healthz" },
			beating,
		} {
			before, _ := r.Get(same.Key())
			time.Sleep(time.Second)
			in := announced("pay-1", change)
			next, created := announce(t, r, in)
			want := health.Starting
			if in.Lease == registry.LeaseHeartbeats {
				want = health.Healthy
			}
			if created || next.Status != want || !next.RegisteredAt.After(before.RegisteredAt) {
				t.Errorf("another record: %v %+v", created, next)
			}
			if got := events.take(); got != fmt.Sprintf("register pay-1 %s", want) {
				t.Errorf("events %q", got)
			}
		}
		if n, _ := r.Announced(); n != 1 {
			t.Errorf("%d announced", n)
		}
	})
}

// What is announced lives by its heartbeats alone.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		r := open(t, hub.Connect())
		ctx, cancel := context.WithCancel(t.Context())
		var states []registry.LeaseState
		done := make(chan struct{})
		go func() {
			defer close(done)
			for c := range hub.Connect().Leases(ctx) {
				states = append(states, c.State)
			}
		}()
		synctest.Wait()
		in, _ := announce(t, r, announced("pay-1", beating))
		for range 3 {
			time.Sleep(10 * time.Second)
			if err := r.Heartbeat(t.Context(), in.Key()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(registry.DefaultTTL + time.Second)
		if _, ok := r.Get(in.Key()); !ok {
			t.Error("the record went with the lease")
		}
		if err := r.Heartbeat(t.Context(), in.Key()); err != nil {
			t.Errorf("a late heartbeat: %v", err)
		}
		if err := r.Remove(t.Context(), in.Key()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		cancel()
		<-done
		want := []registry.LeaseState{
			registry.LeasesSynced, registry.LeaseHeld, registry.LeaseHeld, registry.LeaseHeld, registry.LeaseHeld,
			registry.LeaseExpired, registry.LeaseHeld, registry.LeaseReleased,
		}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Error(diff)
		}
		if err := r.Heartbeat(t.Context(), in.Key()); !errors.Is(err, registry.ErrUnknown) {
			t.Errorf("a heartbeat of what was removed: %v", err)
		}
		if err := r.Remove(t.Context(), in.Key()); err != nil {
			t.Errorf("removing what is gone: %v", err)
		}
	})
}

func TestNobodyElsesLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		r, elsewhere := open(t, hub.Connect()), open(t, hub.Connect())
		g, err := elsewhere.Register(t.Context(), registry.Instance{ID: "pay-1", Name: "pay", Address: "http://10.0.0.1:3001", Lease: registry.LeaseChecks})
		if err != nil {
			t.Fatal(err)
		}
		k := g.Instance().Key()
		if g.Instance().Lease != registry.LeaseConnection {
			t.Error("a registration does not renew its own lease")
		}
		synctest.Wait()
		refused := func(when string) {
			t.Helper()
			for _, r := range []*registry.Registry{r, elsewhere} {
				if _, _, err := r.Announce(t.Context(), announced("pay-1")); !errors.Is(err, registry.ErrOwnLease) {
					t.Errorf("%s: announced over a live registration: %v", when, err)
				}
			}
			if err := r.Heartbeat(t.Context(), k); !errors.Is(err, registry.ErrOwnLease) {
				t.Errorf("%s: heartbeat: %v", when, err)
			}
			if err := g.Err(); err != nil {
				t.Errorf("%s: the registration: %v", when, err)
			}
		}
		refused("serving")
		if _, err := r.Drain(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		refused("drained by hand")
		// An operator may remove it, but it lives.
		if err := r.Remove(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if in, _ := r.Get(k); in.Status != health.Healthy {
			t.Errorf("it did not come back: %+v", in)
		}
		// Out of rotation it is replaced, and its process is told.
		if err := g.SetStatus(t.Context(), health.Unhealthy); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, created := announce(t, r, announced("pay-1")); created {
			t.Error("created")
		}
		synctest.Wait()
		if err := g.Err(); !errors.Is(err, registry.ErrReplaced) && err != nil {
			t.Error(err)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		r := open(t, hub.Connect())
		events := record(t, r)
		native, err := r.Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		k := native.Instance().Key()
		synctest.Wait()
		before, _ := r.Get(k)
		events.take()
		for range 2 { // the second changes nothing
			in, err := r.Drain(t.Context(), k)
			if err != nil || in.Status != health.Draining || in.Announced != health.Healthy {
				t.Fatalf("%v %+v", err, in)
			}
			if r.Endpoints("users").Len() != 0 {
				t.Error("it is in rotation")
			}
		}
		for range 2 {
			if in, err := r.Undrain(t.Context(), k); err != nil || cmp.Diff(before, in) != "" {
				t.Fatalf("%v %s", err, cmp.Diff(before, in))
			}
		}
		if got, want := events.take(), "status-change a draining, status-change a healthy"; got != want {
			t.Errorf("events %q, want %q", got, want)
		}
		// What a registry node took out: it is drained, and comes back as what it says.
		out := before
		out.Status, out.Announced = health.Unhealthy, health.Degraded
		put(t, hub.Connect(), out)
		synctest.Wait()
		if in, err := r.Drain(t.Context(), k); err != nil || in.Announced != health.Degraded {
			t.Errorf("%v %+v", err, in)
		}
		// What the instance says later wins.
		if err := native.SetStatus(t.Context(), health.Degraded); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if in, _ := r.Get(k); in.Status != health.Degraded || in.Announced != "" {
			t.Errorf("%+v", in)
		}
		// One that drains by itself is not ours to bring back.
		if err := native.SetStatus(t.Context(), health.Draining); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for what, change := range map[string]func(context.Context, registry.Key) (registry.Instance, error){"drain": r.Drain, "undrain": r.Undrain} {
			if in, err := change(t.Context(), k); err != nil || in.Status != health.Draining || in.Announced != "" {
				t.Errorf("%s: %v %+v", what, err, in)
			}
			if _, err := change(t.Context(), registry.Key{Service: "users", ID: "b"}); !errors.Is(err, registry.ErrUnknown) {
				t.Errorf("%s of nobody: %v", what, err)
			}
		}
	})
}

// racing changes the record behind the registry's back before an update.
type racing struct {
	*memregistry.Driver
	races int
	rival *memregistry.Driver
}

func (d *racing) Update(ctx context.Context, in registry.Instance, revision uint64) (uint64, error) {
	if d.races--; d.races >= 0 {
		other := in
		other.Status, other.Announced, other.Version = health.Degraded, "", fmt.Sprint("v", d.races)
		if _, err := d.rival.Register(ctx, other, time.Hour); err != nil {
			return 0, err
		}
	}
	return d.Driver.Update(ctx, in, revision)
}

// Nobody's change of the record is lost.
func TestDrainInARace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d := &racing{Driver: hub.Connect(), rival: hub.Connect()}
		r := open(t, d)
		in, _ := announce(t, r, announced("pay-1"))
		d.races = 3
		got, err := r.Drain(t.Context(), in.Key())
		if err != nil || got.Status != health.Draining || got.Announced != health.Degraded || got.Version != "v0" {
			t.Errorf("%v %+v", err, got)
		}
		if _, err := r.Undrain(t.Context(), in.Key()); err != nil {
			t.Error(err)
		}
		d.races = 1 << 30 // it never ends
		if _, err := r.Drain(t.Context(), in.Key()); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("a race without end: %v", err)
		}
	})
}

func TestAnnounceRefuses(t *testing.T) {
	t.Parallel()
	r := open(t, memregistry.New().Connect())
	for _, c := range []struct {
		field  string
		change func(*registry.Instance)
	}{
		{"lease", func(in *registry.Instance) { in.Lease = "" }},
		{"lease", func(in *registry.Instance) { in.Lease = "mine" }},
		{"health", func(in *registry.Instance) { in.Health = "" }},
		{"health", func(in *registry.Instance) { in.Health = "http://10.0.0.2/health" }},
		{"name", func(in *registry.Instance) { in.Name = "Pay" }},
		{"address", func(in *registry.Instance) { in.Address = "http://169.254.169.254:80" }},
		{"metadata", func(in *registry.Instance) {
			in.Metadata = map[string]string{}
			for n := range registry.MaxMetadata {
				in.Metadata[fmt.Sprint(n)] = strings.Repeat("\"", 1000) // two bytes each in JSON
			}
		}},
	} {
		_, _, err := r.Announce(t.Context(), announced("pay-1", c.change))
		if fe, ok := errors.AsType[*registry.FieldError](err); !ok || fe.Field != c.field {
			t.Errorf("want an error about %s: %v", c.field, err)
		}
	}
	if all := r.List(); len(all) != 0 {
		t.Errorf("registered all the same: %v", all)
	}
	// Keys that no record can have are nobody's.
	for _, k := range []registry.Key{{}, {Service: "pay"}, {Service: "pay", ID: "*"}, {Service: ">", ID: "a"}, {Service: "pay", ID: "a.b"}, {Service: "pay", ID: strings.Repeat("x", 200)}} {
		if err := r.Remove(t.Context(), k); err != nil {
			t.Errorf("remove %q: %v", k, err)
		}
		if err := r.Heartbeat(t.Context(), k); !errors.Is(err, registry.ErrUnknown) {
			t.Errorf("heartbeat of %q: %v", k, err)
		}
	}
}

// While the store is away nothing is said that isn't known, and a store that has
// lost its records does not keep anybody from registering anew.
func TestAnnounceWithoutAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d := hub.Connect()
		d.Disconnect()
		r := registry.Open(t.Context(), d)
		defer r.Close()
		k := registry.Key{Service: "pay", ID: "pay-1"}
		calls := func() map[string]error {
			_, _, announceErr := r.Announce(t.Context(), announced("pay-1"))
			_, drainErr := r.Drain(t.Context(), registry.Key{Service: "pay", ID: "pay-2"})
			return map[string]error{
				"announce": announceErr, "drain": drainErr, "remove": r.Remove(t.Context(), k),
				"heartbeat": r.Heartbeat(t.Context(), registry.Key{Service: "pay", ID: "pay-2"}),
			}
		}
		for what, err := range calls() {
			if !errors.Is(err, registry.ErrUnavailable) {
				t.Errorf("%s before the first snapshot: %v", what, err)
			}
		}
		d.Reconnect()
		if err := r.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		announce(t, r, announced("pay-1", beating))
		d.Disconnect()
		time.Sleep(time.Second)
		for what, err := range calls() {
			if !errors.Is(err, registry.ErrUnavailable) {
				t.Errorf("%s while the store is away: %v", what, err)
			}
		}
		if err := r.Heartbeat(t.Context(), k); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("heartbeat of a known one: %v", err)
		}
		d.Reconnect()
		hub.Wipe()
		time.Sleep(7 * time.Second) // it follows again, and the instance is still in the snapshot
		if _, ok := r.Get(k); !ok {
			t.Fatal("it is gone from the snapshot already")
		}
		if err := r.Heartbeat(t.Context(), k); !errors.Is(err, registry.ErrUnknown) {
			t.Errorf("heartbeat of what the store has lost: %v", err)
		}
		if in, created := announce(t, r, announced("pay-1", beating)); created || in.Status != health.Healthy {
			t.Errorf("created %v: %+v", created, in)
		}
		time.Sleep(time.Minute)
		if _, ok := r.Get(k); !ok {
			t.Error("it went with the orphans")
		}
		r.Close()
		for what, err := range calls() {
			if !errors.Is(err, registry.ErrClosed) {
				t.Errorf("%s after Close: %v", what, err)
			}
		}
	})
}

// Announcing from many sides at once ends with one record, and nobody waits for
// ever.
func TestAnnounceAtOnce(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	nodes := []*registry.Registry{open(t, hub.Connect()), open(t, hub.Connect())}
	var wg sync.WaitGroup
	for n := range 64 {
		wg.Go(func() {
			if _, _, err := nodes[n%2].Announce(t.Context(), announced(fmt.Sprint("pay-", n%4), beating)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range nodes {
		deadline := time.Now().Add(20 * time.Second)
		for len(r.Discover("pay")) != 4 && time.Now().Before(deadline) {
			<-time.After(time.Millisecond)
		}
		if got := ids(r.Discover("pay")); !slices.Equal(strings.Fields(got), []string{"pay-0", "pay-1", "pay-2", "pay-3"}) {
			t.Errorf("%q", got)
		}
	}
}
