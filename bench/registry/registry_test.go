// Package registry compares Keelson's registry with etcd as teams use it for
// the same job: a key and a lease for each instance, watched by prefix.
package registry

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
)

const (
	instances = 10_000
	services  = 100
	workers   = 16
	watchers  = 100
	// beat is how often leases are renewed, a third of a usual one of 15 s. They
	// last longer here, for the parts of the run that renew none.
	beat = 5 * time.Second
	ttl  = 10 * time.Minute
)

// store is a client of a registry, on one connection.
type store interface {
	// register writes instance i and gives it a lease of ttl.
	register(ctx context.Context, i int) error
	// renew makes the lease of instance i last ttl from now.
	renew(ctx context.Context, i int) error
	// change gives instance i the metadata n, and leaves its lease alone.
	change(ctx context.Context, i, n int) error
	// watch keeps a copy of all instances until ctx ends. It calls ready when the
	// copy is complete, and seen with the n of each change.
	watch(ctx context.Context, ready func(), seen func(n int)) error
	close()
}

// peers are what is compared. Each runs its server in a process of its own,
// whose memory and CPU time are thus the server's alone.
var peers = []struct {
	name  string
	start func() (*server, error)
	dial  func(ctx context.Context, s *server) (store, error)
}{
	{"keelson", serverOf("keelson"), dialKeelson},
	{"etcd", serverOf("etcd"), dialEtcd},
	{"etcd-nofsync", serverOf("etcd-nofsync"), dialEtcd},
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(kindVariable); kind != "" {
		if err := serve(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func record(i, n int) registry.Instance {
	in := registry.Instance{
		ID: "instance-" + strconv.Itoa(i), Name: "service-" + strconv.Itoa(i%services),
		// Nothing listens there, on loopback; while its lease lasts, nobody asks.
		Address: fmt.Sprintf("http://127.%d.%d.%d:9", 1+i>>16&127, i>>8&255, i&255),
		Version: "1.4.2", Tags: []string{"blue", "eu"}, Metadata: map[string]string{"n": strconv.Itoa(n), "team": "shop"},
		Zone: "eu-1", RegisteredAt: time.Unix(1_700_000_000, 0).UTC(),
	}
	if err := in.Normalize(); err != nil {
		panic(err)
	}
	return in
}

// BenchmarkFleet registers 10,000 instances over 16 connections, has 100 watchers
// follow them over a connection each while single instances change, and renews
// all leases every 5 s. One iteration is the whole of it; run it with
// -benchtime 1x.
func BenchmarkFleet(b *testing.B) {
	for _, p := range peers {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				began := time.Now()
				s, err := p.start()
				if err != nil {
					b.Fatal(err)
				}
				stores := make([]store, workers)
				for w := range stores {
					if stores[w], err = p.dial(b.Context(), s); err != nil {
						b.Fatal(err)
					}
					if w == 0 {
						if err := stores[0].register(b.Context(), 0); err != nil {
							b.Fatal(err)
						}
						b.ReportMetric(ms(time.Since(began)), "ms-to-first")
					}
				}
				idle := s.rss(b)
				registerAll(b, s, stores)
				b.ReportMetric(s.rss(b)-idle, "MB-over-idle")
				b.ReportMetric(idle, "MB-idle")
				heartbeats(b, s, stores)
				spread(b, s, stores[0], func() (store, error) { return p.dial(b.Context(), s) })
				for _, c := range stores {
					c.close()
				}
				if err := s.stop(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func registerAll(b *testing.B, s *server, stores []store) {
	began, cpu := time.Now(), s.cpu(b)
	each(b, stores, func(c store, i int) error { return c.register(b.Context(), i) })
	b.ReportMetric(instances/time.Since(began).Seconds(), "registered/s")
	b.ReportMetric(float64((s.cpu(b)-cpu).Microseconds())/instances, "server-us/register")
}

// each calls f for all instances, shared out over the stores.
func each(b *testing.B, stores []store, f func(c store, i int) error) {
	b.Helper()
	var wg sync.WaitGroup
	for w, c := range stores {
		wg.Go(func() {
			for i := w; i < instances; i += len(stores) {
				if err := f(c, i); err != nil {
					b.Errorf("instance %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// heartbeats renews every lease in each beat, for two of them, evenly spread.
func heartbeats(b *testing.B, s *server, stores []store) {
	const rounds = 2
	gap := beat * time.Duration(len(stores)) / instances // of one worker
	began, cpu := time.Now(), s.cpu(b)
	for range rounds {
		round := time.Now()
		var turns [workers]int
		each(b, stores, func(c store, i int) error {
			w := i % len(stores)
			time.Sleep(time.Until(round.Add(time.Duration(turns[w]) * gap)))
			turns[w]++
			return c.renew(b.Context(), i)
		})
	}
	took := time.Since(began)
	b.ReportMetric((s.cpu(b)-cpu).Seconds()/took.Seconds(), "cores-heartbeats")
	b.ReportMetric(rounds*instances/took.Seconds(), "heartbeats/s")
}

// spread measures how long a change takes to reach the last of all watchers.
func spread(b *testing.B, s *server, by store, dial func() (store, error)) {
	const changes = 200
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var ready sync.WaitGroup
	var seen [changes + 1]atomic.Int32
	done := make(chan int, changes)
	began := time.Now()
	for range watchers {
		ready.Add(1)
		wg.Go(func() {
			c, err := dial()
			if err != nil {
				b.Error(err)
				ready.Done()
				return
			}
			defer c.close()
			err = c.watch(ctx, ready.Done, func(n int) {
				if n > 0 && n <= changes && seen[n].Add(1) == watchers {
					done <- n
				}
			})
			if err != nil && ctx.Err() == nil {
				b.Error(err)
			}
		})
	}
	ready.Wait()
	if b.Failed() {
		return
	}
	b.ReportMetric(ms(time.Since(began)), "ms-100-watchers-ready")
	took := make([]time.Duration, 0, changes)
	cpu := s.cpu(b)
	for n := 1; n <= changes; n++ {
		begin := time.Now()
		if err := by.change(ctx, n*workers, n); err != nil { // what the first store has registered
			b.Error(err)
			return
		}
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			b.Errorf("change %d was seen by %d of %d watchers", n, seen[n].Load(), watchers)
			return
		}
		took = append(took, time.Since(begin))
		time.Sleep(5 * time.Millisecond) // single changes, not a burst
	}
	slices.Sort(took)
	b.ReportMetric(ms(took[changes/2]), "ms-seen-p50")
	b.ReportMetric(ms(took[changes*99/100]), "ms-seen-p99")
	b.ReportMetric(float64((s.cpu(b)-cpu).Microseconds())/changes, "server-us/change")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
