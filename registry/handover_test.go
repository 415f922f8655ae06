package registry_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

const (
	// takeoverLimit is how long there may be no leader after one was killed.
	takeoverLimit = 5 * time.Second
	// slowest is what an heir takes at most. In less than the shortest interval
	// between two checks, each instance misses one check at most.
	slowest = registry.CheckInterval * 9 / 10
)

// heir is a driver that takes a while to notice that the leader has gone.
type heir struct {
	*memregistry.Driver
	notices func() time.Duration
}

func (d heir) Lead(ctx context.Context) iter.Seq[bool] {
	return func(yield func(bool) bool) {
		for leads := range d.Driver.Lead(ctx) {
			if leads {
				select {
				case <-time.After(d.notices()):
				case <-ctx.Done():
				}
			}
			if !yield(leads) {
				return
			}
		}
	}
}

// visit is one check that a node made.
type visit struct {
	node int
	at   time.Time
}

// council is a few registry nodes, and what they checked.
type council struct {
	t       *testing.T
	hub     *memregistry.Hub
	drivers []*memregistry.Driver
	nodes   []*registry.Checker
	random  *rand.Rand

	mu     sync.Mutex
	visits map[string][]visit
	dead   map[string]bool
}

// seat is one node's prober.
type seat struct {
	council *council
	node    int
}

func (s seat) Probe(ctx context.Context, in registry.Instance) registry.ProbeResult {
	c := s.council
	c.mu.Lock()
	c.visits[in.ID] = append(c.visits[in.ID], visit{s.node, time.Now()})
	dead := c.dead[in.ID]
	c.mu.Unlock()
	if dead {
		return registry.ProbeRefused
	}
	select { // it takes a little
	case <-time.After(3 * time.Millisecond):
		return registry.ProbeOK
	case <-ctx.Done():
		return registry.ProbeFailed
	}
}

func convene(t *testing.T, nodes int) *council {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &council{
		t: t, hub: memregistry.New(), random: rand.New(rand.NewPCG(seed, 1)),
		visits: map[string][]visit{}, dead: map[string]bool{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for n := range nodes {
		d := c.hub.Connect()
		notices := func() time.Duration {
			c.mu.Lock()
			defer c.mu.Unlock()
			return time.Duration(c.random.Int64N(int64(slowest)))
		}
		r := open(t, heir{d, notices})
		checker := registry.NewChecker(r, registry.WithProber(seat{c, n}))
		c.drivers, c.nodes = append(c.drivers, d), append(c.nodes, checker)
		wg.Go(func() {
			if err := checker.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	synctest.Wait()
	return c
}

// leader returns who leads, or -1.
func (c *council) leader() int {
	c.t.Helper()
	synctest.Wait()
	leader := -1
	for n, node := range c.nodes {
		if node.Leading() {
			if leader >= 0 {
				c.t.Errorf("nodes %d and %d both lead", leader, n)
			}
			leader = n
		}
	}
	return leader
}

// await lets time pass until a node leads, and returns which one.
func (c *council) await() int {
	c.t.Helper()
	began := time.Now()
	for c.leader() < 0 {
		if time.Since(began) > takeoverLimit {
			c.t.Fatal("nobody has taken over")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c.leader()
}

func (c *council) kill(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead[id] = true
}

func (c *council) isDead(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead[id]
}

// Leaders are killed one after another. Nobody is lost, whoever renews their
// leases; nobody is checked by two nodes in one interval; nobody is left alone for
// longer than an interval and the time of a takeover; and who dies while there is
// no leader is removed by the next one.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := convene(t, 3)
		c.await()
		native := map[string]*memregistry.Driver{}
		announcing := c.hub.Connect()
		for n := range 40 {
			id := fmt.Sprint("native", n)
			native[id] = c.hub.Connect()
			if _, err := native[id].Register(t.Context(), instance(id, checked), 24*time.Hour); err != nil {
				t.Fatal(err)
			}
			in := instance(fmt.Sprint("announced", n), checked, func(i *registry.Instance) { i.Lease = registry.LeaseChecks })
			if _, err := announcing.Register(t.Context(), in, registry.DefaultTTL); err != nil {
				t.Fatal(err)
			}
		}
		observer := open(t, c.hub.Connect())
		gone := map[string]time.Time{}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for e := range observer.Watch(ctx) {
				switch e.Type {
				case registry.Deregister:
					gone[e.Instance.ID] = time.Now()
				case registry.StatusChange:
					t.Errorf("%s is %s", e.Instance.ID, e.Instance.Status)
				}
			}
		})
		time.Sleep(time.Minute)
		var longest time.Duration
		for round := range 20 {
			leader := c.leader()
			killed := time.Now()
			c.drivers[leader].Disconnect()
			if c.leader() >= 0 {
				t.Fatal("it is dead and leads, or another leads already")
			}
			// Two die while there is no leader.
			victim, other := fmt.Sprint("native", round), fmt.Sprint("announced", round)
			c.kill(victim)
			c.kill(other)
			native[victim].Disconnect()
			next := c.await()
			took := time.Since(killed)
			longest = max(longest, took)
			if _, there := observer.Get(key(victim)); there || next == leader {
				t.Errorf("node %d took over from %d after %v; is %s still there: %v", next, leader, took, victim, there)
			}
			time.Sleep(registry.CheckInterval * 11 / 10)
			if _, there := observer.Get(key(other)); there {
				t.Errorf("%s is still there an interval after the takeover", other)
			}
			c.drivers[leader].Reconnect()
			// It is a follower in good standing before the next one is killed.
			time.Sleep(takeoverLimit + time.Duration(c.random.Int64N(int64(10*time.Second))))
		}
		t.Logf("the longest vacancy was %v", longest)
		cancel()
		wg.Wait()
		if len(gone) != 40 || len(observer.List()) != 40 {
			t.Errorf("%d instances were removed and %d are left, want 40 and 40", len(gone), len(observer.List()))
		}
		for id := range gone {
			if !c.isDead(id) {
				t.Errorf("%s was removed, and it lives", id)
			}
		}
		for _, in := range observer.List() {
			if in.Status != health.Healthy {
				t.Errorf("%s is %s", in.ID, in.Status)
			}
		}
		c.checkVisits()
	})
}

// checkVisits measures the gaps between the checks of those who live.
func (c *council) checkVisits() {
	c.mu.Lock()
	defer c.mu.Unlock()
	shortest, longest, handovers := time.Hour, time.Duration(0), 0
	for id, visits := range c.visits {
		if c.dead[id] {
			continue
		}
		for n := range len(visits) - 1 {
			before, after := visits[n], visits[n+1]
			gap := after.at.Sub(before.at)
			longest = max(longest, gap)
			if gap > registry.CheckInterval*11/10+takeoverLimit {
				c.t.Errorf("%s was not checked for %v", id, gap)
			}
			if before.node == after.node {
				continue
			}
			handovers++
			shortest = min(shortest, gap)
			if gap < registry.CheckInterval*9/10 {
				c.t.Errorf("%s was checked by nodes %d and %d within %v", id, before.node, after.node, gap)
			}
		}
	}
	c.t.Logf("%d times an instance went from one node's checks to another's; between two checks were %v at least then, and %v at most ever",
		handovers, shortest, longest)
	if handovers < 500 {
		c.t.Error("so few that it proves nothing")
	}
}

// Who may not lead any more starts nothing, and what is under way comes to
// nothing.
func TestLeadershipLostDuringProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.start()
		s.announce("a", registry.LeaseChecks)
		s.join("b")
		time.Sleep(time.Minute)
		second := open(t, s.hub.Connect())
		s.mu.Lock()
		s.during = func(string) {
			s.mu.Lock()
			s.during = nil
			s.mu.Unlock()
			s.answer("a", registry.ProbeOK) // as others find it
			s.node.Disconnect()
			s.node.Reconnect()
			time.Sleep(time.Second) // it takes no notice of its context
		}
		s.answers["a"] = registry.ProbeRefused
		s.mu.Unlock()
		if !s.checker.Leading() {
			t.Fatal("nobody leads")
		}
		time.Sleep(time.Minute)
		if in, there := second.Get(key("a")); !there || in.Status != health.Healthy {
			t.Errorf("the late answer of a node that led no more made it %q", in.Status)
		}
		if !s.checker.Leading() {
			t.Error("it does not lead again")
		}
	})
}

// Nodes that do not lead follow the leases all the same.
func TestFollowersKnowHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := convene(t, 3)
		leader := c.await()
		in := instance("a", checked, func(i *registry.Instance) { i.Lease = registry.LeaseChecks })
		if _, err := c.hub.Connect().Register(t.Context(), in, registry.DefaultTTL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for n, node := range c.nodes {
			if age := time.Since(node.LastHeartbeat(in.Key())); age > 5500*time.Millisecond {
				t.Errorf("node %d knows of a heartbeat %v ago", n, age)
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, v := range c.visits["a"] {
			if v.node != leader {
				t.Errorf("node %d checks, though %d leads", v.node, leader)
			}
		}
	})
}
