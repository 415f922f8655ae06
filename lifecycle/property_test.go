package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/lifecycle"
	"pgregory.net/rapid"
)

// plan is a part with drawn times, in virtual seconds.
type plan struct {
	hook  bool
	start time.Duration // until ready
	life  time.Duration // until it returns by itself; 0: it does not
	stop  time.Duration
	fails bool // its stop returns an error
}

// Whatever parts a group has and whenever it ends: parts come up one after another
// in order, go down one after another in reverse order, none is left behind, and
// the error tells exactly who failed.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		plans := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) plan {
			seconds := func(name string, least int) time.Duration {
				return time.Duration(rapid.IntRange(least, 20).Draw(rt, name)) * time.Second
			}
			p := plan{hook: rapid.Bool().Draw(rt, "hook"), stop: seconds("stop", 0), fails: rapid.Bool().Draw(rt, "fails")}
			if !p.hook {
				p.start = seconds("start", 0)
				if rapid.IntRange(0, 4).Draw(rt, "mortal") == 0 {
					p.life = seconds("life", 1)
				}
			}
			return p
		}), 0, 8).Draw(rt, "plans")
		end := time.Duration(rapid.IntRange(0, 60).Draw(rt, "end")) * time.Second

		var problem error
		synctest.Test(t, func(t *testing.T) { problem = try(t.Context(), plans, end) })
		if problem != nil {
			rt.Fatal(problem)
		}
	})
}

type step struct {
	what string // "up", "ready", "stopping", "down", "lost" (returned by itself)
	part int
}

func try(ctx context.Context, plans []plan, end time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, end)
	defer cancel()
	var mu sync.Mutex
	var steps []step
	note := func(what string, part int) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, step{what, part})
	}
	failures := make([]error, len(plans))
	g := lifecycle.New(lifecycle.StopTimeout(time.Hour))
	for i, p := range plans {
		if p.fails {
			failures[i] = fmt.Errorf("failure %d", i)
		}
		if p.hook {
			g.OnStop(fmt.Sprint("hook", i), 0, func(context.Context) error {
				note("stopping", i)
				time.Sleep(p.stop)
				note("down", i)
				return failures[i]
			})
			continue
		}
		g.Add(fmt.Sprint("part", i), func(ctx context.Context, ready func()) error {
			var death <-chan time.Time
			if p.life > 0 {
				death = time.After(p.life)
			}
			note("up", i)
			readiness := time.After(p.start)
			for {
				select {
				case <-readiness:
					note("ready", i)
					ready()
				case <-death:
					note("lost", i)
					return failures[i]
				case <-ctx.Done():
					note("stopping", i)
					time.Sleep(p.stop)
					note("down", i)
					return failures[i]
				}
			}
		})
	}
	err := g.Run(ctx)
	mu.Lock()
	defer mu.Unlock()
	if problem := judge(plans, steps, failures, err); problem != nil {
		return fmt.Errorf("%w\nsteps %v\nerror %v", problem, steps, err)
	}
	return nil
}

// judge holds what happened against the promises.
func judge(plans []plan, steps []step, failures []error, err error) error {
	lastUp, lastStopping, stoppingNow := -1, len(plans), -1
	lost, stopped, ready := map[int]bool{}, map[int]bool{}, map[int]bool{}
	up := map[int]bool{}
	for _, s := range steps {
		switch s.what {
		case "up":
			if s.part <= lastUp || lastStopping < len(plans) {
				return fmt.Errorf("part %d came up out of order", s.part)
			}
			for i := range s.part {
				if !plans[i].hook && !ready[i] {
					return fmt.Errorf("part %d came up before %d was ready", s.part, i)
				}
			}
			lastUp = s.part
			up[s.part] = true
		case "ready":
			ready[s.part] = true
		case "lost":
			lost[s.part] = true
		case "stopping":
			if s.part >= lastStopping || stoppingNow >= 0 {
				return fmt.Errorf("part %d was stopped out of order", s.part)
			}
			lastStopping, stoppingNow = s.part, s.part
		case "down":
			if s.part != stoppingNow {
				return fmt.Errorf("part %d went down out of order", s.part)
			}
			stoppingNow = -1
			stopped[s.part] = true
		}
	}
	for i := range up {
		if !stopped[i] && !lost[i] {
			return fmt.Errorf("part %d was left behind", i)
		}
	}
	for i, p := range plans {
		if p.hook && i < lastUp && !stopped[i] {
			return fmt.Errorf("hook %d was not called", i)
		}
		if told := failures[i] != nil && errors.Is(err, failures[i]); told != (failures[i] != nil && (stopped[i] || lost[i])) {
			return fmt.Errorf("failure %d told: %v", i, told)
		}
	}
	if len(lost) == 0 && errors.Is(err, lifecycle.ErrReturned) {
		return errors.New("ErrReturned, but none returned")
	}
	return nil
}

// Groups in real time, with everything happening at once; the race detector and
// goleak do the judging.
func TestStress(t *testing.T) {
	t.Parallel()
	var groups sync.WaitGroup
	for n := range 10 {
		groups.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				force := make(chan struct{})
				g := lifecycle.New(lifecycle.ForceOn(force))
				for i := range 1 + random.IntN(5) {
					mortal := random.IntN(8) == 0
					g.Add(fmt.Sprint("part", i), func(ctx context.Context, ready func()) error {
						go ready()
						if mortal {
							return errBroken
						}
						<-ctx.Done()
						return ctx.Err()
					})
					g.OnStop(fmt.Sprint("hook", i), time.Minute, func(ctx context.Context) error { return ctx.Err() })
				}
				forced := random.IntN(4) == 0
				time.AfterFunc(time.Duration(random.IntN(300))*time.Microsecond, cancel)
				done := make(chan error, 1)
				go func() { done <- g.Run(ctx) }()
				if forced {
					close(force)
				}
				err := <-done
				if errors.Is(err, lifecycle.ErrStopTimeout) || !forced && errors.Is(err, lifecycle.ErrForced) {
					t.Errorf("Run: %v", err)
				}
				cancel()
			}
		})
	}
	groups.Wait()
}
