package registry

import (
	"time"

	"github.com/keelson-go/keelson/health"
)

// CheckInterval is the time between the checks of an instance, ±10 %.
const CheckInterval = 5 * time.Second

const (
	fall          = 2                     // failed checks that take an instance out of rotation
	recheckSoon   = time.Second           // after the first failed check
	brokenPause   = 5 * time.Millisecond  // doubled each time a connection was cut
	brokenRetries = 5                     // cut connections in a row before they count as a failed check
	leaseGrace    = time.Second           // for the lease of a record that was seen first
	lagPause      = 50 * time.Millisecond // for the snapshot to show what the checker wrote
	abandonAfter  = 10 * time.Minute      // without a lease and without a passed check
)

// patient is an instance in the checker's care: one that is checked regularly, or
// one whose lease was lost or is missing. The latter stays until it both answers
// and has a lease, or is gone.
type patient struct {
	key    Key
	rhythm rhythm
	reason string // why it is looked at

	held    bool      // it has a lease
	expired bool      // its lease ended by time, not with a connection
	found   bool      // nothing was lost: it was seen without a lease, which may still come
	grace   time.Time // until when it counts as leased, for its lease to show up
	alive   time.Time // when it last passed a check or had a lease

	out     bool // it was taken out of rotation
	spared  bool // it was not, though it failed, because too many did
	fails   int  // failed checks in a row
	broken  int  // cut connections in a row
	missing int  // checks in a row at which the snapshot did not have it

	busy  bool // it is being probed, or its record written
	again bool // something happened meanwhile
	due   time.Time
	index int // in the agenda, -1 while it is not there

	// replaced is the revision of the record that the checker last changed. As
	// long as the snapshot shows that one, it says nothing about now.
	replaced uint64
}

// verdict is what to do with a patient after a probe.
type verdict int

const (
	keep    verdict = iota // check again at patient.due
	dismiss                // it needs no more care
	remove                 // confirmed dead: out of the registry
	abandon                // silent for so long that nothing is lost with its record
	cutOff                 // confirmed not to serve: out of rotation, whoever else is
	takeOut                // out of rotation, unless too many are; and keep checking
	restore                // in rotation again; then as keep or dismiss
)

// judge is the whole policy: values in, values out. in is the instance as it was
// when the probe began.
func (p *patient) judge(result ProbeResult, in *Instance, began, now time.Time) verdict {
	held := p.held || now.Before(p.grace)
	if held || result == ProbeOK && in.Lease != LeaseHeartbeats {
		p.alive = now
	}
	if result != ProbeBroken {
		p.broken = 0
	}
	p.due = p.rhythm.next(began)
	gone := result == ProbeRefused || result == ProbeOther
	switch {
	case in.Lease == LeaseHeartbeats && held, in.Lease != LeaseHeartbeats && result == ProbeOK:
		return p.pass(in)
	case result == ProbeRefused && held && in.Lease == LeaseChecks && in.Status == health.Starting:
		// It registered before it listens; its first lease is the time it has.
		p.due = now.Add(recheckSoon)
		return keep
	case gone && (!held || in.Lease == LeaseChecks):
		return remove
	case !held && now.Sub(p.alive) >= abandonAfter:
		return abandon
	case in.Lease == LeaseHeartbeats: // its heartbeats are its checks, and they have stopped
		p.fails = fall
		return p.fail(in, takeOut)
	case gone:
		// Its process is connected, and would only register again at once.
		if p.fails < fall {
			p.fails, p.due = fall, now.Add(recheckSoon)
		}
		return p.fail(in, cutOff)
	case result == ProbeBroken && p.broken < brokenRetries:
		p.broken++
		p.due = now.Add(brokenPause << p.broken)
		return keep
	}
	p.broken = 0
	if p.fails++; p.fails < fall {
		p.due = now.Add(recheckSoon)
		return keep
	}
	return p.fail(in, takeOut)
}

func (p *patient) pass(in *Instance) verdict {
	p.fails, p.spared = 0, false
	if wellStatus(in) != in.Status {
		return restore
	}
	p.out = false // somebody else may have restored it
	return p.rest(in)
}

// rest is what comes after a passed check. A lease that may only yet show up is
// none here: it may have ended already, and nothing would tell so again.
func (p *patient) rest(in *Instance) verdict {
	if p.held && !checkedRegularly(in) {
		return dismiss
	}
	return keep
}

// fail is what comes of enough failed checks.
func (p *patient) fail(in *Instance, v verdict) verdict {
	switch {
	case in.Status.Serving():
		return v
	case in.Announced == "":
		return p.rest(in) // it says itself that it is unwell, or going
	}
	return keep
}

// checkedRegularly reports whether in is checked though nothing is wrong with it.
func checkedRegularly(in *Instance) bool { return in.Health != "" && in.Lease != LeaseHeartbeats }

// wellStatus is the status of in once it answers: its own word again where a
// registry node had taken it out, and healthy where it waits for its first passed
// check. Else it stays what it is; above all, draining by hand too.
func wellStatus(in *Instance) Status {
	own := in.Status
	if in.Announced != "" && in.Status != health.Draining {
		own = in.Announced
	}
	if own == health.Starting && checkedRegularly(in) {
		return health.Healthy
	}
	return own
}

// panicking reports whether taking one more instance out of rotation would
// leave fewer than half of a service's instances in it. When most of a service
// seems lost at once it is more likely the network, or the node that checks,
// than the instances; calls then still try them. A service of one instance is
// exempt.
func panicking(total, out int) bool {
	return out+1 > max(1, total/2)
}
