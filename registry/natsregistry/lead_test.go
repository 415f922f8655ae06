package natsregistry_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

// leadDeadline is how soon a lost leader has to be replaced.
const leadDeadline = 5 * time.Second

// follower campaigns in this process until resign is called.
type follower struct {
	told   chan bool
	resign func()
}

func follow(t *testing.T, s *server, opts ...natsregistry.Option) *follower {
	t.Helper()
	d, err := natsregistry.New(within(t), dial(t, s.embedded.URL(), s.embedded.Credentials()), opts...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{told: make(chan bool, 100)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for leads := range d.Lead(ctx) {
			f.told <- leads
		}
	})
	f.resign = func() { cancel(); wg.Wait() }
	t.Cleanup(f.resign)
	return f
}

// expect waits for what is said next.
func expect[T comparable](t *testing.T, who string, said <-chan T, want T) {
	t.Helper()
	select {
	case got, ok := <-said:
		if !ok || got != want {
			t.Fatalf("%s says %v, want %v", who, got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s says nothing, want %v", who, want)
	}
}

// watched waits until n campaigns watch the leadership.
func watched(t *testing.T, s *server, n int) {
	t.Helper()
	stream, err := s.node.JetStream().Stream(within(t), "KV_"+natsregistry.LeasesBucket)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "all watch", func() bool {
		info, err := stream.Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Consumers == n
	})
	if err := s.node.System().Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestLeaderKilled kills leading processes with SIGKILL and measures how long it
// takes until another one leads.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		rounds int
		opts   func(*server) []natsregistry.Option
	}{
		{"system account", 10, func(s *server) []natsregistry.Option {
			return []natsregistry.Option{natsregistry.WithSystem(s.node.System())}
		}},
		{"time to live", 3, func(*server) []natsregistry.Option { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var took []time.Duration
			for range c.rounds {
				s := startServer(t, "127.0.0.1:0")
				leader, said := run(t, s, childVariable+"=node")
				expect(t, "the child", said, "true")
				f := follow(t, s, c.opts(s)...)
				watched(t, s, 2)
				killed := time.Now()
				if err := leader.Kill(); err != nil {
					t.Fatal(err)
				}
				expect(t, "the follower", f.told, true)
				took = append(took, time.Since(killed))
				f.resign()
				s.stop(t)
			}
			slices.Sort(took)
			p50, most := took[len(took)/2], took[len(took)-1]
			t.Logf("kill -9 → another leads, %d kills: p50 %v, most %v", c.rounds, p50.Round(time.Millisecond), most.Round(time.Millisecond))
			if most > leadDeadline {
				t.Errorf("it took %v, want %v at most", most, leadDeadline)
			}
		})
	}
}

// A leader that hangs is replaced, and knows when it goes on.
func TestLeaderStopped(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	leader, said := run(t, s, childVariable+"=node")
	expect(t, "the child", said, "true")
	f := follow(t, s, natsregistry.WithSystem(s.node.System()))
	watched(t, s, 2)
	began := time.Now()
	if err := leader.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	expect(t, "the follower", f.told, true)
	took := time.Since(began)
	began = time.Now()
	if err := leader.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expect(t, "the child", said, "false")
	t.Logf("SIGSTOP → another leads after %v; SIGCONT → it knows after %v", took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if took > leadDeadline {
		t.Errorf("it took %v to replace it, want %v at most", took, leadDeadline)
	}
	f.resign()
	expect(t, "the follower", f.told, false)
	expect(t, "the child", said, "true")
}

// Somebody removes the bucket under standing connections: the leader learns it,
// and there is one again.
func TestLeaderOfRemovedBucket(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	f := follow(t, s)
	expect(t, "the leader", f.told, true)
	if err := s.node.JetStream().DeleteKeyValue(within(t), natsregistry.LeasesBucket); err != nil {
		t.Fatal(err)
	}
	expect(t, "the leader", f.told, false)
	if err := s.node.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, "the leader", f.told, true)
}

// What is no claim, and would never expire, keeps nobody from leading for long.
func TestLeaderKeyGarbage(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	kv, err := s.node.JetStream().KeyValue(within(t), natsregistry.LeasesBucket)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(value string) {
		t.Helper()
		if _, err := kv.PutString(within(t), "_leader.checks", value); err != nil {
			t.Fatal(err)
		}
	}
	spoil("garbage")
	f := follow(t, s)
	for _, value := range []string{"{}", "null"} {
		expect(t, "the leader", f.told, true)
		spoil(value)
		expect(t, "the leader", f.told, false)
	}
	expect(t, "the leader", f.told, true)
}

// Whoever follows the leases passes the leadership by without a word.
func TestLeaderIsNoLease(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	var log bytes.Buffer
	d, err := natsregistry.New(within(t), s.node.Conn(), natsregistry.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	f := follow(t, s)
	expect(t, "the leader", f.told, true)
	key := registry.Key{Service: "users", ID: "a"}
	for c, err := range d.Leases(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if c.State == registry.LeasesSynced {
			f.resign()
			if err := d.Renew(within(t), key, time.Minute); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if c.State != registry.LeaseHeld || c.Key != key {
			t.Errorf("lease change %+v", c)
		}
		break
	}
	if log.Len() != 0 {
		t.Errorf("logged: %s", &log)
	}
}

// A campaign over a connection that is closed waits, and ends with its context.
func TestLeadWithoutConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	nc := dial(t, s.embedded.URL(), s.embedded.Credentials())
	d, err := natsregistry.New(within(t), nc, natsregistry.WithSystem(nc))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var told []bool
	for leads := range d.Lead(ctx) {
		told = append(told, leads)
		nc.Close()
	}
	if ctx.Err() == nil {
		t.Error("the campaign has given up")
	}
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told %v, want true and false", told)
	}
}
