package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// process is a simulated process: a connection, a registry and what it has
// registered.
type process struct {
	conn          Connection
	registry      *registry.Registry
	registrations []*registry.Registration
	severed       bool
}

// world knows which instances are alive, and answers a reaper's probes.
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

// mirror is the fleet as one watcher was told, event by event.
type mirror struct {
	mu  sync.Mutex
	has map[registry.Key]registry.Status
	bad string
}

func (m *mirror) take(e registry.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := e.Instance.Key()
	switch e.Type {
	case registry.Snapshot:
		m.has = statuses(e.Instances)
	case registry.Register:
		m.has[k] = e.Instance.Status
	case registry.StatusChange:
		if m.has[k] == "" || m.has[k] == e.Instance.Status {
			m.bad = fmt.Sprintf("%s: status-change to %s after %q", k, e.Instance.Status, m.has[k])
		}
		m.has[k] = e.Instance.Status
	case registry.Deregister:
		if m.has[k] == "" {
			m.bad = fmt.Sprintf("%s: deregister of what was not there", k)
		}
		delete(m.has, k)
	}
}

// differs says how the mirror is not the truth.
func (m *mirror) differs(truth map[registry.Key]registry.Status) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bad != "" {
		return m.bad
	}
	return differ(truth, m.has)
}

// testChurn makes a thousand random steps and then asks every watcher: each has
// to have exactly the true set.
func testChurn(t *testing.T, s Store) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	w := &world{alive: map[registry.Key]registry.Status{}}

	node := open(t, s.Connect(t))
	reaper := registry.NewReaper(node, registry.WithProber(w))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := reaper.Run(ctx); err != nil {
			t.Error(err)
		}
	})

	var all []*process
	start := func() *process {
		conn := s.Connect(t)
		p := &process{conn: conn, registry: open(t, conn)}
		all = append(all, p)
		return p
	}
	watchers := map[*registry.Registry]*mirror{}
	var observers []*process
	for range 3 {
		o := start()
		observers = append(observers, o)
		m := &mirror{}
		watchers[o.registry] = m
		wg.Go(func() {
			for e := range o.registry.Watch(ctx) {
				m.take(e)
			}
		})
	}
	var procs []*process
	for range 4 {
		procs = append(procs, start())
	}

	joined := 0
	join := func(p *process) {
		in := instance(t, fmt.Sprintf("s%d", random.IntN(5)), joined)
		joined++
		w.set(in.Key(), in.Status)
		g, err := p.registry.Register(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		p.registrations = append(p.registrations, g)
	}
	leave := func(p *process) {
		n := random.IntN(len(p.registrations))
		g := p.registrations[n]
		p.registrations = append(p.registrations[:n], p.registrations[n+1:]...)
		w.set(g.Instance().Key(), "")
		_ = g.Deregister(t.Context()) // while severed it fails: then the lease ends
	}
	status := func(p *process) {
		g := p.registrations[random.IntN(len(p.registrations))]
		to := []registry.Status{health.Healthy, health.Degraded, health.Unhealthy, health.Draining}[random.IntN(4)]
		w.set(g.Instance().Key(), to)
		_ = g.SetStatus(t.Context(), to) // while severed it fails: then it is told later
	}
	kill := func(n int) {
		p := procs[n]
		for _, g := range p.registrations {
			w.set(g.Instance().Key(), "")
		}
		p.conn.Sever() // nothing is said any more
		p.registry.Close()
		procs[n] = start()
	}
	flip := func(p *process) {
		if p.severed = !p.severed; p.severed {
			p.conn.Sever()
			return
		}
		p.conn.Mend()
	}
	for range 1000 {
		n := random.IntN(len(procs))
		p := procs[n]
		switch x := random.IntN(1000); {
		case x < 10:
			kill(n)
		case x < 25:
			flip(p)
		case x < 35:
			flip(observers[random.IntN(len(observers))])
		case x < 400 || len(p.registrations) == 0:
			join(p)
		case x < 650:
			leave(p)
		default:
			status(p)
		}
	}
	for _, p := range append(procs, observers...) {
		if p.severed {
			flip(p)
		}
	}

	truth := func() map[registry.Key]registry.Status {
		w.mu.Lock()
		defer w.mu.Unlock()
		alive := map[registry.Key]registry.Status{}
		for k, s := range w.alive {
			alive[k] = s
		}
		return alive
	}()
	for r, m := range watchers {
		eventually(t, func() string { return m.differs(truth) })
		eventually(t, func() string { return differ(truth, statuses(r.List())) })
	}
	for _, p := range procs {
		eventually(t, func() string { return differ(truth, statuses(p.registry.List())) })
		for _, g := range p.registrations {
			eventually(t, func() string {
				if err := g.Err(); err != nil {
					return err.Error()
				}
				return ""
			})
		}
	}
	_, there := watch(t, s.Connect(t))
	if d := differ(truth, statusesOf(there)); d != "" {
		t.Error("in the store: " + d)
	}
}

func statusesOf(there map[registry.Key]registry.Instance) map[registry.Key]registry.Status {
	all := map[registry.Key]registry.Status{}
	for k, in := range there {
		all[k] = in.Status
	}
	return all
}
