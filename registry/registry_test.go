package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func instance(id string, change ...func(*registry.Instance)) registry.Instance {
	in := registry.Instance{ID: id, Name: "users", Address: "http://" + id + ":3001", Status: health.Healthy}
	for _, c := range change {
		c(&in)
	}
	if err := in.Normalize(); err != nil {
		panic(err)
	}
	return in
}

func open(t testing.TB, d registry.Driver, opts ...registry.Option) *registry.Registry {
	t.Helper()
	r := registry.Open(context.Background(), d, opts...)
	t.Cleanup(r.Close)
	if err := r.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t testing.TB, d registry.Driver, in registry.Instance) uint64 {
	t.Helper()
	revision, err := d.Register(t.Context(), in, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func ids(list []registry.Instance) string {
	var all []string
	for _, in := range list {
		all = append(all, in.ID)
	}
	return strings.Join(all, " ")
}

func TestDiscoverFilters(t *testing.T) {
	t.Parallel()
	d := memregistry.New().Connect()
	put(t, d, instance("a", func(i *registry.Instance) { i.Tags, i.Version, i.Zone = []string{"x", "y"}, "1", "north" }))
	put(t, d, instance("b", func(i *registry.Instance) { i.Tags, i.Version = []string{"x"}, "2"; i.Status = health.Degraded }))
	put(t, d, instance("c", func(i *registry.Instance) { i.Zone, i.Status = "north", health.Unhealthy }))
	put(t, d, instance("d", func(i *registry.Instance) { i.Name, i.Status = "orders", health.Starting }))
	r := open(t, d)
	for _, c := range []struct {
		service string
		filters []registry.Filter
		want    string
	}{
		{"users", nil, "a b"},
		{"orders", nil, ""},
		{"none", nil, ""},
		{"users", []registry.Filter{registry.Tags()}, "a b"},
		{"users", []registry.Filter{registry.Tags("x")}, "a b"},
		{"users", []registry.Filter{registry.Tags("x", "y")}, "a"},
		{"users", []registry.Filter{registry.Tags("x"), registry.Version("2")}, "b"},
		{"users", []registry.Filter{registry.Version("3")}, ""},
		{"users", []registry.Filter{registry.Zone("north")}, "a"},
		{"users", []registry.Filter{registry.WithStatus()}, "a b c"},
		{"users", []registry.Filter{registry.WithStatus(health.Unhealthy, health.Degraded)}, "b c"},
		{"users", []registry.Filter{registry.WithStatus(), registry.Zone("north")}, "a c"},
		{"orders", []registry.Filter{registry.WithStatus(health.Starting)}, "d"},
	} {
		got := r.Discover(c.service, c.filters...)
		if got == nil || ids(got) != c.want {
			t.Errorf("%s with %d filters: %q, want %q", c.service, len(c.filters), ids(got), c.want)
		}
	}
	if diff := cmp.Diff([]string{"orders", "users"}, r.Services()); diff != "" {
		t.Error(diff)
	}
	if got := ids(r.List()); got != "d a b c" {
		t.Errorf("List: %s", got)
	}
	// What is given away is the caller's.
	r.Discover("users")[0].Tags[0] = "spoilt"
	r.List()[1].Tags[0] = "spoilt"
	if got, ok := r.Get(registry.Key{Service: "users", ID: "a"}); !ok || got.Tags[0] != "x" {
		t.Errorf("Get: %+v, %v", got, ok)
	}
	if _, ok := r.Get(registry.Key{Service: "users", ID: "z"}); ok {
		t.Error("Get finds what is not there")
	}
}

func TestPick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		_, err := r.Pick("users", balance.RoundRobin())
		if none, ok := errors.AsType[*registry.NoInstanceError](err); !ok || none.Service != "users" || !errors.Is(err, registry.ErrNoInstance) {
			t.Errorf("Pick without instances: %v", err)
		}
		in := instance("a")
		put(t, d, in)
		synctest.Wait()
		e, err := r.Pick("users", balance.P2C())
		if err != nil || e.Address != in.Address || e.ID != in.ID {
			t.Errorf("Pick: %+v, %v", e, err)
		}
	})
}

func TestEndpointIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d, own := hub.Connect(), hub.Connect()
		r := open(t, own)
		endpoint := func() *balance.Endpoint {
			t.Helper()
			synctest.Wait()
			if r.Endpoints("users").Len() == 0 {
				return nil
			}
			return r.Endpoints("users").At(0)
		}
		put(t, d, instance("a"))
		first := endpoint()
		put(t, d, instance("a", func(i *registry.Instance) { i.Version, i.Status = "2", health.Degraded }))
		if endpoint() != first {
			t.Error("another endpoint after a change that leaves the address")
		}
		put(t, d, instance("a", func(i *registry.Instance) { i.Status = health.Unhealthy }))
		if endpoint() != nil {
			t.Error("unhealthy, but in rotation")
		}
		put(t, d, instance("a"))
		if endpoint() != first {
			t.Error("another endpoint after an absence from rotation")
		}
		own.Disconnect()
		own.Reconnect()
		time.Sleep(time.Second)
		if endpoint() != first {
			t.Error("another endpoint after a reconnect")
		}
		put(t, d, instance("a", func(i *registry.Instance) { i.Address = "http://b:3001" }))
		moved := endpoint()
		if moved == first || moved.Address != "http://b:3001" {
			t.Errorf("after a move the endpoint is %+v", moved)
		}
		put(t, d, instance("a", func(i *registry.Instance) { i.Address, i.Zone = "http://b:3001", "south" }))
		if e := endpoint(); e == moved || e.Zone != "south" {
			t.Errorf("after a change of the zone the endpoint is %+v", e)
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range r.Watch(ctx, "users") {
				told = append(told, fmt.Sprintf("%s %s %s%s", e.Type, e.Instance.ID, e.Instance.Status, ids(e.Instances)))
			}
		}()
		in := instance("a")
		steps := []func(){
			func() { put(t, d, in) },
			func() { put(t, d, in) }, // the same once more: no news
			func() { in.Status = health.Degraded; put(t, d, in) },
			func() { in.Version = "2"; put(t, d, in) },
			func() { in.RegisteredAt = time.Now(); put(t, d, in) }, // another process
			func() { other := instance("b"); other.Name = "orders"; put(t, d, other) },
			func() { _ = d.Deregister(ctx, in.Key(), 0) },
			func() { _ = d.Deregister(ctx, in.Key(), 0) },
		}
		for _, step := range steps {
			synctest.Wait()
			step()
		}
		synctest.Wait()
		cancel()
		<-done
		want := []string{
			"snapshot  ", "register a healthy", "status-change a degraded", "register a degraded", "register a degraded",
			"deregister a degraded",
		}
		want[0] = "snapshot  "
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWatchEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		r := registry.Open(t.Context(), hub.Connect())
		away := hub.Connect()
		away.Disconnect()
		never := registry.Open(t.Context(), away)
		done := make(chan struct{}, 3)
		for _, watched := range []*registry.Registry{r, never} {
			go func() {
				for range watched.Watch(t.Context()) {
				}
				done <- struct{}{}
			}()
		}
		go func() {
			if err := never.WaitSynced(t.Context()); !errors.Is(err, registry.ErrClosed) {
				t.Errorf("WaitSynced: %v, want ErrClosed", err)
			}
			done <- struct{}{}
		}()
		synctest.Wait()
		r.Close()
		never.Close()
		never.Close()
		for range 3 {
			<-done
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := registry.Open(t.Context(), away)
		defer late.Close()
		if err := late.WaitSynced(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("WaitSynced: %v, want the context's error and why", err)
		}
		if late.Synced() || late.Err() == nil {
			t.Error("synced without a store")
		}
	})
}

func TestRegisterRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		if _, err := r.Register(t.Context(), registry.Instance{Name: "?"}); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("a bad name: %v", err)
		}
		big := instance("a")
		for i := range registry.MaxMetadata {
			big.Metadata[fmt.Sprint(i)] = strings.Repeat("x", registry.MaxMetadataValue)
		}
		if _, err := r.Register(t.Context(), big); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("a record no store takes: %v", err)
		}
		g, err := r.Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Register(t.Context(), instance("a")); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("the same id twice: %v", err)
		}
		if err := g.SetStatus(t.Context(), "fine"); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("an unknown status: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Register(ended, instance("b")); !errors.Is(err, context.Canceled) {
			t.Errorf("without time: %v", err)
		}
		if err := g.Deregister(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Deregister(t.Context()); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if err := g.SetStatus(t.Context(), health.Healthy); !errors.Is(err, registry.ErrReleased) {
			t.Errorf("SetStatus after Deregister: %v", err)
		}
		if g, err = r.Register(t.Context(), instance("a")); err != nil {
			t.Errorf("the id is not free again: %v", err)
		}
		synctest.Wait()
		if got := ids(r.List()); got != "a" {
			t.Errorf("registered: %q, want a only", got)
		}
		r.Close()
		if err := g.Err(); !errors.Is(err, registry.ErrClosed) {
			t.Errorf("Err after Close: %v", err)
		}
		if err := g.SetStatus(t.Context(), health.Draining); !errors.Is(err, registry.ErrClosed) {
			t.Errorf("SetStatus after Close: %v", err)
		}
		if _, err := r.Register(t.Context(), instance("c")); !errors.Is(err, registry.ErrClosed) {
			t.Errorf("Register after Close: %v", err)
		}
		if err := g.Deregister(t.Context()); err != nil {
			t.Errorf("Deregister after Close: %v", err)
		}
		if len(open(t, d).List()) != 0 {
			t.Error("Deregister after Close left the record")
		}
	})
}

// Register returns though the store is away, and registers when it is back.
func TestRegisterWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d := hub.Connect()
		d.Disconnect()
		r := registry.Open(t.Context(), d)
		defer r.Close()
		g, err := r.Register(t.Context(), instance("a"))
		if err != nil {
			t.Fatal(err)
		}
		if !errors.Is(g.Err(), registry.ErrUnavailable) {
			t.Errorf("Err: %v", g.Err())
		}
		time.Sleep(time.Hour)
		told := make(chan error, 9)
		g.OnChange(func(err error) { told <- err })
		d.Reconnect()
		if err := <-told; err != nil {
			t.Errorf("told %v, want nil", err)
		}
		synctest.Wait()
		if got := ids(open(t, hub.Connect()).List()); got != "a" {
			t.Errorf("registered: %q", got)
		}
	})
}

// The lease is kept for as long as the registration lives, whatever the time to
// live, and no longer.
func TestLeaseIsKept(t *testing.T) {
	for _, ttl := range []time.Duration{0, 1500 * time.Millisecond, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			hub := memregistry.New()
			r := open(t, hub.Connect(), registry.WithTTL(ttl))
			if _, err := r.Register(t.Context(), instance("a")); err != nil {
				t.Fatal(err)
			}
			states := map[registry.LeaseState]int{}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for c := range hub.Connect().Leases(ctx) {
					states[c.State]++
				}
			}()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if states[registry.LeaseHeld] < 30 || states[registry.LeaseExpired] > 0 {
				t.Errorf("TTL %v: %v after ten minutes", ttl, states)
			}
			r.Close()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if states[registry.LeaseExpired] != 1 {
				t.Errorf("TTL %v: %v after Close", ttl, states)
			}
			cancel()
			<-done
		})
	}
}
