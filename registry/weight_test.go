package registry_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func withWeight(w string) func(*registry.Instance) {
	return func(in *registry.Instance) { in.Metadata = map[string]string{registry.MetadataWeight: w} }
}

func TestEndpointWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		put(t, d, instance("a"))
		synctest.Wait()
		first := r.Endpoints("users").At(0)
		if first.Weight != 1 {
			t.Errorf("weight %d without an entry, want 1", first.Weight)
		}
		first.Begin()
		first.End(20*time.Millisecond, false)
		for text, want := range map[string]int{
			"7": 7, "1000": 1000, "": 1, "1001": 1000, "-1": 1, "1.5": 1, "heavy": 1, " 3": 1, "99999999999999999999": 1,
		} {
			put(t, d, instance("a", withWeight(text)))
			synctest.Wait()
			if e := r.Endpoints("users").At(0); e.Weight != want || e.Latency() != 20*time.Millisecond {
				t.Errorf("%q: weight %d, latency %v; want %d and what was known", text, e.Weight, e.Latency(), want)
			}
		}
		put(t, d, instance("a", withWeight("7")))
		synctest.Wait()
		heavy := r.Endpoints("users").At(0)
		put(t, d, instance("a", withWeight("7"), func(in *registry.Instance) { in.Version = "2" }))
		synctest.Wait()
		if r.Endpoints("users").At(0) != heavy {
			t.Error("another endpoint though the weight is the same")
		}
	})
}

// An instance of weight 0 is known, but gets no calls.
func TestEndpointWeightZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		put(t, d, instance("a", withWeight("0")))
		synctest.Wait()
		if _, err := r.Pick("users", balance.P2C()); !errors.Is(err, registry.ErrNoInstance) {
			t.Errorf("Pick: %v, want ErrNoInstance", err)
		}
		if n := len(r.Discover("users")); n != 1 {
			t.Errorf("Discover finds %d instances, want 1", n)
		}
		put(t, d, instance("b"))
		synctest.Wait()
		for range 20 {
			if e, err := r.Pick("users", balance.P2C()); err != nil || e.ID != "b" {
				t.Fatalf("picked %v, %v", e, err)
			}
		}
		put(t, d, instance("a", withWeight("1")))
		synctest.Wait()
		if n := r.Endpoints("users").Len(); n != 2 {
			t.Errorf("%d endpoints take calls after the weight is back, want 2", n)
		}
	})
}

// Pickers remember much about a set, so it is another one only when others are in
// rotation: not when a record is written again.
func TestEndpointsStayTheSameSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memregistry.New().Connect()
		r := open(t, d)
		put(t, d, instance("a"))
		put(t, d, instance("b", withWeight("3")))
		put(t, d, instance("c", withWeight("0")))
		synctest.Wait()
		before := r.Endpoints("users")
		if before.Len() != 2 {
			t.Fatalf("%d endpoints, want 2", before.Len())
		}
		status := func(s registry.Status) func(*registry.Instance) {
			return func(in *registry.Instance) { in.Status = s }
		}
		for _, c := range []struct {
			what string
			in   registry.Instance
			same bool
		}{
			{"the same record again", instance("a"), true},
			{"degraded", instance("a", status(health.Degraded)), true},
			{"one more that does not serve", instance("d", status(health.Starting)), true},
			{"which serves then", instance("d"), false},
			{"another address", instance("a", func(in *registry.Instance) { in.Address = "http://moved:3001" }), false},
			{"another weight", instance("b", withWeight("4")), false},
			{"a weight after none", instance("c"), false},
			{"out of rotation", instance("a", status(health.Unhealthy)), false},
		} {
			put(t, d, c.in)
			synctest.Wait()
			after := r.Endpoints("users")
			if (after == before) != c.same {
				t.Errorf("%s: the same set: %v, want %v", c.what, after == before, c.same)
			}
			before = after
		}
	})
}
