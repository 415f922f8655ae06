package registry_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// scene is a hub with a registry node whose probes the test answers.
type scene struct {
	t        *testing.T
	hub      *memregistry.Hub
	node     *memregistry.Driver
	registry *registry.Registry
	checker  *registry.Checker

	mu      sync.Mutex
	answers map[string]registry.ProbeResult // by id; ProbeOK if not set
	probes  map[string][]time.Time
	during  func(id string) // called in a probe, before it answers
}

func newScene(t *testing.T) *scene {
	hub := memregistry.New()
	s := &scene{
		t: t, hub: hub, node: hub.Connect(),
		answers: map[string]registry.ProbeResult{}, probes: map[string][]time.Time{},
	}
	s.registry = open(t, s.node)
	s.checker = registry.NewChecker(s.registry, registry.WithProber(s))
	return s
}

// start runs the checker until the test ends.
func (s *scene) start() {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- s.checker.Run(ctx) }()
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
	s.probes[in.ID] = append(s.probes[in.ID], time.Now())
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

func (s *scene) probed(id string) int { return len(s.probedAt(id)) }

func (s *scene) probedAt(id string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.probes[id])
}

// announce registers an instance over the node, as it is done for a process that
// can't do so itself.
func (s *scene) announce(id string, kind registry.LeaseKind) {
	s.t.Helper()
	in := instance(id, func(i *registry.Instance) {
		if i.Lease = kind; kind == registry.LeaseChecks {
			i.Health, i.Status = "/health", health.Starting
		}
		i.RegisteredAt = time.Now()
	})
	if _, err := s.node.Register(s.t.Context(), in, registry.DefaultTTL); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func checked(i *registry.Instance) { i.Health = "/health" }

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
