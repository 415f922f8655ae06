package registry

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keelson-go/keelson/health"
)

// probesAtOnce bounds the probes one reaper has under way.
const probesAtOnce = 64

// Reaper takes dead instances out of the registry. It follows the leases, and
// probes an instance whose lease was lost, or that is found without one, before
// it does anything about it; the package documentation tells what follows from
// which answer. When it starts, and after it lost the store, it probes every
// instance, since it can't know what it missed.
//
// Run one on each registry node. Several at once are safe: what they do to a
// record is conditional on its revision.
type Reaper struct {
	registry *Registry
	prober   Prober
	log      *slog.Logger

	suspects map[Key]*suspect
	agenda   agenda
	running  int  // probes
	synced   bool // all leases are known
	leases   chan leaseNews
	records  chan Key // instances that appeared
	results  chan probed

	mu         sync.Mutex
	heartbeats map[Key]time.Time // of every lease
}

type leaseNews struct {
	change LeaseChange
	start  bool // a new session: nothing known before counts
}

type probed struct {
	suspect  *suspect
	instance Instance
	revision uint64
	result   ProbeResult
}

// ReaperOption changes a default of [NewReaper].
type ReaperOption func(*Reaper)

// WithProber replaces [NewProber].
func WithProber(p Prober) ReaperOption { return func(r *Reaper) { r.prober = p } }

// WithLogger sets where decisions about instances are logged; nowhere by default.
func WithLogger(l *slog.Logger) ReaperOption { return func(r *Reaper) { r.log = l } }

// NewReaper returns a reaper over r's store and snapshot.
func NewReaper(r *Registry, opts ...ReaperOption) *Reaper {
	p := &Reaper{
		registry: r, prober: NewProber(), log: slog.New(slog.DiscardHandler),
		suspects: map[Key]*suspect{}, heartbeats: map[Key]time.Time{},
		leases: make(chan leaseNews, 256), records: make(chan Key, 256), results: make(chan probed, probesAtOnce),
	}
	for _, o := range opts {
		o(p)
	}
	return p
}

// LastHeartbeat returns when the instance's lease was last renewed, or the
// zero time when it has none. It is safe for concurrent use.
func (p *Reaper) LastHeartbeat(k Key) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heartbeats[k]
}

// Run works until ctx ends, and returns nil then, after all probes have ended.
// It must be called once.
func (p *Reaper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := p.registry.WaitSynced(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("registry: reaper: %w", err)
	}
	wg.Go(func() { p.followLeases(ctx) })
	wg.Go(func() { p.followRecords(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.launch(ctx, &wg)
		if len(p.agenda) > 0 && p.running < probesAtOnce {
			timer.Reset(time.Until(p.agenda[0].due))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case b := <-p.leases:
			p.note(b)
		case k := <-p.records:
			p.appeared(k)
		case r := <-p.results:
			p.running--
			r.suspect.probing = false
			p.settle(ctx, r)
		case <-timer.C:
		}
	}
}

// followLeases passes lease changes on, watching again after each loss of the
// store.
func (p *Reaper) followLeases(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		send(ctx, p.leases, leaseNews{start: true})
		for c, err := range p.registry.driver.Leases(ctx) {
			if err != nil {
				p.log.Warn("leases can't be followed; trying again", "error", err)
				break
			}
			failures = 0
			send(ctx, p.leases, leaseNews{change: c})
		}
		sleep(ctx, backoff(failures))
	}
}

// followRecords passes on which instances appear.
func (p *Reaper) followRecords(ctx context.Context) {
	for e := range p.registry.Watch(ctx) {
		switch e.Type {
		case Register:
			send(ctx, p.records, e.Instance.Key())
		case Snapshot:
			for _, in := range e.Instances {
				send(ctx, p.records, in.Key())
			}
		}
	}
}

func send[T any](ctx context.Context, to chan<- T, v T) {
	select {
	case to <- v:
	case <-ctx.Done():
	}
}

// note takes one lease change in.
func (p *Reaper) note(news leaseNews) {
	if news.start {
		p.synced = false
		p.mu.Lock()
		p.heartbeats = map[Key]time.Time{}
		p.mu.Unlock()
		return
	}
	k := news.change.Key
	switch news.change.State {
	case LeaseHeld:
		p.mu.Lock()
		p.heartbeats[k] = news.change.At
		p.mu.Unlock()
		if s := p.suspects[k]; s != nil && !s.held {
			s.held = true
			p.hurry(s, atOnce)
		}
	case LeaseReleased:
		p.lapse(k)
		p.acquit(k)
	case LeaseDisconnected:
		p.lapse(k)
		p.suspect(k, "its connection ended", atOnce)
	case LeaseExpired:
		p.lapse(k)
		p.suspect(k, "its lease expired", atOnce)
	case LeasesSynced:
		p.synced = true
		p.sweep()
	}
}

// sweep puts every instance under suspicion.
func (p *Reaper) sweep() {
	for rec := range p.registry.view.all() {
		k := rec.instance.Key()
		held := !p.LastHeartbeat(k).IsZero()
		s := p.suspect(k, "swept at start", time.Now())
		s.held, s.replaced = held, 0 // revisions may have started over
	}
}

// appeared sees to it that no record without a lease is overlooked: nothing
// would ever be told about it. Leases and records come on different ways, so
// the lease gets a moment to show up.
func (p *Reaper) appeared(k Key) {
	if !p.synced || p.suspects[k] != nil || !p.LastHeartbeat(k).IsZero() {
		return
	}
	s := &suspect{key: k, reason: "it has no lease", found: true, index: -1, due: time.Now().Add(leaseGrace)}
	p.suspects[k] = s
	p.agenda.schedule(s)
}

func (p *Reaper) lapse(k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.heartbeats, k)
}

// acquit ends the suspicion, whether founded or not.
func (p *Reaper) acquit(k Key) {
	if s := p.suspects[k]; s != nil {
		if s.index >= 0 {
			heap.Remove(&p.agenda, s.index)
		}
		delete(p.suspects, k)
	}
}

func (p *Reaper) suspect(k Key, reason string, due time.Time) *suspect {
	s := p.suspects[k]
	if s == nil {
		s = &suspect{key: k, index: -1}
		p.suspects[k] = s
	}
	s.reason, s.held, s.found = reason, false, false
	p.hurry(s, due)
	return s
}

// hurry makes s due. What happened during a probe calls for another one.
func (p *Reaper) hurry(s *suspect, due time.Time) {
	s.due = due
	if s.again = s.probing; !s.probing {
		p.agenda.schedule(s)
	}
}

// launch starts the probes that are due.
func (p *Reaper) launch(ctx context.Context, wg *sync.WaitGroup) {
	now := time.Now()
	for p.running < probesAtOnce && len(p.agenda) > 0 && !p.agenda[0].due.After(now) {
		s := heap.Pop(&p.agenda).(*suspect)
		if s.found && s.held {
			p.acquit(s.key)
			continue
		}
		rec := p.registry.view.get(s.key)
		if rec == nil || rec.revision == orphan {
			p.absent(s, now)
			continue
		}
		s.missing = 0
		if rec.revision == s.replaced {
			s.due = now.Add(lagPause)
			p.agenda.schedule(s)
			continue
		}
		s.probing = true
		p.running++
		wg.Go(func() {
			r := probed{s, rec.instance, rec.revision, p.prober.Probe(ctx, rec.instance)}
			select {
			case p.results <- r:
			case <-ctx.Done():
			}
		})
	}
}

// absent handles a suspect that the store does not have, as far as the snapshot
// knows: its record may still be under way.
func (p *Reaper) absent(s *suspect, now time.Time) {
	if s.missing++; s.missing > 10 {
		p.acquit(s.key)
		return
	}
	s.due = now.Add(brokenPause << s.missing)
	p.agenda.schedule(s)
}

// settle carries out the verdict on a probed suspect.
func (p *Reaper) settle(ctx context.Context, r probed) {
	s := r.suspect
	if ctx.Err() != nil || p.suspects[s.key] != s {
		return
	}
	log := p.log.With("service", s.key.Service, "instance", s.key.ID, "why", s.reason, "probe", r.result.String())
	v := s.judge(r.result, r.instance, time.Now())
	if v == takeOut && p.panics(s.key.Service) {
		log.Warn("instance seems lost, but so do too many of its service; it stays in rotation")
		v = keepChecking
	}
	var err error
	switch v {
	case acquit:
		if !s.again {
			p.acquit(s.key)
			return
		}
	case remove:
		if err = p.remove(ctx, s.key, r.revision); err == nil {
			log.Info("instance is gone; removed")
			p.acquit(s.key)
			return
		}
	case takeOut:
		out := r.instance.clone()
		out.Status, out.Announced = health.Unhealthy, r.instance.Status
		if err = p.update(ctx, out, r.revision); err == nil {
			log.Warn("instance is out of rotation")
			s.out, s.replaced = true, r.revision
		}
	case restore:
		in := r.instance.clone()
		in.Status, in.Announced = restored(r.instance), ""
		if err = p.update(ctx, in, r.revision); err == nil {
			log.Info("instance is in rotation again")
			s.out, s.replaced = false, r.revision
			if s.held && !s.again {
				p.acquit(s.key)
				return
			}
		}
	}
	switch {
	case errors.Is(err, ErrConflict):
		// Its record changed while it was probed: look again, at the new one.
		s.due = time.Now().Add(brokenPause)
	case err != nil:
		log.Warn("the registry can't be changed; trying again", "error", err)
		s.due = time.Now().Add(recheckSoon)
	case s.again:
		s.due = atOnce
	}
	s.again = false
	p.agenda.schedule(s)
}

// panics asks the panic threshold. What was just taken out may not have come
// back as a change of the snapshot yet.
func (p *Reaper) panics(service string) bool {
	total, out := 0, 0
	if m := p.registry.view.members(service); m != nil {
		total = len(m.records)
		for _, rec := range m.records {
			s := p.suspects[rec.instance.Key()]
			if rec.instance.Status == health.Unhealthy || s != nil && s.out {
				out++
			}
		}
	}
	return panicking(total, out)
}

func (p *Reaper) remove(ctx context.Context, k Key, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	return p.registry.driver.Deregister(ctx, k, revision)
}

func (p *Reaper) update(ctx context.Context, in Instance, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	_, err := p.registry.driver.Update(ctx, in, revision)
	return err
}
