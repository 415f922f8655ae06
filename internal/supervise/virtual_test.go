//go:build unix

package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/internal/process"
)

// scene is a supervisor over processes that exist in virtual time only.
type scene struct {
	s      *Supervisor
	behave map[string]func(*fakeProcess) // by instance, at each start
	began  time.Time

	mu     sync.Mutex
	events []string
	starts map[string]int
}

// fakeProcess ends when its behaviour lets it.
type fakeProcess struct {
	start    int // 1 for the first one of its instance
	emit     func(Stream, string)
	onTerm   func() // default: end with status 0
	once     sync.Once
	ended    chan struct{}
	how      Exit
	instance string
}

func (p *fakeProcess) id() process.ID        { return process.ID{PID: 100 + p.start, Start: p.instance} }
func (p *fakeProcess) done() <-chan struct{} { return p.ended }
func (p *fakeProcess) exit() Exit            { return p.how }
func (p *fakeProcess) kill()                 { p.end(Exit{Code: -1, Signal: syscall.SIGKILL}) }
func (p *fakeProcess) terminate()            { p.onTerm() }
func (p *fakeProcess) end(e Exit)            { p.once.Do(func() { p.how = e; close(p.ended) }) }

// endAfter makes the process end with status code d after its start.
func (p *fakeProcess) endAfter(d time.Duration, code int) {
	time.AfterFunc(d, func() { p.end(Exit{Code: code}) })
}

func (sc *scene) start(c Child, emit func(Stream, string)) (running, error) {
	sc.mu.Lock()
	sc.starts[c.Instance]++
	n := sc.starts[c.Instance]
	sc.mu.Unlock()
	if c.Command[0] == "missing" {
		return nil, errors.New("exec: no such file")
	}
	p := &fakeProcess{start: n, emit: emit, ended: make(chan struct{}), instance: c.Instance}
	p.onTerm = func() { p.end(Exit{}) }
	if f := sc.behave[c.Instance]; f != nil {
		f(p)
	}
	return p, nil
}

func (sc *scene) close() { sc.note("all gone") }

func (sc *scene) note(what string) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.events = append(sc.events, what)
}

func (sc *scene) saw(what string) int {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return slices.Index(sc.events, what)
}

func (sc *scene) since() time.Duration { return time.Since(sc.began) }

// newScene makes children from lines "instance: dependency dependency".
func newScene(t *testing.T, children ...string) *scene {
	t.Helper()
	sc := &scene{behave: map[string]func(*fakeProcess){}, starts: map[string]int{}, began: time.Now()}
	cfg := Config{OnState: func(st Status) { sc.note(st.Instance + " " + string(st.State)) }}
	for _, line := range children {
		name, needs, _ := strings.Cut(line, ":")
		cfg.Children = append(cfg.Children, Child{
			Name: name, Instance: name, Command: []string{name}, DependsOn: strings.Fields(needs),
			Healthy: func(context.Context) error { return nil },
		})
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.open = func() (host, error) { return sc, nil }
	sc.s = s
	return sc
}

// run runs the scene until the function during returns.
func (sc *scene) run(t *testing.T, during func()) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- sc.s.Run(ctx, func() { sc.note("ready") }) }()
	during()
	cancel()
	return <-result
}

func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "web: api", "api: db mail", "db", "mail")
		for _, name := range []string{"web", "api", "db", "mail"} { // a stop takes a while
			sc.behave[name] = func(p *fakeProcess) {
				p.onTerm = func() { p.endAfter(time.Second, 0) }
			}
		}
		if err := sc.run(t, func() { time.Sleep(time.Second) }); err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]string{
			{"db healthy", "api starting"}, {"mail healthy", "api starting"}, {"api healthy", "web starting"},
			{"web healthy", "ready"}, {"ready", "web stopped"},
			{"web stopped", "api stopped"}, {"api stopped", "db stopped"}, {"api stopped", "mail stopped"},
			{"db stopped", "all gone"},
		} {
			first, second := sc.saw(pair[0]), sc.saw(pair[1])
			if first < 0 || second < first {
				t.Errorf("%q (%d) does not come before %q (%d)", pair[0], first, pair[1], second)
			}
		}
		if got := sc.since(); got != 4*time.Second { // db and mail at the same time
			t.Errorf("took %s, want 1s and three stops of 1s", got)
		}
	})
}

func TestCrashesAreRestartedWithBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		var started []time.Duration
		sc.behave["a"] = func(p *fakeProcess) {
			started = append(started, sc.since())
			life := time.Second
			if p.start == 4 {
				life = 2 * time.Minute
			}
			p.endAfter(life, 1)
		}
		if err := sc.run(t, func() { time.Sleep(150 * time.Second) }); err != nil {
			t.Fatal(err)
		}
		want := []float64{0.5, 1, 2, 0.5, 1} // seconds of delay before the second start, the third …
		for i, w := range want {
			life := time.Second
			if i == 3 {
				life = 2 * time.Minute
			}
			got := (started[i+1] - started[i] - life).Seconds()
			if got < w*0.79 || got > w*1.21 {
				t.Errorf("delay %d was %.2fs, want %.1fs ± 20 %%", i+1, got, w)
			}
		}
		if st := sc.s.List()[0]; st.Restarts < 5 || st.State != Stopped {
			t.Errorf("status %+v", st)
		}
	})
}

func TestEndBeforeHealthyStopsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a", "bad: a")
		sc.s.children[1].spec.Healthy = func(context.Context) error { return errors.New("connection refused") }
		sc.behave["bad"] = func(p *fakeProcess) {
			for i := range 30 {
				p.emit(Stderr, fmt.Sprint("line ", i))
			}
			p.endAfter(time.Second, 6)
		}
		err := sc.s.Run(t.Context(), func() { t.Error("ready") })
		start, ok := errors.AsType[*StartError](err)
		if !ok {
			t.Fatalf("error %v, want a StartError", err)
		}
		if start.Instance != "bad" || !start.Ended || start.Exit.Code != 6 || len(start.Lines) != 20 || start.Lines[19] != "line 29" {
			t.Errorf("%+v", start)
		}
		if want := "bad (bad) did not start: it ended before it was healthy, with exit status 6: connection refused"; err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
		if sc.saw("a stopped") < 0 || sc.starts["bad"] != 1 {
			t.Errorf("the other was not stopped, or the bad one tried again: %q", sc.events)
		}
	})
}

func TestStartDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a", "slow")
		sc.s.children[1].spec.Healthy = func(ctx context.Context) error {
			<-ctx.Done() // a service that accepts and never answers
			return ctx.Err()
		}
		err := sc.s.Run(t.Context(), nil)
		start, ok := errors.AsType[*StartError](err)
		if !ok || start.Instance != "slow" || start.After != DefaultStartTimeout || start.Ended {
			t.Fatalf("error %v", err)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v does not say what the last check said", err)
		}
		if got := sc.since(); got != DefaultStartTimeout {
			t.Errorf("after %s, want %s", got, DefaultStartTimeout)
		}
	})
}

func TestRestartedButNeverHealthyAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		var n int
		sc.behave["a"] = func(p *fakeProcess) {
			n = p.start
			if n == 1 {
				p.endAfter(time.Second, 1)
			}
		}
		sc.s.children[0].spec.Healthy = func(context.Context) error {
			if n == 2 {
				return errors.New("hung")
			}
			return nil
		}
		err := sc.run(t, func() {
			time.Sleep(32 * time.Second)
			if st := sc.s.List()[0]; st.State != Restarting || st.Err == nil || !strings.Contains(st.Err.Error(), "hung") {
				t.Errorf("after 32 s %+v, want it to say why it is started again", st)
			}
			time.Sleep(8 * time.Second)
			if st := sc.s.List()[0]; st.State != Healthy || st.Restarts != 2 {
				t.Errorf("after 40 s %+v, want healthy again by the third start", st)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestStubbornIsKilledAfterGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a", "stubborn: a")
		sc.behave["stubborn"] = func(p *fakeProcess) { p.onTerm = func() {} }
		err := sc.run(t, func() { time.Sleep(time.Second) })
		stop, ok := errors.AsType[*StopError](err)
		if !ok || !errors.Is(err, ErrKilled) || !slices.Equal(stop.Instances, []string{"stubborn"}) || stop.Grace != DefaultGrace {
			t.Errorf("error %#v", err)
		}
		if got := sc.since(); got != time.Second+DefaultGrace {
			t.Errorf("took %s", got)
		}
		if exit := sc.s.List()[1].Exit; exit == nil || exit.Signal != syscall.SIGKILL {
			t.Errorf("exit %v", exit)
		}
	})
}

// A child that was killed because it hung after a restart is no fault of the
// stop that comes later.
func TestKilledInARestartIsNoLateStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		n := 0
		sc.behave["a"] = func(p *fakeProcess) {
			switch n = p.start; n {
			case 1:
				p.endAfter(time.Second, 1)
			case 2:
				p.onTerm = func() {}
			}
		}
		sc.s.children[0].spec.Healthy = func(context.Context) error {
			if n == 2 {
				return errors.New("hung")
			}
			return nil
		}
		err := sc.run(t, func() {
			time.Sleep(time.Minute)
			if st := sc.s.List()[0]; st.State != Healthy || st.Restarts != 2 {
				t.Errorf("after a minute %+v, want healthy again by the third start", st)
			}
		})
		if err != nil {
			t.Errorf("a clean stop failed: %v", err)
		}
	})
}

func TestKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a", "b: a", "c: b")
		for _, name := range []string{"a", "b", "c"} {
			sc.behave[name] = func(p *fakeProcess) { p.onTerm = func() {} }
		}
		err := sc.run(t, func() {
			time.Sleep(time.Second)
			sc.s.Kill()
			sc.s.Kill()
		})
		if stop, ok := errors.AsType[*StopError](err); !ok || len(stop.Instances) != 3 {
			t.Errorf("error %v, want all three killed", err)
		}
		if got := sc.since(); got != time.Second {
			t.Errorf("took %s, want no wait", got)
		}
	})
}

func TestStopWhileNotRunning(t *testing.T) {
	t.Parallel()
	tests := map[string]func(sc *scene){
		"building": func(sc *scene) {
			sc.s.children[0].spec.Build = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		},
		"waiting for a dependency": func(sc *scene) {
			sc.s.children[1].spec.Healthy = func(context.Context) error { return errors.New("not yet") }
		},
		"waiting for a restart": func(sc *scene) {
			sc.behave["a"] = func(p *fakeProcess) { p.endAfter(10*time.Second-100*time.Millisecond, 1) }
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				sc := newScene(t, "a: b", "b")
				prepare(sc)
				if err := sc.run(t, func() { time.Sleep(10 * time.Second) }); err != nil {
					t.Error(err)
				}
				if got := sc.since(); got != 10*time.Second {
					t.Errorf("the stop took %s", got-10*time.Second)
				}
			})
		})
	}
}

func TestFailureToBuildOrStart(t *testing.T) {
	t.Parallel()
	boom := errors.New("main.go:3: boom")
	tests := map[string]struct {
		prepare func(c *Child)
		says    string
	}{
		"build": {func(c *Child) { c.Build = func(context.Context) error { return boom } }, "build: main.go:3: boom"},
		"start": {func(c *Child) { c.Command = []string{"missing"} }, "no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				sc := newScene(t, "a", "b")
				tt.prepare(&sc.s.children[1].spec)
				err := sc.s.Run(t.Context(), nil)
				if start, ok := errors.AsType[*StartError](err); !ok || start.Instance != "b" || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want a StartError with %q", err, tt.says)
				}
			})
		})
	}
}

// A callback may ask for everything: it is called outside locks.
func TestCallbacksMayCallBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		var s *Supervisor
		calls := 0
		sc.s.cfg.OnState = func(st Status) {
			calls++
			if got := s.List()[0]; got.State != st.State {
				t.Errorf("List says %s in the callback for %s", got.State, st.State)
			}
			_ = s.Lines("a")
			if st.State == Healthy {
				s.Kill()
			}
		}
		sc.s.cfg.OnLine = func(Line) { calls++; _ = s.Lines("a") }
		sc.behave["a"] = func(p *fakeProcess) { p.emit(Stdout, "hello") }
		s = sc.s
		_ = s.Run(t.Context(), nil)
		if calls != 6 { // building, the line, starting, healthy, stopping, stopped
			t.Errorf("%d calls, want 6", calls)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	ok := func(name string, needs ...string) Child {
		return Child{Name: name, Instance: name, Command: []string{"x"}, DependsOn: needs, Healthy: func(context.Context) error { return nil }}
	}
	tests := []struct {
		says     string
		children []Child
	}{
		{"child 0 has no name", []Child{{}}},
		{"empty or there twice", []Child{ok("a"), ok("a")}},
		{"no command", []Child{{Name: "a", Instance: "a"}}},
		{"no Healthy function", []Child{{Name: "a", Instance: "a", Command: []string{"x"}}}},
		{`depends on "b", which is no child`, []Child{ok("a", "b")}},
		{"ring: a → a", []Child{ok("a", "a")}},
		{"ring: b → c → b", []Child{ok("a", "b"), ok("b", "c"), ok("c", "b")}},
	}
	for _, tt := range tests {
		if _, err := New(Config{Children: tt.children}); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("error %v, want %q", err, tt.says)
		}
	}
	s, err := New(Config{Children: []Child{ok("a"), ok("b", "a"), ok("c", "a", "b")}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]State{Building, Building, Building}, []State{s.List()[0].State, s.List()[1].State, s.List()[2].State}); diff != "" {
		t.Error(diff)
	}
	if s.Lines("nobody") != nil {
		t.Error("lines of nobody")
	}
}

func TestRunTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t)
		if err := sc.run(t, func() {}); err != nil {
			t.Fatal(err)
		}
		if err := sc.s.Run(t.Context(), nil); err == nil {
			t.Error("a second Run is let through")
		}
	})
}
