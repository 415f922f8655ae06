package balance

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// DefaultSlowStart is the time in which the share of a new endpoint grows to the whole:
// enough for connection pools, caches and a just-in-time compiler, and short enough
// that a service that is scaled up because it is overloaded gets help soon.
const DefaultSlowStart = 10 * time.Second

const (
	// leastShare is what an endpoint begins with: less would leave a service that is
	// called a few times a second without a call to warm up with.
	leastShare = 0.1

	// probePace is how long a probing endpoint waits for its next call if it is idle, and
	// probeWait is how long if it is not: its call may be a stream, or another client's.
	probePace = 100 * time.Millisecond
	probeWait = time.Second

	// passes is how many endpoints in a row may be passed over until all are looked at.
	passes = 8
)

// SlowStart lets the endpoint take a share of its calls that grows evenly from a tenth
// to the whole within window, from now on. Sets made from now on know of it. With a window
// of 0 or less the endpoint takes its whole share at once. NewEndpoint does it with
// [DefaultSlowStart].
//
// The share is compared with that of the endpoint of the set that is furthest: if all
// are new, as in a process that has just started, they share as if none was.
func (e *Endpoint) SlowStart(window time.Duration) {
	e.started.Store(readClock())
	e.window.Store(int64(max(window, 0)))
}

// Forget makes the endpoint one of which nothing is known but the calls in flight, like
// one that was never tried: for one that comes back after it had failed. [P2C] would hold
// the failures against it for a minute.
func (e *Endpoint) Forget() {
	e.updated.Store(0) // what the latency was is not measured any more
	e.mean.Store(0)
	e.cell.forget()
}

// Probing returns a set like s in which each of eps that is in it takes single calls, to
// show what it can do: the next one when it is idle, but not more than ten in a second;
// or when it has had none for a second. All pickers heed that while there are other
// endpoints.
func (s *Set) Probing(eps ...*Endpoint) *Set {
	if s.Len() == 0 || len(eps) == 0 {
		return s
	}
	probes := make(map[*Endpoint]*probe, len(eps))
	for _, e := range eps {
		p := new(probe)
		p.last.Store(-never)
		probes[e] = p
	}
	next := *s
	next.take(probes)
	return &next
}

// probe is an endpoint that takes single calls.
type probe struct {
	last atomic.Int64 // when it was picked last, on the coarse clock
}

// may reports whether e, which it is about, can be picked.
func (p *probe) may(e *Endpoint, now int64) bool {
	since := now - p.last.Load()
	return since >= int64(probeWait) || (since >= int64(probePace) && e.InFlight() <= 0)
}

// part returns a set of some of the endpoints of s, in the same order.
func (s *Set) part(eps []*Endpoint) *Set {
	part := NewSet(eps)
	part.take(s.probes)
	return part
}

// take takes over those of probes whose endpoints are in s.
func (s *Set) take(probes map[*Endpoint]*probe) {
	s.probes = nil
	if len(probes) == 0 {
		return
	}
	s.probes = make(map[*Endpoint]*probe, min(len(probes), len(s.endpoints)))
	for _, e := range s.endpoints {
		if p := probes[e]; p != nil {
			s.probes[e] = p
		}
	}
	if len(s.probes) > 0 {
		s.unsettled = never
	}
}

// warmth returns the share of its calls that the endpoint can take, leastShare to 1.
func (e *Endpoint) warmth(now int64) float64 {
	window := e.window.Load()
	if window == 0 {
		return 1
	}
	return min(max(float64(now-e.started.Load())/float64(window), leastShare), 1)
}

// newcomers notes in s whether some of its endpoints are to take less than their share,
// and until when. first and last are when the lead and the newest one are ready.
func (s *Set) newcomers(first, last int64) {
	// Those that came at nearly the same time, as the first ones do, are alike.
	const alike = int64(leastShare * float64(DefaultSlowStart))
	if last > coarse.now.Load() && last-first > alike {
		s.unsettled = last
	}
}

// ready returns when e can take its whole share.
func (e *Endpoint) ready() int64 { return e.started.Load() + e.window.Load() }

// like reports whether what a picker knows of before is as good for s.
func (s *Set) like(before *Set) bool {
	unsettled := before.unsettled
	if unsettled <= coarse.now.Load() {
		unsettled = 0
	}
	return s.unsettled == unsettled && maps.Equal(s.probes, before.probes) && slices.Equal(s.endpoints, before.endpoints)
}

// passesOver reports whether e, which was picked from s, is to be passed over this time.
// If not, it counts as picked.
func (s *Set) passesOver(e *Endpoint) bool {
	return s != nil && s.unsettled != 0 && s.passesOverBy(e, rand.Uint32())
}

// passesOverKey decides for a key by its hash, so that while an endpoint warms up its
// keys come to it one by one, and stay.
func (s *Set) passesOverKey(e *Endpoint, hash uint64) bool {
	return s.unsettled != 0 && s.passesOverBy(e, uint32(mix(hash)))
}

func (s *Set) passesOverBy(e *Endpoint, r uint32) bool {
	now := coarse.now.Load()
	return s.holdsBack(e, now, r) || !s.claim(e, now)
}

// holdsBack reports whether e, which is in s, is a newcomer that is not to be picked this
// time, decided by r, which is random or the hash of a key.
func (s *Set) holdsBack(e *Endpoint, now int64, r uint32) bool {
	if now >= s.unsettled {
		return false
	}
	if p := s.probes[e]; p != nil {
		return !p.may(e, now)
	}
	return float64(r)*s.lead.warmth(now) >= (1<<32)*e.warmth(now)
}

// isNew reports whether e is a newcomer, which holdsBack may hold back.
func (s *Set) isNew(e *Endpoint, now int64) bool {
	return e.warmth(now) < s.lead.warmth(now) || s.probes[e] != nil
}

// claim reports whether e can be picked, if it is not held back: of several callers that
// pick a probing endpoint at the same moment, one gets it.
func (s *Set) claim(e *Endpoint, now int64) bool {
	p := s.probes[e]
	if p == nil {
		return true
	}
	last := p.last.Load()
	return p.may(e, now) && p.last.CompareAndSwap(last, now)
}

// isNewIn reports whether s, a part of all, is to be passed over this time because all of
// its endpoints are new, or probing. Within s nobody would hold them back.
func (s *Set) isNewIn(all *Set, r uint32) bool {
	now := coarse.now.Load()
	if now >= all.unsettled {
		return false
	}
	if len(s.probes) == len(s.endpoints) {
		return s.waits()
	}
	return float64(r)*all.lead.warmth(now) >= (1<<32)*s.lead.warmth(now)
}

// waits reports whether all endpoints of s, of which there are some, are probing, and none
// can be picked now. If all are and one can, it counts as picked.
func (s *Set) waits() bool {
	if len(s.probes) < len(s.endpoints) {
		return false
	}
	now := coarse.now.Load()
	return !slices.ContainsFunc(s.endpoints, func(e *Endpoint) bool { return s.claim(e, now) })
}
