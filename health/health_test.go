package health_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/health"
	"pgregory.net/rapid"
)

var errDown = errors.New("connection refused")

func pass(context.Context) error { return nil }
func fail(context.Context) error { return errDown }

// run runs h until the test or bubble is over.
func run(t *testing.T, h *health.Health) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func add(t *testing.T, h *health.Health, name string, c health.Check, opts ...health.CheckOption) {
	t.Helper()
	if err := h.Add(name, c, opts...); err != nil {
		t.Fatal(err)
	}
}

func TestServing(t *testing.T) {
	t.Parallel()
	for s, want := range map[health.Status]bool{
		health.Starting: false, health.Healthy: true, health.Degraded: true, health.Unhealthy: false,
		health.Draining: false, health.Unknown: false, "": false,
	} {
		if s.Serving() != want {
			t.Errorf("%q.Serving() = %v", s, !want)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	add(t, h, "database", pass)
	h.Set("registration", nil, false)
	tests := []struct {
		name, check string
		c           health.Check
		opts        []health.CheckOption
		says        string
	}{
		{"no name", "", pass, nil, "empty"},
		{"no check", "a", nil, nil, "nil"},
		{"no time", "a", pass, []health.CheckOption{health.Timeout(0)}, "Timeout is 0s"},
		{"no pause", "a", pass, []health.CheckOption{health.Interval(-1)}, "Interval is -1ns"},
		{"taken by a check", "database", pass, nil, "taken"},
		{"taken by a condition", "registration", pass, nil, "taken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := h.Add(tt.check, tt.c, tt.opts...)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("err = %v, want one with %q", err, tt.says)
			}
			if errors.Is(err, health.ErrDuplicate) != (tt.says == "taken") {
				t.Errorf("ErrDuplicate: %v", err)
			}
		})
	}
	if n := len(h.Report().Dependencies); n != 2 {
		t.Errorf("%d dependencies, want 2", n)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	type dep struct {
		err      error
		critical bool
	}
	tests := []struct {
		name           string
		deps           []dep
		started, drain bool
		dead           bool
		want           health.Status
	}{
		{name: "nothing said", want: health.Starting},
		{name: "started without checks", started: true, want: health.Healthy},
		{name: "passed but not started", deps: []dep{{nil, true}}, want: health.Starting},
		{name: "all pass", deps: []dep{{nil, true}, {nil, false}}, started: true, want: health.Healthy},
		{name: "critical never passed", deps: []dep{{errDown, true}}, started: true, want: health.Starting},
		{name: "not critical fails", deps: []dep{{nil, true}, {errDown, false}}, started: true, want: health.Degraded},
		{name: "draining wins over starting", drain: true, want: health.Draining},
		{name: "draining wins over all", deps: []dep{{errDown, false}}, started: true, drain: true, dead: true, want: health.Draining},
		{name: "dead", started: true, dead: true, want: health.Unhealthy},
		{name: "dead before it started", dead: true, want: health.Unhealthy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := health.New("1")
				for i, d := range tt.deps {
					opts := []health.CheckOption{}
					if d.critical {
						opts = append(opts, health.Critical())
					}
					add(t, h, fmt.Sprint("d", i), func(context.Context) error { return d.err }, opts...)
				}
				run(t, h)
				synctest.Wait()
				if tt.started {
					h.Started()
				}
				if tt.drain {
					h.Drain()
				}
				if tt.dead {
					h.Dead(nil)
				}
				if got := h.Status(); got != tt.want || h.Report().Status != tt.want {
					t.Errorf("Status = %s, in the report %s, want %s", got, h.Report().Status, tt.want)
				}
			})
		})
	}
}

// Once out of Starting it never goes back, and it follows each check up and down.
func TestStatusOverTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		var got []string
		h.OnChange(func(from, to health.Status) { got = append(got, string(from)+">"+string(to)) })
		h.Started()
		h.Set("cache", errDown, false)
		h.Set("cache", errDown, true) // now it matters
		h.Set("cache", nil, true)
		h.Set("cache", nil, true) // no change, no call
		add(t, h, "late", pass, health.Critical())
		synctest.Wait() // Run is not under way: the late check is unknown and does not count
		if s := h.Report().Dependencies["late"].Status; s != health.Unknown {
			t.Errorf("late check is %s before Run", s)
		}
		h.Set("late", errDown, false) // a check keeps its own weight
		run(t, h)
		synctest.Wait()
		h.Drain()
		h.Set("cache", errDown, true)
		h.Drain()
		want := []string{"starting>healthy", "healthy>degraded", "degraded>unhealthy", "unhealthy>healthy",
			"healthy>unhealthy", "unhealthy>healthy", "healthy>draining"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestWaitReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1")
		begin := time.Now()
		add(t, h, "database", func(context.Context) error {
			if time.Since(begin) < 3*time.Second {
				return errDown
			}
			return nil
		}, health.Critical())
		add(t, h, "mail", fail)
		add(t, h, "slow", func(context.Context) error { time.Sleep(time.Second); return nil })
		h.Set("registration", errDown, true) // conditions are not waited for
		run(t, h)

		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		err := h.WaitReady(ctx)
		if !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "waiting for database (connection refused), slow:") {
			t.Errorf("err = %v", err)
		}
		var waits sync.WaitGroup
		for range 3 {
			waits.Go(func() {
				if err := h.WaitReady(t.Context()); err != nil {
					t.Error(err)
				}
				// Retries after 0.25, 0.5, 1, 2 s (±10 %) bring it in well before the interval of 30 s.
				if d := time.Since(begin); d < 3*time.Second || d > 5*time.Second {
					t.Errorf("ready after %v", d)
				}
			})
		}
		waits.Wait()
		if err := h.WaitReady(t.Context()); err != nil {
			t.Errorf("when ready: %v", err)
		}
	})
}

func TestOnChangeListenerMayAskAndChange(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	var got []string
	h.OnChange(func(from, to health.Status) {
		got = append(got, fmt.Sprintf("a:%s>%s,%s", from, to, h.Status()))
		if to == health.Healthy {
			h.Drain() // told after this one, to all
			h.OnChange(func(from, to health.Status) { got = append(got, fmt.Sprintf("c:%s>%s", from, to)) })
			_ = h.Report()
		}
	})
	h.OnChange(func(from, to health.Status) { got = append(got, fmt.Sprintf("b:%s>%s", from, to)) })
	h.Started()
	// c was registered after the change to draining was made.
	want := []string{"a:starting>healthy,healthy", "b:starting>healthy", "a:healthy>draining,draining", "b:healthy>draining"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOnChangeAfterAListenerPanicked(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	calls := 0
	h.OnChange(func(_, to health.Status) {
		calls++
		if calls == 1 {
			panic("boom")
		}
	})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		h.Started()
	}()
	h.Drain()
	if calls != 2 {
		t.Errorf("%d calls, want 2: listeners went deaf", calls)
	}
}

// Whoever makes the changes: what a listener hears is one unbroken chain, never
// two at once, and it ends with the present status.
func TestOnChangeOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := health.New("1")
		type step struct{ from, to health.Status }
		var heard []step
		h.OnChange(func(from, to health.Status) { heard = append(heard, step{from, to}) }) // -race sees overlaps
		h.Started()
		scripts := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 3), 1, 20), 2, 4).Draw(t, "scripts")
		var writers sync.WaitGroup
		for i, script := range scripts {
			writers.Go(func() {
				for _, n := range script {
					var err error
					if n&1 != 0 {
						err = errDown
					}
					h.Set(fmt.Sprint("c", i), err, n&2 != 0)
				}
			})
		}
		writers.Wait()
		h.Drain()
		at := health.Starting
		for i, s := range heard {
			if s.from != at || s.to == at {
				t.Fatalf("broken at %d: %v", i, heard)
			}
			at = s.to
		}
		if at != health.Draining {
			t.Fatalf("ends with %s", at)
		}
	})
}

func TestRunTwice(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Errorf("Run with a context that is over: %v", err)
	}
	if err := h.Run(t.Context()); !errors.Is(err, health.ErrRan) {
		t.Errorf("the second Run: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1", health.Defaults(health.Interval(time.Minute), health.Critical()))
		var mu sync.Mutex
		var seldom, often []time.Duration
		begin := time.Now()
		note := func(to *[]time.Duration) health.Check {
			return func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				*to = append(*to, time.Since(begin))
				return nil
			}
		}
		add(t, h, "seldom", note(&seldom))
		add(t, h, "often", note(&often), health.Interval(10*time.Second))
		run(t, h)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for name, c := range map[string]struct {
			at       []time.Duration
			interval time.Duration
		}{"seldom": {seldom, time.Minute}, "often": {often, 10 * time.Second}} {
			if len(c.at) < 5 || c.at[0] != 0 {
				t.Fatalf("%s ran at %v, want at once and again", name, c.at)
			}
			varied := false
			for pair := range slices.Chunk(c.at[:len(c.at)/2*2], 2) {
				pause := pair[1] - pair[0]
				varied = varied || pause != c.interval
				if pause < c.interval*9/10 || pause > c.interval*11/10 {
					t.Errorf("%s: a pause of %v", name, pause)
				}
			}
			if !varied {
				t.Errorf("%s: no jitter", name)
			}
		}
		if !h.Report().Dependencies["often"].Critical {
			t.Error("the default Critical got lost")
		}
	})
}
