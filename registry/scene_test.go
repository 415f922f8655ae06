package registry_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// scene is a hub with a registry node whose probes the test answers.
type scene struct {
	t        *testing.T
	hub      *memregistry.Hub
	node     *memregistry.Driver
	registry *registry.Registry
	reaper   *registry.Reaper

	mu      sync.Mutex
	answers map[string]registry.ProbeResult // by id; ProbeOK if not set
	probes  map[string]int
	during  func(id string) // called in a probe, before it answers
}

func newScene(t *testing.T) *scene {
	hub := memregistry.New()
	s := &scene{
		t: t, hub: hub, node: hub.Connect(),
		answers: map[string]registry.ProbeResult{}, probes: map[string]int{},
	}
	s.registry = open(t, s.node)
	s.reaper = registry.NewReaper(s.registry, registry.WithProber(s))
	return s
}

// start runs the reaper until the test ends.
func (s *scene) start() {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- s.reaper.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	synctest.Wait()
}

func (s *scene) Probe(ctx context.Context, in registry.Instance) registry.ProbeResult {
	s.mu.Lock()
	s.probes[in.ID]++
	result, during := s.answers[in.ID], s.during
	s.mu.Unlock()
	if during != nil {
		during(in.ID)
	}
	if result == 0 {
		return registry.ProbeOK
	}
	return result
}

func (s *scene) answer(id string, r registry.ProbeResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[id] = r
}

func (s *scene) probed(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probes[id]
}

// join registers an instance on a connection of its own.
func (s *scene) join(id string, change ...func(*registry.Instance)) *memregistry.Driver {
	s.t.Helper()
	d := s.hub.Connect()
	put(s.t, d, instance(id, change...))
	synctest.Wait()
	return d
}

// expect checks the state of each instance: "" is gone.
func (s *scene) expect(when string, want map[string]registry.Status) {
	s.t.Helper()
	synctest.Wait()
	for id, status := range want {
		if in, _ := s.registry.Get(registry.Key{Service: "users", ID: id}); in.Status != status {
			s.t.Errorf("%s: %s is %q, want %q", when, id, in.Status, status)
		}
	}
}

type is = map[string]registry.Status
