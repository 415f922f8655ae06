//go:build unix

package supervise

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// Health checks after a start: the first one soon, then less and less often.
const (
	firstCheck   = 5 * time.Millisecond
	slowestCheck = 200 * time.Millisecond
	checkTimeout = 2 * time.Second
)

// host starts processes. Tests have one in virtual time.
type host interface {
	start(c Child, emit func(Stream, string)) (running, error)
	// close is called when all processes have gone.
	close()
}

// running is a started process with its group.
type running interface {
	id() process.ID
	// done is closed when the process has ended, its group too, and all its
	// lines were emitted.
	done() <-chan struct{}
	// exit is how it ended; only after done.
	exit() Exit
	// terminate asks the group to end and kill makes it.
	terminate()
	kill()
}

// child is a Child under supervision. One goroutine, run, drives it.
type child struct {
	spec         Child
	s            *Supervisor
	needs, users []*child
	up           chan struct{} // closed: was healthy once
	gone         chan struct{} // closed: stopped for good
	m            machine       // of the driving goroutine

	poke chan struct{} // has room for one: somebody waits for a restart

	mu      sync.Mutex // held for the fields below only
	status  Status
	tail    tail
	asked   []chan error // who wants a process that is started from now on
	serving []chan error // whose process that is the present one
	closed  bool         // there is none any more
}

func newChild(s *Supervisor, spec Child) *child {
	return &child{
		spec: spec, s: s,
		up: make(chan struct{}), gone: make(chan struct{}), poke: make(chan struct{}, 1),
		m:      machine{state: Building},
		status: Status{Name: spec.Name, Instance: spec.Instance, State: Building},
	}
}

// run keeps the child running until ctx ends and its process has gone. It
// returns why the child can't be started, if that is what ends it.
func (c *child) run(ctx context.Context, h host) *StartError {
	c.report(Building, nil)
	if c.spec.Build != nil {
		if err := c.spec.Build(ctx); err != nil && ctx.Err() == nil {
			return c.startError(outcome{err: fmt.Errorf("build: %w", err)})
		}
	}
	for _, n := range c.needs {
		select {
		case <-n.up:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		out := c.runOnce(ctx, h)
		if out.asked {
			return nil
		}
		if out.again {
			c.m.forgive()
			continue
		}
		failed := c.startError(out)
		c.answer(failed)
		delay, ok := c.m.ended(time.Now(), rand.Float64())
		if !ok {
			return failed
		}
		var why error
		if !out.ended {
			why = failed
		}
		c.report(Restarting, func(st *Status) { st.Delay, st.Restarts, st.Err = delay, c.m.restarts, why })
		select {
		case <-time.After(delay):
		case <-c.poke:
			c.m.forgive()
		case <-ctx.Done():
		}
	}
	return nil
}

// finish tells that the child has stopped for good.
func (c *child) finish() {
	c.report(Stopped, nil)
	c.refuse()
	close(c.gone)
}

// outcome is how a run of the process came to its end.
type outcome struct {
	asked bool // the supervision is stopping
	again bool // a restart was asked for
	ended bool // by itself
	late  bool // it was not healthy in time
	err   error
}

// runOnce starts the process and returns when it has gone.
func (c *child) runOnce(ctx context.Context, h host) outcome {
	c.claim()
	spec := c.spec
	if spec.Environ != nil {
		spec.Env = spec.Environ()
	}
	p, err := h.start(spec, c.line)
	if err != nil {
		return outcome{err: err}
	}
	defer func() {
		exit := p.exit()
		c.update(func(st *Status) { st.Exit = &exit })
	}()
	c.m.started()
	c.report(Starting, func(st *Status) { st.Process, st.StartedAt = p.id(), time.Now() })

	checking, stopChecking := context.WithCancel(ctx)
	checks := c.check(checking)
	defer func() {
		stopChecking()
		for range checks { // until the checking goroutine has gone
		}
	}()
	deadline := time.NewTimer(c.s.cfg.StartTimeout)
	defer deadline.Stop()
	var unhealthy error
	for results := checks; ; {
		select {
		case <-p.done():
			// Ended while everything stops is as good as stopped.
			return outcome{ended: true, asked: ctx.Err() != nil, err: unhealthy}
		case err, ok := <-results:
			if !ok {
				results = nil // ctx has ended
			} else if unhealthy = err; err == nil {
				results = nil
				deadline.Stop()
				c.becomeHealthy()
			}
		case <-deadline.C:
			killed := c.stop(p)
			// What hung after a crash is started again: that is no stop to be told of.
			if killed && (c.ending(ctx) || !c.m.wasHealthy) {
				c.s.late(c.spec.Instance)
			}
			return outcome{late: true, err: unhealthy}
		case <-c.poke:
			if ctx.Err() != nil {
				continue // everything stops, in its order
			}
			killed := c.stop(p)
			ending := c.ending(ctx)
			if killed && ending {
				c.s.late(c.spec.Instance)
			}
			return outcome{again: true, asked: ending}
		case <-ctx.Done():
			c.awaitUsers(p)
			if c.stop(p) {
				c.s.late(c.spec.Instance)
			}
			return outcome{asked: true}
		}
	}
}

// ending reports whether everything stops: Kill has ended processes before it
// ends ctx.
func (c *child) ending(ctx context.Context) bool {
	select {
	case <-c.s.killed:
		return true
	default:
		return ctx.Err() != nil
	}
}

// check asks Healthy until it says yes or ctx ends. It sends each answer, and
// closes the channel when it is done.
func (c *child) check(ctx context.Context) <-chan error {
	results := make(chan error)
	go func() {
		defer close(results)
		for pause := firstCheck; ; pause = min(pause*3/2, slowestCheck) {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			one, cancel := context.WithTimeout(ctx, checkTimeout)
			err := c.spec.Healthy(one)
			cancel()
			select {
			case results <- err:
			case <-ctx.Done():
				return
			}
			if err == nil {
				return
			}
		}
	}()
	return results
}

func (c *child) becomeHealthy() {
	first := !c.m.wasHealthy
	c.m.healthy(time.Now())
	c.report(Healthy, nil)
	c.answer(nil)
	if first {
		close(c.up)
	}
}

// awaitUsers returns when all that depend on the child have gone, or there is
// nothing to spare for them any more.
func (c *child) awaitUsers(p running) {
	for _, u := range c.users {
		select {
		case <-u.gone:
		case <-p.done():
			return
		case <-c.s.killed:
			return
		}
	}
}

// stop ends the process and its group, and returns when both have gone. It
// reports whether they had to be killed.
func (c *child) stop(p running) (killed bool) {
	c.report(Stopping, nil)
	p.terminate()
	grace := time.NewTimer(c.s.cfg.Grace)
	defer grace.Stop()
	select {
	case <-p.done():
		return false
	case <-grace.C:
	case <-c.s.killed:
	}
	p.kill()
	<-p.done()
	return true
}

func (c *child) startError(out outcome) *StartError {
	e := &StartError{
		Name: c.spec.Name, Instance: c.spec.Instance,
		Ended: out.ended, Exit: Exit{Code: -1},
		Err: out.err, Lines: c.lastLines(),
	}
	if exit := c.snapshot().Exit; out.ended && exit != nil {
		e.Exit = *exit
	}
	if out.late {
		e.After = c.s.cfg.StartTimeout
	}
	return e
}

// line takes a line the process wrote. Both streams call it.
func (c *child) line(stream Stream, text string) {
	c.mu.Lock()
	c.tail.add(text)
	c.mu.Unlock()
	if c.s.cfg.OnLine != nil {
		c.s.cfg.OnLine(Line{Name: c.spec.Name, Instance: c.spec.Instance, Stream: stream, Text: text})
	}
}

// report sets the state and what else change does, and tells it.
func (c *child) report(state State, change func(*Status)) {
	st := c.update(func(st *Status) {
		st.State, st.Delay = state, 0
		if change != nil {
			change(st)
		}
	})
	if c.s.cfg.OnState != nil {
		c.s.cfg.OnState(st)
	}
}

func (c *child) update(change func(*Status)) Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
	return c.status
}

func (c *child) snapshot() Status { return c.update(func(*Status) {}) }

func (c *child) lastLines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tail.all()
}
