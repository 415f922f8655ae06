package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/lifecycle"
)

var (
	errBroken = errors.New("broken")
	errFlush  = errors.New("flush failed")
)

// journal notes what happens, in order, with the seconds since it was made.
type journal struct {
	mu    sync.Mutex
	began time.Time
	lines []string
}

func newJournal() *journal { return &journal{began: time.Now()} }

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf("%g ", time.Since(j.began).Seconds())+fmt.Sprintf(format, args...))
}

func (j *journal) check(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if diff := cmp.Diff(want, j.lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// component takes start to become ready and stop to stop, then returns err.
func (j *journal) component(name string, start, stop time.Duration, err error) (string, func(context.Context, func()) error) {
	return name, func(ctx context.Context, ready func()) error {
		j.note("%s up", name)
		time.Sleep(start)
		ready()
		<-ctx.Done()
		j.note("%s told", name)
		time.Sleep(stop)
		j.note("%s down", name)
		return err
	}
}

func (j *journal) hook(name string, took time.Duration, err error) (string, time.Duration, func(context.Context) error) {
	return name, 0, func(context.Context) error {
		time.Sleep(took)
		j.note("%s done", name)
		return err
	}
}

// failing becomes ready after start (never if negative), and returns err after life.
func (j *journal) failing(name string, start, life time.Duration, err error) (string, func(context.Context, func()) error) {
	return name, func(_ context.Context, ready func()) error {
		if start >= 0 {
			time.Sleep(start)
			ready()
		}
		time.Sleep(life)
		j.note("%s fails", name)
		return err
	}
}

func checkError(t *testing.T, err error, want string, is ...error) {
	t.Helper()
	if got := fmt.Sprint(err); got != want {
		t.Errorf("error\n%s\nwant\n%s", got, want)
	}
	for _, target := range is {
		if !errors.Is(err, target) {
			t.Errorf("the error is not a %q", target)
		}
	}
}

// bubble is a parallel test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func timeout(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, g := newJournal(), lifecycle.New()
		g.OnStop(j.hook("flush", time.Second, nil))
		g.Add(j.component("a", 2*time.Second, time.Second, nil))
		g.Add(j.component("b", 3*time.Second, 2*time.Second, context.Canceled))
		g.OnStop(j.hook("settle", time.Second, nil))
		g.OnStop(j.hook("deregister", 0, nil))
		checkError(t, g.Run(timeout(t, 10*time.Second)), "<nil>")
		j.check(t, "0 a up", "2 b up", "10 deregister done", "11 settle done", "11 b told", "13 b down",
			"13 a told", "14 a down", "15 flush done")
	})
}

func TestNothingToRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		checkError(t, lifecycle.New().Run(timeout(t, time.Second)), "<nil>")
	})
}

func TestEndsBeforeItStarts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, g := newJournal(), lifecycle.New()
		g.Add(j.component("a", 0, 0, nil))
		g.OnStop(j.hook("h", 0, nil))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		checkError(t, g.Run(ctx), "<nil>")
		j.check(t)
	})
}

func TestEndsWhileStarting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, g := newJournal(), lifecycle.New()
		g.Add(j.component("a", 0, 0, nil))
		g.Add("b", func(ctx context.Context, _ func()) error { <-ctx.Done(); j.note("b down"); return ctx.Err() })
		g.OnStop(j.hook("h", 0, nil))
		g.Add(j.component("c", 0, 0, nil))
		checkError(t, g.Run(timeout(t, time.Second)), "<nil>")
		j.check(t, "0 a up", "1 b down", "1 a told", "1 a down")
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		build func(j *journal, g *lifecycle.Group)
		error string
		is    []error
		lines []string
	}{
		{"one fails to start", func(j *journal, g *lifecycle.Group) {
			g.Add(j.component("a", 0, time.Second, nil))
			g.OnStop(j.hook("h", 0, nil))
			g.Add(j.component("b", 0, 0, nil))
			g.Add(j.failing("c", -1, time.Second, errBroken))
			g.OnStop(j.hook("beyond", 0, nil))
			g.Add(j.component("d", 0, 0, nil))
		}, "start c: broken", []error{errBroken},
			[]string{"0 a up", "0 b up", "1 c fails", "1 b told", "1 b down", "1 h done", "1 a told", "2 a down"}},
		{"one fails while another starts", func(j *journal, g *lifecycle.Group) {
			g.Add(j.failing("a", 0, time.Second, errBroken))
			g.Add(j.component("b", 5*time.Second, 0, nil))
			g.Add(j.component("c", 0, 0, nil))
		}, "a: broken", []error{errBroken}, []string{"0 b up", "1 a fails", "5 b told", "5 b down"}},
		{"one fails later", func(j *journal, g *lifecycle.Group) {
			g.Add(j.component("a", 0, 0, nil))
			g.Add(j.failing("b", 0, time.Minute, fmt.Errorf("accept: %w", errBroken)))
			g.Add(j.component("c", 0, 0, nil))
		}, "b: accept: broken", []error{errBroken},
			[]string{"0 a up", "0 c up", "60 b fails", "60 c told", "60 c down", "60 a told", "60 a down"}},
		{"one returns without an error", func(j *journal, g *lifecycle.Group) {
			g.Add(j.component("a", 0, 0, nil))
			g.Add(j.failing("b", 0, time.Second, nil))
		}, "b: returned before it was told to stop", []error{lifecycle.ErrReturned},
			[]string{"0 a up", "1 b fails", "1 a told", "1 a down"}},
		{"one returns without being ready", func(j *journal, g *lifecycle.Group) {
			g.Add(j.failing("b", -1, 0, nil))
		}, "start b: returned before it was told to stop", []error{lifecycle.ErrReturned}, []string{"0 b fails"}},
		{"one is cancelled by somebody else", func(j *journal, g *lifecycle.Group) {
			g.Add(j.failing("b", 0, 0, context.Canceled))
		}, "b: context canceled", []error{context.Canceled}, []string{"0 b fails"}},
		{"one leaves by Goexit", func(_ *journal, g *lifecycle.Group) {
			g.Add("b", func(context.Context, func()) error { runtime.Goexit(); return nil })
		}, "start b: returned before it was told to stop", []error{lifecycle.ErrReturned}, nil},
		{"all errors are told", func(j *journal, g *lifecycle.Group) {
			g.OnStop(j.hook("flush", 0, errFlush))
			g.Add(j.component("a", 0, 0, errors.New("a hangs on")))
			g.Add(j.component("b", 0, 0, nil))
			g.Add(j.failing("c", 0, time.Second, errBroken))
			g.Add(j.failing("d", 0, 1500*time.Millisecond, errors.New("d is lost too")))
			g.Add(j.component("e", 0, time.Second, nil))
		}, "c: broken\nstop d: d is lost too\nstop a: a hangs on\nstop flush: flush failed", []error{errBroken, errFlush},
			[]string{"0 a up", "0 b up", "0 e up", "1 c fails", "1 e told", "1.5 d fails", "2 e down",
				"2 b told", "2 b down", "2 a told", "2 a down", "2 flush done"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j, g := newJournal(), lifecycle.New()
				tt.build(j, g)
				checkError(t, g.Run(t.Context()), tt.error, tt.is...)
				j.check(t, tt.lines...)
			})
		})
	}
}

func TestComponentContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		type key struct{}
		g := lifecycle.New()
		var hadValue, hasDeadline bool
		g.Add("a", func(ctx context.Context, ready func()) error {
			hadValue = ctx.Value(key{}) == "v"
			_, hasDeadline = ctx.Deadline()
			ready()
			ready() // no harm
			go ready()
			<-ctx.Done()
			return nil
		})
		checkError(t, g.Run(context.WithValue(timeout(t, time.Second), key{}, "v")), "<nil>")
		if !hadValue || hasDeadline {
			t.Errorf("value carried: %v, Run's deadline passed on: %v", hadValue, hasDeadline)
		}
	})
}

func TestWrongUse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := lifecycle.New()
		started := false
		g.Add("a", func(context.Context, func()) error { started = true; return nil })
		g.Add("", func(context.Context, func()) error { return nil })
		g.Add("b", nil)
		g.OnStop("c", 0, nil)
		checkError(t, g.Run(t.Context()), "lifecycle: part 2 has no name: give it one\n"+
			"lifecycle: b has no function: give it one\nlifecycle: c has no function: give it one")
		if started {
			t.Error("something was started")
		}
		checkError(t, g.Run(t.Context()), "lifecycle: Run was called before", lifecycle.ErrRan)
		for name, add := range map[string]func(){
			"Add":    func() { g.Add("d", func(context.Context, func()) error { return nil }) },
			"OnStop": func() { g.OnStop("d", 0, func(context.Context) error { return nil }) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s after Run did not panic", name)
					}
				}()
				add()
			}()
		}
	})
}

func TestLogger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var out bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
					return slog.Attr{}
				}
				return a
			}}))
		j, g := newJournal(), lifecycle.New(lifecycle.Logger(logger), lifecycle.Logger(nil), lifecycle.StopTimeout(0))
		g.Add(j.component("a", 2*time.Second, time.Second, errBroken))
		checkError(t, g.Run(timeout(t, 3*time.Second)), "stop a: broken", errBroken)
		want := "msg=starting component=a\nmsg=started component=a took=2s\nmsg=stopping component=a\nmsg=stopped component=a took=1s\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if strings.Contains(out.String(), "broken") {
			t.Error("an error was logged and returned")
		}
	})
}
