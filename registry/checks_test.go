package registry_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

func key(id string) registry.Key { return registry.Key{Service: "users", ID: id} }

// An instance with a health URL is checked when it registers, and then every
// five seconds, ±10 %; one without never while it has its lease.
func TestChecksInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		time.Sleep(1234 * time.Millisecond)
		began := time.Now()
		all := []string{"native", "announced"}
		s.join("native", checked)
		s.announce("announced", registry.LeaseChecks)
		s.join("unchecked")
		s.expect("at once", is{"native": health.Healthy, "announced": health.Healthy})
		for n := range 50 {
			id := fmt.Sprint("i", n)
			all = append(all, id)
			s.join(id, checked)
		}
		time.Sleep(10 * time.Minute)
		for _, id := range all {
			at := s.probedAt(id)
			if len(at) < 600/5-2 || !at[0].Equal(began) {
				t.Errorf("%s: %d checks in ten minutes, the first after %v", id, len(at), at[0].Sub(began))
			}
			varied := false
			for n := range len(at) - 1 {
				gap := at[n+1].Sub(at[n])
				if gap < 4500*time.Millisecond || gap > 5500*time.Millisecond {
					t.Errorf("%s: %v between checks %d and %d", id, gap, n, n+1)
				}
				varied = varied || gap != at[1].Sub(at[0])
			}
			if !varied {
				t.Errorf("%s: the checks have no jitter", id)
			}
		}
		if n := s.probed("unchecked"); n != 0 {
			t.Errorf("an instance without a health URL was probed %d times", n)
		}
	})
}

// Many that register together are soon checked at different times.
func TestChecksSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		d := s.hub.Connect()
		const n = 1000
		for i := range n {
			put(t, d, instance(fmt.Sprint("i", i), checked))
		}
		time.Sleep(time.Minute)
		began := time.Now()
		time.Sleep(registry.CheckInterval)
		var due [5]int // in each second
		for i := range n {
			at := s.probedAt(fmt.Sprint("i", i))
			due[min(max(int(at[len(at)-1].Sub(began)/time.Second), 0), 4)]++
		}
		for second, got := range due {
			if got < n/5*7/10 || got > n/5*13/10 {
				t.Errorf("%d of %d checks are in second %d of 5", got, n, second)
			}
		}
	})
}

// Two failed checks take an instance out, one that it passes brings it back; and
// what it announced itself is what it comes back to.
func TestChecksRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.join("native", checked, func(i *registry.Instance) { i.Status = health.Degraded })
		s.announce("announced", registry.LeaseChecks)
		s.join("b")
		s.join("c")
		time.Sleep(time.Minute)
		for range 5 {
			s.answer("native", registry.ProbeFailed)
			s.answer("announced", registry.ProbeFailed)
			before := s.probed("native")
			for s.probed("native") == before {
				time.Sleep(100 * time.Millisecond)
			}
			s.expect("after one failed check", is{"native": health.Degraded})
			time.Sleep(7 * time.Second)
			s.expect("after two", is{"native": health.Unhealthy, "announced": health.Unhealthy})
			s.answer("native", registry.ProbeOK)
			s.answer("announced", registry.ProbeOK)
			time.Sleep(5500 * time.Millisecond)
			s.expect("it passes", is{"native": health.Degraded, "announced": health.Healthy})
		}
	})
}

// A process that is connected, but whose address refuses, goes out of rotation at
// once and stays registered: it would only register again at once.
func TestChecksRefusedWithLease(t *testing.T) {
	for _, result := range []registry.ProbeResult{registry.ProbeRefused, registry.ProbeOther} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			s.start()
			theirs := open(t, s.hub.Connect())
			in := instance("a", checked)
			g, err := theirs.Register(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			s.join("b")
			time.Sleep(time.Minute)
			var changes []string
			go func() {
				for e := range s.registry.Watch(t.Context(), "users") {
					if e.Type != registry.Snapshot {
						changes = append(changes, fmt.Sprint(e.Type, " ", e.Instance.Status))
					}
				}
			}()
			synctest.Wait()
			s.answer("a", result)
			time.Sleep(5500 * time.Millisecond)
			s.expect("one refused check later", is{"a": health.Unhealthy, "b": health.Healthy})
			if got, _ := s.registry.Get(key("a")); got.Announced != health.Healthy {
				t.Errorf("announced %q, want healthy", got.Announced)
			}
			time.Sleep(time.Hour)
			s.answer("a", registry.ProbeOK)
			time.Sleep(5500 * time.Millisecond)
			s.expect("it passes a check", is{"a": health.Healthy})
			if got := fmt.Sprint(changes); got != "[status-change unhealthy status-change healthy]" {
				t.Errorf("it changed so: %s", got)
			}
			// That others are out holds nothing back: it is confirmed.
			s.answer("a", result)
			b := s.join("b", checked)
			s.answer("b", result)
			time.Sleep(5500 * time.Millisecond)
			s.expect("all refuse", is{"a": health.Unhealthy, "b": health.Unhealthy})
			b.Disconnect()
			s.expect("when the lease is lost too", is{"b": ""})
			if err := g.Deregister(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An instance that says itself that it is well again is checked at once, and has
// two checks before it is out again.
func TestChecksOwnWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		in := instance("a", checked)
		a := s.join("a", checked)
		s.answer("a", registry.ProbeFailed)
		time.Sleep(20 * time.Second)
		s.expect("it fails", is{"a": health.Unhealthy})
		before := s.probed("a")
		put(t, a, in)
		s.expect("it says that it is well", is{"a": health.Healthy})
		if got := s.probed("a") - before; got != 1 {
			t.Errorf("%d checks at once, want one", got)
		}
		time.Sleep(1100 * time.Millisecond)
		s.expect("a second check later", is{"a": health.Unhealthy})
	})
}

// A passed check renews the lease of an instance that has no other heartbeat; a
// failed one does not.
func TestChecksRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.announce("a", registry.LeaseChecks)
		s.join("b")
		s.expect("its first check", is{"a": health.Healthy})
		for range 20 {
			time.Sleep(time.Minute)
			if age := time.Since(s.checker.LastHeartbeat(key("a"))); age > 5500*time.Millisecond {
				t.Fatalf("its last heartbeat was %v ago", age)
			}
		}
		s.answer("a", registry.ProbeFailed)
		time.Sleep(5500 * time.Millisecond)
		last := s.checker.LastHeartbeat(key("a"))
		time.Sleep(4 * time.Second)
		if now := s.checker.LastHeartbeat(key("a")); !now.Equal(last) {
			t.Error("a failed check renewed the lease")
		}
		time.Sleep(registry.DefaultTTL)
		if !s.checker.LastHeartbeat(key("a")).IsZero() {
			t.Error("it still has its lease")
		}
		s.expect("without its lease", is{"a": health.Unhealthy})
		s.answer("a", registry.ProbeOK)
		time.Sleep(5500 * time.Millisecond)
		s.expect("it passes again", is{"a": health.Healthy})
		if s.checker.LastHeartbeat(key("a")).IsZero() {
			t.Error("a passed check did not renew the lease")
		}
		// Refused: nobody else keeps it, so it is gone at once.
		s.answer("a", registry.ProbeRefused)
		time.Sleep(5500 * time.Millisecond)
		s.expect("refused", is{"a": ""})
		n := s.probed("a")
		time.Sleep(time.Minute)
		if s.probed("a") != n {
			t.Error("it is gone, and is still checked")
		}
	})
}

// An instance registered over HTTP with a health URL is out of rotation until it
// passes a check.
func TestChecksStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.answer("a", registry.ProbeFailed)
		s.announce("a", registry.LeaseChecks)
		time.Sleep(5 * time.Minute)
		s.expect("it fails for five minutes", is{"a": health.Starting})
		s.answer("a", registry.ProbeOK)
		time.Sleep(5500 * time.Millisecond)
		s.expect("its first pass", is{"a": health.Healthy})

		// Many register before they listen. They have the time of their first lease.
		s.answer("b", registry.ProbeRefused)
		s.announce("b", registry.LeaseChecks)
		time.Sleep(10 * time.Second)
		s.expect("it does not listen yet", is{"b": health.Starting})
		s.answer("b", registry.ProbeOK)
		time.Sleep(1100 * time.Millisecond)
		s.expect("it listens", is{"b": health.Healthy})

		s.answer("c", registry.ProbeRefused)
		s.announce("c", registry.LeaseChecks)
		time.Sleep(registry.DefaultTTL - time.Second)
		s.expect("it does not listen yet", is{"c": health.Starting})
		time.Sleep(3 * time.Second)
		s.expect("it never listened", is{"c": ""})
	})
}

// Heartbeats are all that is asked of an instance without a health URL.
func TestChecksHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.join("other")
		s.join("another")
		beat := func(id string) {
			t.Helper()
			if err := s.node.Renew(t.Context(), key(id), registry.DefaultTTL); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		s.answer("a", registry.ProbeRefused) // nobody asks while it beats
		s.announce("a", registry.LeaseHeartbeats)
		for range 100 {
			time.Sleep(10 * time.Second)
			beat("a")
		}
		s.expect("it beats", is{"a": health.Healthy})
		if n := s.probed("a"); n != 0 {
			t.Errorf("it was probed %d times", n)
		}
		s.answer("a", registry.ProbeOK)
		time.Sleep(registry.DefaultTTL - time.Millisecond)
		s.expect("its lease is about to expire", is{"a": health.Healthy})
		time.Sleep(time.Millisecond)
		s.expect("its lease has expired, though it can be connected to", is{"a": health.Unhealthy})
		time.Sleep(9 * time.Minute)
		s.expect("nine minutes later", is{"a": health.Unhealthy})
		beat("a")
		s.expect("it beats again", is{"a": health.Healthy})
		time.Sleep(registry.DefaultTTL)
		s.expect("it stops again", is{"a": health.Unhealthy})
		time.Sleep(11 * time.Minute)
		s.expect("for long", is{"a": ""})

		s.announce("b", registry.LeaseHeartbeats)
		s.answer("b", registry.ProbeRefused)
		time.Sleep(registry.DefaultTTL)
		s.expect("its lease has expired, and it refuses", is{"b": ""})
	})
}

// The node that took an instance's heartbeats is lost. The instance has the time
// of a lease to beat through another one.
func TestChecksHeartbeatsThroughAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		first, second := s.hub.Connect(), s.hub.Connect()
		byBeats := func(i *registry.Instance) { i.Lease = registry.LeaseHeartbeats }
		for _, id := range []string{"moves", "stops", "x", "y"} {
			if _, err := first.Register(t.Context(), instance(id, byBeats), registry.DefaultTTL); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		first.Disconnect()
		time.Sleep(registry.DefaultTTL - time.Millisecond)
		s.expect("nearly a lease's time later", is{"moves": health.Healthy, "stops": health.Healthy})
		for _, id := range []string{"moves", "x", "y"} {
			if err := second.Renew(t.Context(), key(id), time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
		s.expect("a lease's time later", is{"moves": health.Healthy, "stops": health.Unhealthy})
		if n := s.probed("moves"); n != 0 {
			t.Errorf("who beats through another node is probed %d times", n)
		}
	})
}

// Records of instances whose hosts have vanished do not pile up, even where the
// panic threshold keeps them in rotation.
func TestChecksAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		host := s.hub.Connect()
		var all []string
		for n := range 10 {
			id := fmt.Sprint("native", n)
			put(t, host, instance(id))
			all = append(all, id)
		}
		s.announce("announced", registry.LeaseChecks)
		s.join("hangs", checked)
		time.Sleep(time.Minute)
		for _, id := range append(all, "announced", "hangs") {
			s.answer(id, registry.ProbeFailed)
		}
		host.Disconnect()
		time.Sleep(9 * time.Minute)
		if n := len(s.registry.List()); n != 12 {
			t.Errorf("after nine minutes %d of 12 are registered", n)
		}
		if n := s.registry.Endpoints("users").Len(); n != 6 {
			t.Errorf("after nine minutes %d of 12 are in rotation, want half", n)
		}
		time.Sleep(2 * time.Minute)
		if left := ids(s.registry.List()); left != "hangs" {
			t.Errorf("after eleven minutes there are %q, want only the one with a lease", left)
		}
		time.Sleep(30 * time.Minute)
		s.expect("its process is connected", is{"hangs": health.Unhealthy})
	})
}

// Who was drained by hand stays so, whatever the checks say but that it is dead.
func TestChecksDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.announce("announced", registry.LeaseChecks)
		native := s.join("native", checked)
		s.join("c", checked)
		time.Sleep(time.Minute)
		for _, id := range []string{"announced", "native"} {
			if _, err := s.registry.Drain(t.Context(), key(id)); err != nil {
				t.Fatal(err)
			}
		}
		drained := is{"announced": health.Draining, "native": health.Draining}
		for _, result := range []registry.ProbeResult{registry.ProbeOK, registry.ProbeFailed, registry.ProbeOK} {
			s.answer("announced", result)
			s.answer("native", result)
			time.Sleep(5 * time.Minute)
			s.expect(result.String(), drained)
		}
		if age := time.Since(s.checker.LastHeartbeat(key("announced"))); age > 5500*time.Millisecond {
			t.Errorf("its lease was last renewed %v ago", age)
		}
		if _, err := s.registry.Undrain(t.Context(), key("announced")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.expect("undrained", is{"announced": health.Healthy})
		s.answer("native", registry.ProbeRefused)
		time.Sleep(time.Minute)
		s.expect("drained, it refuses, with a lease", is{"native": health.Draining})
		native.Disconnect()
		s.expect("and without", is{"native": ""})
	})
}

// The store loses everything, and whoever lives registers again: it is checked as
// before. Who registered while nobody checked is checked as soon as somebody does.
func TestChecksGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.announce("early", registry.LeaseChecks)
		s.start()
		s.expect("who was there before", is{"early": health.Healthy})
		a := s.join("a", checked)
		b := s.join("b", checked)
		time.Sleep(time.Minute)
		s.hub.Wipe()
		time.Sleep(100 * time.Millisecond) // until the registry knows
		lost := s.probed("b")
		time.Sleep(9 * time.Second)
		if n := s.probed("b") - lost; n != 0 {
			t.Errorf("who is to register again is checked %d times", n) // and what could be done about it?
		}
		put(t, a, instance("a", checked)) // the same as before: no news to watchers
		time.Sleep(time.Minute)
		s.expect("who did not register again", is{"a": health.Healthy, "b": "", "early": ""})
		before, others := s.probed("a"), s.probed("b")
		time.Sleep(time.Minute)
		if n := s.probed("a") - before; n < 60*10/55-1 {
			t.Errorf("%d checks in a minute after it registered again", n)
		}
		put(t, b, instance("b", checked))
		if err := b.Deregister(t.Context(), key("b"), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := s.probed("b") - others; n > 1 {
			t.Errorf("who said goodbye was checked %d times", n)
		}
	})
}

// An instance that deregisters while it passes a check leaves no lease behind.
func TestChecksRenewNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.announce("a", registry.LeaseChecks)
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.during = func(id string) {
			if err := s.registry.Remove(t.Context(), key(id)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		s.mu.Unlock()
		time.Sleep(8 * time.Second)
		s.expect("it has gone", is{"a": ""})
		if !s.checker.LastHeartbeat(key("a")).IsZero() {
			t.Error("it has a lease")
		}
	})
}
