package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// churnSteps is how many joins, leaves, status changes, kills, cuts and
// reconnections testChurn makes.
const churnSteps = 1400

// churnTTL is short, for a node that begins to follow the leases can't know which
// of their holders have gone already.
const churnTTL = 5 * time.Second

// process is a simulated process: a connection, a registry and what it has
// registered.
type process struct {
	name          string
	conn          Connection
	registry      *registry.Registry
	registrations []*registry.Registration
	severed       bool
}

// world knows which instances are alive, and answers a checker's probes.
type world struct {
	mu    sync.Mutex
	alive map[registry.Key]registry.Status
}

// Probe implements [registry.Prober].
func (w *world) Probe(_ context.Context, in registry.Instance) registry.ProbeResult {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alive[in.Key()] == "" {
		return registry.ProbeRefused
	}
	return registry.ProbeOK
}

func (w *world) set(k registry.Key, s registry.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alive[k] = s; s == "" {
		delete(w.alive, k)
	}
}

// churn is a fleet in which all kinds of things happen.
type churn struct {
	t      *testing.T
	store  Store
	random *rand.Rand
	world  *world

	nodes     []*process // check the others
	observers []*process // only watch
	procs     []*process // have instances
	watchers  []*watcher
	hurry     chan struct{} // closed when slow watchers are to catch up
	calm      bool          // nobody is cut off any more

	started, joined int
	happened        []string
	counts          map[string]int
	settled         time.Duration // how long it took
}

// testChurn makes more than a thousand random steps and then asks every watcher:
// what it made of the events it was told has to be exactly the true set.
// KEELSON_SEED=n repeats the steps of a run.
func testChurn(t *testing.T, s Store) {
	seed := rand.Uint64()
	if given := os.Getenv("KEELSON_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("KEELSON_SEED: %v", err)
		}
	}
	c := &churn{
		t: t, store: s, random: rand.New(rand.NewPCG(seed, 1)),
		world: &world{alive: map[registry.Key]registry.Status{}}, hurry: make(chan struct{}), counts: map[string]int{},
	}
	defer func() {
		t.Logf("KEELSON_SEED=%d, %v, settled after %v", seed, c.counts, c.settled.Round(time.Millisecond))
		if t.Failed() {
			t.Logf("what happened: %s", strings.Join(c.happened, "; "))
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 2 {
		node := c.start("node")
		c.nodes = append(c.nodes, node)
		wg.Go(func() {
			if err := registry.NewChecker(node.registry, registry.WithProber(c.world)).Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		c.observers = append(c.observers, c.start("observer"))
	}
	for range 4 {
		c.procs = append(c.procs, c.start("process"))
	}
	for _, pace := range []pace{prompt, slow, stuck} { // these stay
		c.watch(pace)
		c.watch(pace, "s1", "s3")
	}
	for n := 0; n < churnSteps; {
		c.calm = n > churnSteps*9/10
		what, done := c.step()
		c.happened = append(c.happened, what)
		if done {
			n++
		}
	}
	c.settle()
}

func (c *churn) start(kind string) *process {
	c.t.Helper()
	c.started++
	conn := c.store.Connect(c.t)
	return &process{name: fmt.Sprintf("%s %d", kind, c.started), conn: conn, registry: open(c.t, conn, registry.WithTTL(churnTTL))}
}

// step makes one step, and reports what it was and whether it is one of the
// fleet's rather than of a watcher.
func (c *churn) step() (what string, fleet bool) {
	n := c.random.IntN(len(c.procs))
	p := c.procs[n]
	switch x := c.random.IntN(1000); {
	case x < 20:
		return c.kill(n), true
	case x < 60:
		return c.reconnect(), true
	case x < 80 && !c.calm:
		return c.sever(), true
	case x < 105:
		c.counts["watch"]++
		return c.watch([]pace{prompt, slow, stuck}[c.random.IntN(3)], c.names()...), false
	case x < 130:
		return c.unwatch(), false
	case x < 133:
		return c.loosen(), false
	case x < 450 || len(p.registrations) == 0:
		return c.join(p), true
	case x < 700:
		return c.leave(p), true
	}
	return c.status(p), true
}

func (c *churn) join(p *process) string {
	c.counts["join"]++
	in := instance(c.t, fmt.Sprintf("s%d", c.random.IntN(5)), c.joined)
	c.joined++
	c.world.set(in.Key(), in.Status)
	g, err := p.registry.Register(c.t.Context(), in)
	if err != nil {
		c.t.Fatal(err)
	}
	p.registrations = append(p.registrations, g)
	return fmt.Sprintf("%s joins on %s", in.Key(), p.name)
}

func (c *churn) leave(p *process) string {
	c.counts["leave"]++
	n := c.random.IntN(len(p.registrations))
	g := p.registrations[n]
	p.registrations = slices.Delete(p.registrations, n, n+1)
	c.world.set(g.Instance().Key(), "")
	_ = g.Deregister(c.t.Context()) // while severed it fails: then the lease ends
	return fmt.Sprintf("%s leaves", g.Instance().Key())
}

func (c *churn) status(p *process) string {
	c.counts["status"]++
	g := p.registrations[c.random.IntN(len(p.registrations))]
	to := []registry.Status{health.Healthy, health.Degraded, health.Unhealthy, health.Draining}[c.random.IntN(4)]
	c.world.set(g.Instance().Key(), to)
	_ = g.SetStatus(c.t.Context(), to) // while severed it fails: then it is told later
	return fmt.Sprintf("%s is %s", g.Instance().Key(), to)
}

// kill ends a process without a goodbye; another one starts in its place.
func (c *churn) kill(n int) string {
	c.counts["kill"]++
	p := c.procs[n]
	for _, g := range p.registrations {
		c.world.set(g.Instance().Key(), "")
	}
	p.conn.Sever() // nothing is said any more
	p.registry.Close()
	c.procs[n] = c.start("process")
	return fmt.Sprintf("%s is killed, %s starts", p.name, c.procs[n].name)
}

// sever cuts one of those that are not cut off yet.
func (c *churn) sever() string {
	among := slices.DeleteFunc(c.all(), func(p *process) bool { return p.severed })
	if len(among) == 0 {
		return "nobody is left to be severed"
	}
	c.counts["sever"]++
	p := among[c.random.IntN(len(among))]
	p.severed = true
	p.conn.Sever()
	return p.name + " is severed"
}

// reconnect lets one of those that are cut off come back.
func (c *churn) reconnect() string {
	among := slices.DeleteFunc(c.all(), func(p *process) bool { return !p.severed })
	if len(among) == 0 {
		return "nobody is severed"
	}
	c.counts["reconnect"]++
	p := among[c.random.IntN(len(among))]
	p.severed = false
	p.conn.Mend()
	return p.name + " may reconnect"
}

func (c *churn) all() []*process { return slices.Concat(c.nodes, c.observers, c.procs) }

// truth is what is alive among the named services, or all of them.
func (c *churn) truth(names []string) map[registry.Key]registry.Status {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	alive := map[registry.Key]registry.Status{}
	for k, s := range c.world.alive {
		if wanted(names, k.Service) {
			alive[k] = s
		}
	}
	return alive
}

// settle lets everything come to rest, and then compares.
func (c *churn) settle() {
	began := time.Now()
	for _, p := range c.all() {
		p.conn.Mend()
	}
	truth := c.truth(nil)
	for _, p := range c.all() {
		eventually(c.t, func() string {
			if d := differ(truth, statuses(p.registry.List())); d != "" {
				return fmt.Sprintf("in the registry of %s %s", p.name, d)
			}
			return ""
		})
		for _, g := range p.registrations {
			eventually(c.t, func() string {
				if err := g.Err(); err != nil {
					return err.Error()
				}
				return ""
			})
		}
	}
	_, there := watch(c.t, c.store.Connect(c.t))
	if d := differ(truth, statusesOf(there)); d != "" {
		c.t.Error("in the store " + d)
	}
	close(c.hurry)
	snapshots := 0
	for _, w := range c.watchers {
		eventually(c.t, func() string { return w.differs(c.truth(w.names)) })
		snapshots += w.snapshots
	}
	c.settled = time.Since(began)
	c.counts["snapshot"] = snapshots - len(c.watchers) // instead of changes
	for _, what := range []string{"join", "leave", "status", "kill", "sever", "reconnect", "watch", "unwatch"} {
		if c.counts[what] == 0 {
			c.t.Errorf("there was no %s", what)
		}
	}
}

func statusesOf(there map[registry.Key]registry.Instance) map[registry.Key]registry.Status {
	all := map[registry.Key]registry.Status{}
	for k, in := range there {
		all[k] = in.Status
	}
	return all
}
