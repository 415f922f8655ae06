package registry

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/keelson-go/keelson/health"
)

// probesAtOnce bounds the probes and writes one checker has under way. Probes
// that time out take two seconds each.
const probesAtOnce = 256

// term is the time in which one checker leads, and what it knows in it. One
// goroutine owns all of it; probes and writes run beside it.
type term struct {
	checker  *Checker
	registry *Registry
	over     <-chan struct{}

	patients map[Key]*patient
	agenda   agenda
	running  int  // probes and writes
	synced   bool // all leases are known
	counts   map[string]headcount
	renewing bool // the last renewal went well, or there was none

	leases  chan leaseNews
	events  chan Event
	checked chan checked
	written chan written
}

// checked is a check that was made.
type checked struct {
	patient  *patient
	instance Instance // as it was when the check began
	revision uint64
	began    time.Time
	result   ProbeResult
	renewal  error // of its lease
}

// written is an attempt to carry a verdict out.
type written struct {
	checked
	verdict verdict
	err     error
}

func newTerm(c *Checker, over <-chan struct{}) *term {
	return &term{
		checker: c, registry: c.registry, over: over,
		patients: map[Key]*patient{}, counts: map[string]headcount{}, renewing: true,
		leases: make(chan leaseNews, 256), events: make(chan Event, 256),
		// Nobody who has finished waits to say so.
		checked: make(chan checked, probesAtOnce), written: make(chan written, probesAtOnce),
	}
}

// run works until ctx ends, and returns after all probes and writes have.
func (t *term) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for e := range t.registry.Watch(ctx) {
			select {
			case t.events <- e:
			case <-ctx.Done():
			}
		}
	})
	if t.synced {
		t.sweep(time.Now())
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		t.launch(ctx, &wg)
		if len(t.agenda) > 0 && t.running < probesAtOnce {
			timer.Reset(time.Until(t.agenda[0].due))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
		case news := <-t.leases:
			t.note(news, time.Now())
		case e := <-t.events:
			t.observe(e, time.Now())
		case c := <-t.checked:
			t.running--
			t.settle(ctx, &wg, c)
		case w := <-t.written:
			t.running--
			t.conclude(w)
		case <-timer.C:
		}
	}
}

// launch starts the checks that are due.
func (t *term) launch(ctx context.Context, wg *sync.WaitGroup) {
	now := time.Now()
	for t.running < probesAtOnce && len(t.agenda) > 0 && !t.agenda[0].due.After(now) {
		p := heap.Pop(&t.agenda).(*patient)
		rec := t.registry.view.get(p.key)
		if rec == nil {
			t.absent(p, now)
			continue
		}
		p.missing = 0
		if due, wait := t.wait(p, rec, now); wait {
			p.due = due
			t.agenda.schedule(p)
			continue
		}
		in := &rec.instance
		if p.found && p.held && !checkedRegularly(in) {
			t.dismiss(p)
			continue
		}
		c := checked{patient: p, instance: *in, revision: rec.revision, began: now}
		if in.Lease == LeaseHeartbeats && p.held {
			c.result = ProbeOK // by its own word; nobody needs to ask
		}
		p.found, p.busy = false, true
		t.running++
		wg.Go(func() { t.checked <- t.check(ctx, c) })
	}
}

// wait reports whether nothing can be said about p yet, and until when.
func (t *term) wait(p *patient, rec *record, now time.Time) (until time.Time, wait bool) {
	switch {
	case rec.revision == orphan: // the store has lost it, and it is to register again
		return p.rhythm.next(now), true
	case rec.revision == p.replaced:
		return now.Add(lagPause), true
	case rec.instance.Lease == LeaseHeartbeats && !p.held && !p.expired:
		// The node through which it sent them may just have ended.
		until = p.alive.Add(t.registry.ttl)
		return until, until.After(now)
	}
	return time.Time{}, false
}

// absent handles a patient that the store does not have, as far as the snapshot
// knows: its record may still be under way.
func (t *term) absent(p *patient, now time.Time) {
	if p.missing++; p.missing > 10 {
		t.dismiss(p)
		return
	}
	p.due = now.Add(brokenPause << p.missing)
	t.agenda.schedule(p)
}

// check probes an instance, and renews its lease if nobody else does and it
// passes. It is called in a goroutine of its own.
func (t *term) check(ctx context.Context, c checked) checked {
	if c.result == ProbeOK {
		return c
	}
	c.result = t.checker.prober.Probe(ctx, c.instance)
	if c.result != ProbeOK || c.instance.Lease != LeaseChecks || ctx.Err() != nil {
		return c
	}
	k := c.instance.Key()
	if rec := t.registry.view.get(k); rec == nil || !rec.instance.RegisteredAt.Equal(c.instance.RegisteredAt) {
		return c // it has gone meanwhile; a successor earns its own
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	c.renewal = t.registry.driver.Renew(ctx, k, t.registry.ttl)
	return c
}

// settle draws the conclusion from a check.
func (t *term) settle(ctx context.Context, wg *sync.WaitGroup, c checked) {
	p := c.patient
	p.busy = false
	if ctx.Err() != nil || t.patients[p.key] != p {
		return
	}
	t.reportRenewal(c)
	v := p.judge(c.result, &c.instance, c.began, time.Now())
	if v == takeOut && t.panics(p.key.Service) {
		if !p.spared {
			t.log(c).Warn("instance seems lost, but so do too many of its service; it stays in rotation")
		}
		v, p.spared = keep, true
	}
	switch v {
	case keep:
		t.reschedule(p)
		return
	case dismiss:
		if p.again {
			t.reschedule(p)
		} else {
			t.dismiss(p)
		}
		return
	case takeOut, cutOff:
		t.count(p)
		p.out = true
	case restore:
		p.out = false
	}
	p.busy = true
	t.running++
	wg.Go(func() { t.written <- written{c, v, t.write(ctx, v, c)} })
}

// write carries a verdict out. It is called in a goroutine of its own.
func (t *term) write(ctx context.Context, v verdict, c checked) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	in := c.instance.clone()
	switch v {
	case remove, abandon:
		return t.registry.driver.Deregister(ctx, in.Key(), c.revision)
	case restore:
		in.Status, in.Announced = wellStatus(&c.instance), ""
	default:
		in.Status, in.Announced = health.Unhealthy, in.Status
	}
	_, err := t.registry.driver.Update(ctx, in, c.revision)
	return err
}

// conclude takes in what came of writing.
func (t *term) conclude(w written) {
	p, now := w.patient, time.Now()
	p.busy = false
	if t.patients[p.key] != p {
		return
	}
	if w.err != nil {
		t.failed(w, now)
		return
	}
	log := t.log(w.checked)
	switch w.verdict {
	case remove, abandon:
		if w.verdict == abandon {
			log.Warn("instance has been silent for too long; removed")
		} else {
			log.Info("instance is gone; removed")
		}
		if !p.again {
			t.dismiss(p)
			return
		}
	case takeOut, cutOff:
		log.Warn("instance is out of rotation")
		p.replaced = w.revision
	case restore:
		log.Info("instance is in rotation again")
		p.replaced = w.revision
		if p.rest(&w.instance) == dismiss && !p.again {
			t.dismiss(p)
			return
		}
	}
	t.reschedule(p)
}

// failed handles a verdict that could not be carried out.
func (t *term) failed(w written, now time.Time) {
	p := w.patient
	p.out = w.verdict == restore
	delete(t.counts, p.key.Service)
	if errors.Is(w.err, ErrConflict) {
		// Its record changed while it was checked: look again, at the new one.
		p.due = now.Add(lagPause)
	} else {
		t.log(w.checked).Warn("the registry can't be changed; trying again", "error", w.err)
		p.due = now.Add(recheckSoon)
	}
	p.again = false
	t.agenda.schedule(p)
}

// reschedule makes p due again; at once if something happened while it was busy.
func (t *term) reschedule(p *patient) {
	if p.again {
		p.again, p.due = false, atOnce
	}
	t.agenda.schedule(p)
}

func (t *term) log(c checked) *slog.Logger {
	return t.checker.log.With("service", c.patient.key.Service, "instance", c.patient.key.ID,
		"why", c.patient.reason, "probe", c.result.String())
}

// reportRenewal says once that leases can't be renewed: when the store is slow,
// every check finds out.
func (t *term) reportRenewal(c checked) {
	if c.result != ProbeOK || c.instance.Lease != LeaseChecks {
		return
	}
	if c.renewal != nil && t.renewing {
		t.log(c).Warn("the leases of instances that pass their checks can't be renewed", "error", c.renewal)
	}
	t.renewing = c.renewal == nil
}

// headcount is how many of a service's instances are out of rotation, in one
// snapshot of it.
type headcount struct {
	members *members
	out     int
}

// panics asks the panic threshold. What was just taken out may not have come
// back as a change of the snapshot yet.
func (t *term) panics(service string) bool {
	m := t.registry.view.members(service)
	if m == nil {
		return false
	}
	c := t.counts[service]
	if c.members != m {
		c = headcount{members: m}
		for _, rec := range m.records {
			p := t.patients[rec.instance.Key()]
			if rec.instance.Status == health.Unhealthy || p != nil && p.out {
				c.out++
			}
		}
		t.counts[service] = c
	}
	return panicking(len(m.records), c.out)
}

// count adds p, which goes out of rotation, to its service's headcount.
func (t *term) count(p *patient) {
	if c, ok := t.counts[p.key.Service]; ok && !p.out {
		c.out++
		t.counts[p.key.Service] = c
	}
}
