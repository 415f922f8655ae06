package registry_test

import (
	"context"
	"fmt"
	"iter"
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
func TestReaperSnapshotLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.registry = open(t, lagging{s.node, 200 * time.Millisecond})
		s.reaper = registry.NewReaper(s.registry, registry.WithProber(s))
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
func TestReaperDeathsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		a := s.join("a")
		silent := s.hub.Connect()
		for n := range 640 { // takes ten rounds of two seconds to check all
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
