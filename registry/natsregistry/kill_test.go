package natsregistry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

const (
	killWatchers    = 100
	killConnections = 10
	killGoal        = 50 * time.Millisecond // p99; reported
	killDeadline    = 5 * time.Second       // asserted
)

// TestKill kills processes with SIGKILL and measures how long it takes until
// they are out of every watcher's snapshot.
func TestKill(t *testing.T) {
	kills := 10
	if os.Getenv("KEELSON_SOAK") == "1" {
		kills = 50
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	runNode(t, s)

	type sighting struct {
		id string
		at time.Time
	}
	out := make(chan sighting, killWatchers)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	var watchers []*registry.Registry
	for n := range killWatchers {
		if n%(killWatchers/killConnections) == 0 {
			nc := dial(t, s.embedded.URL(), s.embedded.Credentials())
			d, err := natsregistry.New(within(t), nc)
			if err != nil {
				t.Fatal(err)
			}
			for range killWatchers / killConnections {
				r := registry.Open(context.Background(), d)
				t.Cleanup(r.Close)
				watchers = append(watchers, r)
			}
		}
		r := watchers[n]
		wg.Go(func() {
			for e := range r.Watch(ctx, "users") {
				if e.Type != registry.Deregister {
					continue
				}
				select {
				case out <- sighting{e.Instance.ID, time.Now()}:
				case <-ctx.Done():
				}
			}
		})
	}

	type running struct {
		id      string
		process *os.Process
	}
	started := 0
	next := func() running {
		started++
		id := fmt.Sprintf("victim-%d", started)
		return running{id, spawn(t, s, id, registry.DefaultTTL)}
	}
	alive := []running{next(), next(), next()}
	var took []time.Duration
	for range kills {
		n := random.IntN(len(alive))
		victim := alive[n]
		for _, r := range watchers {
			until(t, "every watcher has "+victim.id, func() bool { return status(r, victim.id) == health.Healthy })
		}
		killed := time.Now()
		if err := victim.process.Kill(); err != nil {
			t.Fatal(err)
		}
		late := time.After(killDeadline)
		for seen := range killWatchers {
			select {
			case o := <-out:
				if o.id != victim.id {
					t.Fatalf("%s was taken out, but %s was killed", o.id, victim.id)
				}
				took = append(took, o.at.Sub(killed))
			case <-late:
				t.Fatalf("only %d of %d watchers have lost %s within %v (seed %d)", seen, killWatchers, victim.id, killDeadline, seed)
			}
		}
		alive[n] = next()
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	verdict := "met"
	if p99 > killGoal {
		verdict = "missed"
	}
	t.Logf("kill -9 → out of %d watchers' snapshots, %d kills, seed %d: p50 %v, p99 %v, most %v; goal of %v at p99 %s",
		killWatchers, kills, seed, p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond),
		took[len(took)-1].Round(10*time.Microsecond), killGoal, verdict)
}

// A process whose connection is cut, but which serves, stays in rotation.
func TestCutButAlive(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	node, checker := runNode(t, s)
	var probes atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(registry.InstanceHeader, "alive")
		probes.Add(1)
	}))
	t.Cleanup(web.Close)

	c := &cable{}
	d, err := natsregistry.New(within(t), dial(t, s.embedded.URL(), s.embedded.Credentials(), nats.SetCustomDialer(c)))
	if err != nil {
		t.Fatal(err)
	}
	r := registry.Open(context.Background(), d)
	t.Cleanup(r.Close)
	g, err := r.Register(within(t), registry.Instance{Name: "users", ID: "alive", Address: web.URL, Health: "/health"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the node has it", func() bool { return status(node, "alive") == health.Healthy })

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range node.Watch(ctx) {
			if e.Type == registry.Deregister || e.Type == registry.StatusChange {
				t.Errorf("%s %s %s though it answers", e.Type, e.Instance.ID, e.Instance.Status)
			}
		}
	})
	for range 3 {
		before, cut := probes.Load(), time.Now()
		c.sever()
		until(t, "it is probed", func() bool { return probes.Load() > before })
		until(t, "it notices", func() bool { return r.Err() != nil })
		c.mend()
		until(t, "it is back", func() bool {
			return r.Err() == nil && g.Err() == nil && checker.LastHeartbeat(g.Instance().Key()).After(cut)
		})
	}
	cancel()
	wg.Wait()
	if status(node, "alive") != health.Healthy {
		t.Error("it is out of rotation")
	}
}

// A process that hangs loses its lease and fails its probes: out. When it goes
// on it comes back.
func TestStopped(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	node, _ := runNode(t, s)
	p := spawn(t, s, "sleeper", time.Second)
	until(t, "the node has it", func() bool { return node.Endpoints("users").Len() == 1 })
	began := time.Now()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "it is out of rotation", func() bool { return node.Endpoints("users").Len() == 0 })
	t.Logf("SIGSTOP → out of rotation after %v (lease of 1 s, two probes of %v)", time.Since(began).Round(time.Millisecond), registry.ProbeTimeout)
	if got := status(node, "sleeper"); got != health.Unhealthy {
		t.Errorf("status %q, want unhealthy: nobody has confirmed that it is gone", got)
	}
	began = time.Now()
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "it is in rotation again", func() bool { return node.Endpoints("users").Len() == 1 })
	t.Logf("SIGCONT → in rotation again after %v", time.Since(began).Round(time.Millisecond))
}
