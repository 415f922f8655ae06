//go:build unix

package supervise

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "web: api", "api")
		sc.behave["api"] = func(p *fakeProcess) {
			p.onTerm = func() { p.endAfter(time.Second, 0) }
		}
		err := sc.run(t, func() {
			time.Sleep(10 * time.Second)
			before := time.Now()
			if err := sc.s.Restart(t.Context(), "api"); err != nil {
				t.Error(err)
			}
			if took := time.Since(before); took < time.Second || took > time.Second+slowestCheck {
				t.Errorf("took %s, want a stop of 1s and no backoff", took)
			}
			st := sc.s.List()[1]
			if st.State != Healthy || st.Restarts != 0 || st.Process.PID != 102 || st.Exit == nil || *st.Exit != (Exit{}) {
				t.Errorf("%+v, want a second, healthy process and no restart counted", st)
			}
		})
		if err != nil {
			t.Error(err)
		}
		if sc.starts["web"] != 1 {
			t.Error("what depends on it was restarted too")
		}
		want := []string{"api building", "api starting", "api healthy", "api stopping", "api starting", "api healthy", "api stopping", "api stopped"}
		got := slices.DeleteFunc(slices.Clone(sc.events), func(e string) bool { return e[:3] != "api" })
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// A new process that is no good is a matter of its service alone.
func TestRestartThatFails(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		second func(*fakeProcess)
		check  func(e *StartError) bool
		within time.Duration
	}{
		"ends": {
			second: func(p *fakeProcess) { p.emit(Stderr, "panic: nil map"); p.endAfter(time.Second, 2) },
			check: func(e *StartError) bool {
				return e.Ended && e.Exit.Code == 2 && slices.Contains(e.Lines, "panic: nil map")
			},
			within: time.Second,
		},
		"hangs": {
			second: func(*fakeProcess) {},
			check:  func(e *StartError) bool { return e.After == DefaultStartTimeout && !e.Ended },
			within: DefaultStartTimeout,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				sc := newScene(t, "a", "other")
				bad := false
				sc.behave["a"] = func(p *fakeProcess) {
					if bad = p.start == 2; bad {
						tt.second(p)
					}
				}
				sc.s.children[0].spec.Healthy = func(context.Context) error {
					if bad {
						return errors.New("not yet")
					}
					return nil
				}
				err := sc.run(t, func() {
					time.Sleep(time.Second)
					before := time.Now()
					err := sc.s.Restart(t.Context(), "a")
					if e, ok := errors.AsType[*StartError](err); !ok || !tt.check(e) {
						t.Errorf("error %#v", err)
					}
					if took := time.Since(before); took != tt.within {
						t.Errorf("it was told after %s, want %s", took, tt.within)
					}
					if st := sc.s.List()[1]; st.State != Healthy || st.Exit != nil {
						t.Errorf("the other one: %+v", st)
					}
					time.Sleep(time.Second) // more than the first backoff
					if st := sc.s.List()[0]; st.State != Healthy || st.Restarts != 1 {
						t.Errorf("%+v, want it started again as after a crash", st)
					}
				})
				if err != nil {
					t.Errorf("the run: %v", err)
				}
			})
		})
	}
}

// A first start that is restarted is a first start still.
func TestRestartOfOneThatWasNeverHealthy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		good := false
		sc.behave["a"] = func(p *fakeProcess) { good = p.start == 2 }
		sc.s.children[0].spec.Healthy = func(context.Context) error {
			if !good {
				return errors.New("not yet")
			}
			return nil
		}
		err := sc.run(t, func() {
			time.Sleep(20 * time.Second)
			if err := sc.s.Restart(t.Context(), "a"); err != nil { // mended in time
				t.Error(err)
			}
			good = false
		})
		if err != nil {
			t.Error(err)
		}

		sc = newScene(t, "a")
		sc.behave["a"] = func(p *fakeProcess) { p.endAfter(3*time.Second, 1) }
		sc.s.children[0].spec.Healthy = func(context.Context) error { return errors.New("not yet") }
		var asked error
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Second)
			asked = sc.s.Restart(t.Context(), "a")
		})
		err = sc.s.Run(t.Context(), nil)
		wg.Wait()
		if e, ok := errors.AsType[*StartError](err); !ok || asked != error(e) || sc.starts["a"] != 2 {
			t.Errorf("Run says %v, Restart %v, after %d starts", err, asked, sc.starts["a"])
		}
	})
}

func TestRestartDuringBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		sc.behave["a"] = func(p *fakeProcess) {
			if p.start < 8 {
				p.endAfter(time.Second, 1)
			}
		}
		err := sc.run(t, func() {
			for sc.s.List()[0].Restarts < 7 {
				time.Sleep(time.Second)
			}
			before := time.Now() // in a delay of some 30 s
			if err := sc.s.Restart(t.Context(), "a"); err != nil || time.Since(before) > time.Second {
				t.Errorf("%v after %s", err, time.Since(before))
			}
		})
		if err != nil || sc.s.children[0].m.crashes != 0 {
			t.Errorf("%v, %d crashes are held against it", err, sc.s.children[0].m.crashes)
		}
	})
}

func TestRestartOfAStubbornOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		sc.behave["a"] = func(p *fakeProcess) {
			if p.start == 1 {
				p.onTerm = func() {}
			}
		}
		err := sc.run(t, func() {
			time.Sleep(time.Second)
			before := time.Now()
			err := sc.s.Restart(t.Context(), "a")
			if took := time.Since(before); err != nil || took < DefaultGrace || took > DefaultGrace+time.Second {
				t.Errorf("%v after %s", err, took)
			}
		})
		if err != nil {
			t.Errorf("that was no stop to be told of: %v", err)
		}
	})
}

func TestRestartThatIsNotAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a: slow", "slow")
		sc.s.children[1].spec.Healthy = func(context.Context) error { return errors.New("not yet") }
		if err := sc.s.Restart(t.Context(), "b"); !errors.Is(err, ErrUnknown) {
			t.Errorf("an unknown one: %v", err)
		}
		results := make(chan error, 2)
		err := sc.run(t, func() {
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := sc.s.Restart(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a caller without time: %v", err)
			}
			go func() { results <- sc.s.Restart(t.Context(), "a") }()    // waits for its dependency
			go func() { results <- sc.s.Restart(t.Context(), "slow") }() // is starting
			time.Sleep(time.Second)
		})
		if err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, ErrStopped) {
				t.Errorf("at the end: %v", err)
			}
		}
		if err := sc.s.Restart(t.Context(), "a"); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A restart that is under way when everything stops neither hinders the stop nor
// leaves a process, whether it stops in order or by Kill.
func TestStopDuringRestart(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sc := newScene(t, "a")
			sc.behave["a"] = func(p *fakeProcess) { p.onTerm = func() { p.endAfter(5*time.Second, 0) } }
			result := make(chan error, 1)
			err := sc.run(t, func() {
				time.Sleep(time.Second)
				go func() { result <- sc.s.Restart(t.Context(), "a") }()
				time.Sleep(time.Second)
				if kill {
					sc.s.Kill()
					synctest.Wait()
				}
			})
			if asked := <-result; !errors.Is(asked, ErrStopped) || sc.starts["a"] != 1 {
				t.Errorf("kill %t: Restart = %v after %d starts", kill, asked, sc.starts["a"])
			}
			if kill != errors.Is(err, ErrKilled) {
				t.Errorf("kill %t: Run = %v", kill, err)
			}
		})
	}
}

// TestRestartProperties: whatever processes do and whenever anybody asks, nil
// means a healthy process that was started after the question; every question
// is answered; and the run lives on.
func TestRestartProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		lives := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{0, 50 * time.Millisecond, time.Second, time.Minute}), 8, 8).Draw(rt, "lives")
		stubborn := rapid.SliceOfN(rapid.Bool(), 8, 8).Draw(rt, "stubborn")
		askers := rapid.SliceOfN(rapid.IntRange(0, 60_000), 1, 8).Draw(rt, "askers at ms")
		synctest.Test(t, func(t *testing.T) {
			sc := newScene(t, "a")
			sc.behave["a"] = func(p *fakeProcess) {
				if p.start == 1 {
					return // once healthy, or there is no run
				}
				if life := lives[p.start%8]; life > 0 {
					p.endAfter(life, 1)
				}
				if stubborn[p.start%8] {
					p.onTerm = func() {}
				}
			}
			err := sc.run(t, func() {
				time.Sleep(time.Second)
				var wg sync.WaitGroup
				for _, ms := range askers {
					wg.Go(func() {
						time.Sleep(time.Duration(ms) * time.Millisecond)
						sc.mu.Lock()
						before := sc.starts["a"]
						sc.mu.Unlock()
						err := sc.s.Restart(context.Background(), "a")
						sc.mu.Lock()
						after := sc.starts["a"]
						sc.mu.Unlock()
						if _, failed := errors.AsType[*StartError](err); err != nil && !failed || after <= before {
							rt.Errorf("asked after start %d, answered %v after start %d", before, err, after)
						}
					})
				}
				wg.Wait()
			})
			if stop, ok := errors.AsType[*StopError](err); err != nil && (!ok || stop.Instances[0] != "a") {
				rt.Errorf("the run: %v", err)
			}
			if st := sc.s.List()[0]; st.State != Stopped || st.Exit == nil || st.Exit.Signal != 0 && st.Exit.Signal != syscall.SIGKILL {
				rt.Errorf("at the end %+v", st)
			}
		})
	})
}

// What changes between starts is in force from the next one.
func TestEnvironIsAskedAtEachStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, "a")
		asked := 0
		sc.s.children[0].spec.Environ = func() []string { asked++; return nil }
		err := sc.run(t, func() {
			time.Sleep(time.Second)
			if err := sc.s.Restart(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		})
		if err != nil || asked != 2 {
			t.Errorf("%v, asked %d times, want 2", err, asked)
		}
	})
}
