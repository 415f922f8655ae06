package registry

import (
	"time"

	"github.com/keelson-go/keelson/health"
)

// This file is how instances come into a term's care, by what is told about them,
// and how they leave it.

// admit takes k into care; it is not scheduled yet.
func (t *term) admit(k Key, now time.Time) *patient {
	p := &patient{key: k, rhythm: rhythmOf(k), alive: now, index: -1}
	t.patients[k] = p
	return p
}

// dismiss ends the care for p.
func (t *term) dismiss(p *patient) {
	t.agenda.cancel(p)
	delete(t.patients, p.key)
}

// hurry makes p due. What happened during a probe calls for another one.
func (t *term) hurry(p *patient, due time.Time) {
	p.due = due
	if p.again = p.busy; !p.busy {
		t.agenda.schedule(p)
	}
}

// sweep looks at every instance, since nobody knows what was missed: at those
// without a lease now, at the others when their next check is due.
func (t *term) sweep(now time.Time) {
	t.synced = true
	for rec := range t.registry.view.all() {
		in := &rec.instance
		k := in.Key()
		p := t.patients[k]
		known := p != nil
		if !known {
			p = t.admit(k, now)
			p.reason, p.due = "its regular check", p.rhythm.first(now)
		}
		p.held, p.found, p.grace, p.replaced = t.leased(k), false, time.Time{}, 0 // revisions may have started over
		switch {
		case !p.held && in.Lease == LeaseConnection:
			p.reason = "found without a lease"
			t.hurry(p, now)
		case !known && in.Lease == LeaseChecks && in.Status == health.Starting:
			t.hurry(p, now)
		case !known:
			t.agenda.schedule(p)
		}
	}
}

func (t *term) leased(k Key) bool { return !t.checker.LastHeartbeat(k).IsZero() }

// note takes one lease change in.
func (t *term) note(news leaseNews, now time.Time) {
	k := news.change.Key
	p := t.patients[k]
	switch {
	case news.start:
		t.synced = false
	case news.change.State == LeasesSynced:
		t.sweep(now)
	case news.change.State == LeaseHeld:
		if p != nil && !p.held {
			p.held, p.expired = true, false
			if !t.renewedByChecks(k) && (p.found || !now.Before(p.grace)) {
				t.hurry(p, atOnce)
			}
		}
	case news.change.State == LeaseReleased:
		if p != nil {
			t.lapse(p, now)
			if t.registry.view.get(k) == nil {
				t.dismiss(p)
			}
		}
	case t.renewedByChecks(k):
		if p != nil { // its checks go on; the lease tells nothing that they don't
			t.lapse(p, now)
		}
	default:
		if p == nil {
			p = t.admit(k, now)
		}
		t.lapse(p, now)
		if p.reason = "its connection ended"; news.change.State == LeaseExpired {
			p.reason, p.expired = "its lease expired", true
		}
		t.hurry(p, atOnce)
	}
}

// lapse notes that p has no lease any more.
func (t *term) lapse(p *patient, now time.Time) {
	if p.held {
		p.alive = now
	}
	p.held, p.found, p.grace = false, false, time.Time{}
}

func (t *term) renewedByChecks(k Key) bool {
	rec := t.registry.view.get(k)
	return rec != nil && rec.instance.Lease == LeaseChecks
}

// observe takes one change of the records in. Before the leases are known it
// would only mislead, and then the sweep sees it.
func (t *term) observe(e Event, now time.Time) {
	if !t.synced {
		return
	}
	switch e.Type {
	case Snapshot:
		for _, in := range e.Instances {
			if t.patients[in.Key()] == nil {
				t.appeared(&in, now)
			}
		}
	case Register:
		t.appeared(&e.Instance, now)
	case StatusChange:
		t.spoke(&e.Instance, now)
	case Deregister:
		k := e.Instance.Key()
		if t.registry.view.members(k.Service) == nil {
			delete(t.counts, k.Service) // it holds the last snapshot
		}
		if p := t.patients[k]; p != nil && t.registry.view.get(k) == nil {
			t.dismiss(p)
		}
	}
}

// appeared sees to a new record, or one that replaced another: it is checked if
// that is to be done regularly. Else no record without a lease is overlooked:
// nothing would ever be told about it. Leases and records come on different ways,
// so the lease gets a moment to show up.
func (t *term) appeared(in *Instance, now time.Time) {
	k := in.Key()
	p, held, regularly := t.patients[k], t.leased(k), checkedRegularly(in)
	if p == nil {
		if held && !regularly {
			return
		}
		p = t.admit(k, now)
		p.held, p.found, p.reason = held, !regularly, "it has no lease"
	}
	p.fails, p.grace = 0, now.Add(leaseGrace)
	switch {
	case regularly:
		p.reason = "its regular check"
		t.hurry(p, now)
	case p.found:
		t.hurry(p, p.grace)
	}
}

// spoke sees to a status that may be the instance's own word: it starts afresh.
// Checkers only ever put one in rotation that has just passed.
func (t *term) spoke(in *Instance, now time.Time) {
	p := t.patients[in.Key()]
	if p == nil {
		return
	}
	waits := in.Status == health.Starting && in.Lease == LeaseChecks
	if waits || in.Status.Serving() && (p.out || p.fails > 0) {
		p.fails, p.out = 0, false
		t.hurry(p, now)
	}
}
