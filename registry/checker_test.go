package registry_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func TestCheckerRefused(t *testing.T) {
	for _, result := range []registry.ProbeResult{registry.ProbeRefused, registry.ProbeOther} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			s.start()
			a := s.join("a")
			s.join("b")
			s.answer("a", result)
			began := time.Now()
			a.Disconnect()
			s.expect(result.String(), is{"a": "", "b": health.Healthy})
			if took := time.Since(began); took > 0 {
				t.Errorf("it took %v of virtual time", took)
			}
			if n := s.probed("b"); n != 0 {
				t.Errorf("b was probed %d times for nothing", n)
			}
		})
	}
}

func TestCheckerBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a")
		s.answer("a", registry.ProbeBroken)
		a.Disconnect()
		time.Sleep(15 * time.Millisecond)
		s.expect("cut twice", is{"a": health.Healthy})
		s.answer("a", registry.ProbeRefused)
		time.Sleep(20 * time.Millisecond)
		s.expect("then refused", is{"a": ""})

		b := s.join("b")
		s.answer("b", registry.ProbeBroken)
		b.Disconnect()
		time.Sleep(500 * time.Millisecond)
		if n := s.probed("b"); n != 6 {
			t.Errorf("%d probes in the first half second, want 6", n)
		}
		s.expect("one failed check", is{"b": health.Healthy})
		time.Sleep(1500 * time.Millisecond)
		s.expect("two failed checks", is{"b": health.Unhealthy})
	})
}

func TestCheckerFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a", func(i *registry.Instance) { i.Status = health.Degraded })
		s.answer("a", registry.ProbeFailed)
		a.Disconnect()
		s.expect("after one check", is{"a": health.Degraded})
		time.Sleep(1100 * time.Millisecond)
		s.expect("after two checks", is{"a": health.Unhealthy})
		if in, _ := s.registry.Get(registry.Key{Service: "users", ID: "a"}); in.Announced != health.Degraded {
			t.Errorf("announced %q, want degraded", in.Announced)
		}
		time.Sleep(9 * time.Minute)
		s.expect("nine minutes later", is{"a": health.Unhealthy}) // not removed unconfirmed
		if n := s.probed("a"); n < 540/6 || n > 540/4 {
			t.Errorf("%d checks in nine minutes, want one each five seconds", n)
		}
		// It answers again, though still without a lease.
		s.answer("a", registry.ProbeOK)
		time.Sleep(6 * time.Second)
		s.expect("answers", is{"a": health.Degraded})
		before := s.probed("a")
		time.Sleep(time.Minute)
		if s.probed("a") == before {
			t.Error("it has no lease and is not checked any more")
		}
		a.Reconnect()
		if err := a.Renew(t.Context(), registry.Key{Service: "users", ID: "a"}, 10*time.Hour); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before = s.probed("a")
		time.Sleep(time.Hour)
		if s.probed("a") != before {
			t.Error("it answers and has a lease, and is still checked")
		}
		s.expect("acquitted", is{"a": health.Degraded})
	})
}

func TestCheckerAnswersWithoutLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		d := s.hub.Connect()
		if _, err := d.Register(t.Context(), instance("a"), time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		s.expect("its lease expired an hour ago, but it answers", is{"a": health.Healthy})
		if n := s.probed("a"); n < 3600/6 {
			t.Errorf("%d checks in an hour", n)
		}
		s.answer("a", registry.ProbeRefused)
		time.Sleep(6 * time.Second)
		s.expect("then it dies", is{"a": ""})
	})
}

// By a status the instance gave itself nobody else may change it.
func TestCheckerLeavesOwnStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.join("unwell", func(i *registry.Instance) { i.Status = health.Unhealthy })
		s.join("drains", func(i *registry.Instance) { i.Status = health.Draining })
		s.join("starts", func(i *registry.Instance) { i.Status = health.Starting })
		s.join("checked", func(i *registry.Instance) { i.Status, i.Health = health.Starting, "/health" })
		s.start()
		time.Sleep(time.Minute)
		s.expect("all answer", is{"unwell": health.Unhealthy, "drains": health.Draining, "starts": health.Starting, "checked": health.Healthy})
	})
}

func TestCheckerSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		well := s.join("well")
		s.join("dead").Disconnect() // and nobody was there to see it
		s.join("leased")            // its lease is not over, but it is dead
		s.answer("dead", registry.ProbeRefused)
		s.answer("leased", registry.ProbeRefused)
		s.start()
		s.expect("at the start", is{"well": health.Healthy, "dead": "", "leased": health.Healthy})
		time.Sleep(registry.CheckInterval * 11 / 10)
		s.expect("an interval later", is{"well": health.Healthy, "leased": health.Unhealthy})
		if n := s.probed("well"); n != 1 {
			t.Errorf("well was probed %d times, want once", n)
		}
		// While the node is away, more die, and one comes and dies.
		s.node.Disconnect()
		well.Disconnect()
		s.answer("well", registry.ProbeRefused)
		s.join("late").Disconnect()
		s.answer("late", registry.ProbeRefused)
		time.Sleep(time.Hour - time.Minute)
		s.expect("while the store is away", is{"well": health.Healthy})
		s.node.Reconnect()
		time.Sleep(10 * time.Second)
		s.expect("when it is back", is{"well": "", "late": "", "leased": health.Unhealthy})
		time.Sleep(time.Minute)
		s.expect("when its lease is over", is{"leased": ""})
	})
}

// A record whose lease nobody ever saw is found all the same.
func TestCheckerRecordWithoutLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.join("normal")
		time.Sleep(time.Minute)
		if n := s.probed("normal"); n != 0 {
			t.Errorf("an instance that just registers is probed %d times", n)
		}
		d := s.hub.Connect()
		put(t, d, instance("ghost"))
		if err := d.Deregister(t.Context(), instance("ghost").Key(), 0); err != nil {
			t.Fatal(err)
		}
		put(t, d, instance("ghost"))
		d.Disconnect()
		s.answer("ghost", registry.ProbeFailed)
		time.Sleep(time.Minute)
		s.expect("no lease, no answer", is{"ghost": health.Unhealthy})
	})
}

func TestCheckerPanicThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		shared := s.hub.Connect()
		for n := range 10 {
			id := fmt.Sprint("i", n)
			put(t, shared, instance(id))
			s.answer(id, registry.ProbeFailed)
		}
		synctest.Wait()
		shared.Disconnect() // all at once
		time.Sleep(time.Minute)
		if n := s.registry.Endpoints("users").Len(); n != 5 {
			t.Errorf("%d of 10 are in rotation, want half", n)
		}
		if n := len(s.registry.List()); n != 10 {
			t.Errorf("%d of 10 are registered", n)
		}
		// Confirmed deaths are not held back.
		for n := range 10 {
			s.answer(fmt.Sprint("i", n), registry.ProbeRefused)
		}
		time.Sleep(10 * time.Second)
		if n := len(s.registry.List()); n != 0 {
			t.Errorf("%d of 10 are registered though all refuse", n)
		}
	})
}

// The record changes while it is probed: the verdict is about the past, and
// must not hit the present.
func TestCheckerConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a")
		s.answer("a", registry.ProbeRefused)
		s.during = func(string) {
			s.mu.Lock()
			s.during = nil
			s.mu.Unlock()
			s.answer("a", registry.ProbeOK)
			put(t, s.hub.Connect(), instance("a", func(i *registry.Instance) { i.Version = "successor" }))
		}
		a.Disconnect()
		time.Sleep(time.Second)
		s.expect("a successor came during the probe", is{"a": health.Healthy})
		if n := s.probed("a"); n < 2 {
			t.Errorf("%d probes, want another one after the conflict", n)
		}
		before := s.probed("a")
		time.Sleep(time.Hour / 2)
		if s.probed("a") != before {
			t.Error("the successor, which has a lease, is still under suspicion")
		}
	})
}

// It loses its lease during a probe that it answers: that calls for another one.
func TestCheckerEventDuringProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a")
		key := instance("a").Key()
		s.during = func(string) {
			s.mu.Lock()
			s.during = nil
			s.mu.Unlock()
			a.Reconnect()
			if err := a.Renew(t.Context(), key, time.Hour); err != nil {
				t.Error(err)
			}
			a.Disconnect()
			s.answer("a", registry.ProbeRefused) // from the next one on
			time.Sleep(time.Second)
		}
		a.Disconnect()
		time.Sleep(time.Second + time.Millisecond)
		s.expect("lost again during the probe", is{"a": ""})
	})
}

func TestCheckerReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a")
		key := instance("a").Key()
		if s.checker.LastHeartbeat(key).IsZero() {
			t.Error("no heartbeat of an instance with a lease")
		}
		if err := a.Deregister(t.Context(), key, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := s.probed("a"); n != 0 {
			t.Errorf("who says goodbye is probed %d times", n)
		}
		if !s.checker.LastHeartbeat(key).IsZero() {
			t.Error("a heartbeat of an instance without a lease")
		}
	})
}

// Two nodes at work do not hurt each other, nor the instances.
func TestCheckerTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		second := registry.NewChecker(open(t, s.hub.Connect()), registry.WithProber(s))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- second.Run(ctx) }()
		a := s.join("a")
		for range 20 {
			s.answer("a", registry.ProbeFailed)
			a.Disconnect()
			time.Sleep(10 * time.Second)
			s.expect("fails", is{"a": health.Unhealthy})
			s.answer("a", registry.ProbeOK)
			a.Reconnect()
			if err := a.Renew(t.Context(), instance("a").Key(), time.Hour); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			s.expect("answers", is{"a": health.Healthy})
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestCheckerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := memregistry.New()
		d := hub.Connect()
		d.Disconnect()
		r := registry.Open(t.Context(), d)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := registry.NewChecker(r).Run(ctx); err != nil {
			t.Errorf("ended before the store came: %v", err)
		}
		r.Close()
		if err := registry.NewChecker(r).Run(t.Context()); err == nil {
			t.Error("a checker on a closed registry that was never synced runs")
		}
	})
}
