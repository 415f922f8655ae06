package registry_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// lagging is a driver whose changes take a while to be told.
type lagging struct {
	*memregistry.Driver
	lag time.Duration
}

func (d lagging) Watch(ctx context.Context) iter.Seq2[registry.Change, error] {
	return func(yield func(registry.Change, error) bool) {
		for c, err := range d.Driver.Watch(ctx) {
			select {
			case <-time.After(d.lag):
			case <-ctx.Done():
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// An instance comes back while the check is under way that takes it out. The
// next one comes before the snapshot shows that it is out, and must not acquit
// it there.
func TestCheckerSnapshotLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.registry = open(t, lagging{s.node, 200 * time.Millisecond})
		s.checker = registry.NewChecker(s.registry, registry.WithProber(s))
		s.start()
		a := s.join("a")
		time.Sleep(time.Second)
		s.answer("a", registry.ProbeFailed)
		a.Disconnect()
		synctest.Wait()
		s.mu.Lock()
		s.during = func(string) {
			s.mu.Lock()
			s.during = nil
			s.mu.Unlock()
			a.Reconnect()
			if err := a.Renew(t.Context(), instance("a").Key(), time.Hour); err != nil {
				t.Error(err)
			}
			s.answer("a", registry.ProbeOK) // from the next one on
			time.Sleep(time.Second)
		}
		s.mu.Unlock()
		time.Sleep(time.Minute)
		s.expect("a minute after it came back", is{"a": health.Healthy})
	})
}

// However many checks time out at the moment, a death is seen to next.
func TestCheckerDeathsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a")
		silent := s.hub.Connect()
		for n := range 2560 { // takes ten rounds of two seconds to check all
			id := fmt.Sprint("silent", n)
			put(t, silent, instance(id))
			s.answer(id, registry.ProbeFailed)
		}
		synctest.Wait()
		s.during = func(id string) {
			if id != "a" {
				time.Sleep(registry.ProbeTimeout)
			}
		}
		silent.Disconnect()
		time.Sleep(time.Minute)
		s.answer("a", registry.ProbeRefused)
		a.Disconnect()
		time.Sleep(registry.ProbeTimeout)
		s.expect("one probe's time after it died", is{"a": ""})
	})
}

// deaf is a driver to which nothing can be written for a while.
type deaf struct {
	*memregistry.Driver
	deaf *atomic.Bool
}

func (d deaf) Update(ctx context.Context, in registry.Instance, revision uint64) (uint64, error) {
	if d.deaf.Load() {
		return 0, registry.ErrUnavailable
	}
	return d.Driver.Update(ctx, in, revision)
}

func (d deaf) Deregister(ctx context.Context, k registry.Key, revision uint64) error {
	if d.deaf.Load() {
		return registry.ErrUnavailable
	}
	return d.Driver.Deregister(ctx, k, revision)
}

func (d deaf) Renew(ctx context.Context, k registry.Key, ttl time.Duration) error {
	if d.deaf.Load() {
		return registry.ErrUnavailable
	}
	return d.Driver.Renew(ctx, k, ttl)
}

// What can't be written is written as soon as that is possible, and the log says
// so once in a while, not with every check.
func TestCheckerStoreRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		var log strings.Builder
		d := deaf{s.node, &atomic.Bool{}}
		s.registry = open(t, d)
		s.checker = registry.NewChecker(s.registry, registry.WithProber(s),
			registry.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		s.start()
		gone, failing := s.join("gone"), s.join("failing", checked)
		for n := range 10 {
			s.announce(fmt.Sprint("passes", n), registry.LeaseChecks)
		}
		time.Sleep(time.Minute)
		d.deaf.Store(true)
		s.answer("gone", registry.ProbeRefused)
		s.answer("failing", registry.ProbeFailed)
		gone.Disconnect()
		failing.Disconnect()
		time.Sleep(time.Minute)
		s.expect("nothing can be written", is{"gone": health.Healthy, "failing": health.Healthy, "passes0": health.Healthy})
		d.deaf.Store(false)
		time.Sleep(time.Second)
		s.expect("it can again", is{"gone": "", "failing": health.Unhealthy, "passes0": health.Healthy})
		time.Sleep(registry.CheckInterval)
		if s.checker.LastHeartbeat(key("passes0")).IsZero() {
			t.Error("its lease is not renewed again")
		}
		if n := strings.Count(log.String(), "can't be renewed"); n != 1 {
			t.Errorf("the log says %d times that leases can't be renewed", n)
		}
	})
}

// An instance is replaced by another one of the same id at the very moment that
// it is removed: the successor is cared for too.
func TestCheckerSuccessorDuringRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		for range 50 {
			s.answer("a", registry.ProbeRefused)
			first := s.join("a", checked)
			first.Disconnect()
			second := s.hub.Connect()
			put(t, second, instance("a", checked, func(i *registry.Instance) { i.RegisteredAt = time.Now() }))
			s.answer("a", registry.ProbeOK)
			time.Sleep(registry.CheckInterval * 11 / 10)
			s.expect("a successor came", is{"a": health.Healthy})
			s.answer("a", registry.ProbeRefused)
			second.Disconnect()
			s.expect("and dies too", is{"a": ""})
			time.Sleep(time.Second)
		}
	})
}

// A connection ends so soon after its instance registered that this is known before
// the record is: that the instance answers then does not end the suspicion.
func TestCheckerLeaseEndsBeforeRecordShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		const many = 300 // which news comes first is a matter of chance
		for n := range many {
			d := s.hub.Connect()
			put(t, d, instance(fmt.Sprint("a", n)))
			d.Disconnect()
			synctest.Wait()
		}
		time.Sleep(3 * time.Second)
		if left := len(s.registry.List()); left != many {
			t.Errorf("%d of %d are registered while they answer", left, many)
		}
		for n := range many {
			s.answer(fmt.Sprint("a", n), registry.ProbeRefused)
		}
		time.Sleep(time.Minute)
		if left := len(s.registry.List()); left != 0 {
			t.Errorf("%d of %d are still registered a minute after they died", left, many)
		}
	})
}
