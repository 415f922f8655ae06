package registry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Checker keeps the registry true: it checks instances, renews the leases of
// those that live by their checks, takes out of rotation what fails, and removes
// what is dead. The package documentation tells what follows from which answer.
//
// Run one on each registry node. They choose a leader among them, which alone
// checks; all follow the leases, so that another can take over at any moment and
// [Checker.LastHeartbeat] is known everywhere. What a checker does to a record is
// conditional on the record's revision.
type Checker struct {
	registry *Registry
	prober   Prober
	log      *slog.Logger

	mu         sync.Mutex
	heartbeats map[Key]time.Time // of every lease
	synced     bool              // all leases are known
	term       *term             // while it leads
}

// CheckerOption changes a default of [NewChecker].
type CheckerOption func(*Checker)

// WithProber replaces [NewProber].
func WithProber(p Prober) CheckerOption { return func(c *Checker) { c.prober = p } }

// WithLogger sets where decisions about instances are logged; nowhere by default.
func WithLogger(l *slog.Logger) CheckerOption { return func(c *Checker) { c.log = l } }

// NewChecker returns a checker over r's store and snapshot.
func NewChecker(r *Registry, opts ...CheckerOption) *Checker {
	c := &Checker{
		registry: r, prober: NewProber(), log: slog.New(slog.DiscardHandler),
		heartbeats: map[Key]time.Time{},
	}
	for _, o := range opts {
		o(c)
	}
	return c
}

// LastHeartbeat returns when the instance's lease was last renewed, or the
// zero time when it has none. It is safe for concurrent use.
func (c *Checker) LastHeartbeat(k Key) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heartbeats[k]
}

// Leading reports whether it is this node that checks. It is safe for concurrent
// use.
func (c *Checker) Leading() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term != nil
}

// Run works until ctx ends, and returns nil then, after all probes have ended.
// It must be called once.
func (c *Checker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := c.registry.WaitSynced(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("registry: checker: %w", err)
	}
	wg.Go(func() { c.followLeases(ctx) })
	end := func() {}
	for leads := range c.registry.driver.Lead(ctx) {
		end() // before anybody else can lead
		if leads {
			end = c.begin(ctx, &wg)
		}
	}
	end()
	return nil
}

// begin starts a term, and returns what ends it.
func (c *Checker) begin(ctx context.Context, wg *sync.WaitGroup) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	t := newTerm(c, ctx.Done())
	c.mu.Lock()
	c.term, t.synced = t, c.synced
	c.mu.Unlock()
	c.log.Info("this node checks the instances now")
	wg.Go(func() { t.run(ctx) })
	return func() {
		cancel()
		c.mu.Lock()
		ended := c.term == t
		if ended {
			c.term = nil
		}
		c.mu.Unlock()
		if ended {
			c.log.Info("this node does not check the instances any more")
		}
	}
}

// leaseNews is what a term is told of the leases.
type leaseNews struct {
	change LeaseChange
	start  bool // they are told anew: nothing known before counts
}

// followLeases takes in lease changes, watching again after each loss of the
// store.
func (c *Checker) followLeases(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		c.note(leaseNews{start: true})
		for change, err := range c.registry.driver.Leases(ctx) {
			if err != nil {
				c.log.Warn("leases can't be followed; trying again", "error", err)
				break
			}
			failures = 0
			c.note(leaseNews{change: change})
		}
		sleep(ctx, backoff(failures))
	}
}

// note takes one lease change in, and passes it on to the term if there is one.
// A term begins under the same lock, so each change is either known to it from
// the start or told to it.
func (c *Checker) note(news leaseNews) {
	c.mu.Lock()
	switch {
	case news.start:
		c.heartbeats, c.synced = map[Key]time.Time{}, false
	case news.change.State == LeasesSynced:
		c.synced = true
	case news.change.State == LeaseHeld:
		c.heartbeats[news.change.Key] = news.change.At
	default:
		delete(c.heartbeats, news.change.Key)
	}
	t := c.term
	c.mu.Unlock()
	if t != nil {
		select {
		case t.leases <- news:
		case <-t.over:
		}
	}
}
