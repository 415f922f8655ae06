package balance

import (
	"math/rand/v2"
	"sync/atomic"
)

// RoundRobin returns a picker that takes each endpoint in its turn, in the order
// of IDs, from a random start (so that many clients that start together do not
// all call the same endpoint first).
//
// When the set changes it goes on after the endpoint it picked last, even if that
// one is gone: no endpoint that stays is skipped or gets a second turn before the
// others had theirs. This holds for one caller at a time or many with the same
// set; callers that pick from an old and a new set at the same moment may see a
// turn repeated. The first pick from a changed set allocates and is O(log n).
func RoundRobin() Picker { return &roundRobin{} }

type roundRobin struct {
	round atomic.Pointer[round]
}

// round is the position within one set.
type round struct {
	set    *Set
	start  uint64        // position of the first pick
	picked atomic.Uint64 // picks made so far
}

func (p *roundRobin) Pick(s *Set) *Endpoint {
	for range passes {
		if e := p.turn(s); !s.passesOver(e) {
			return e
		}
	}
	return leastLoaded(s, nil)
}

func (p *roundRobin) turn(s *Set) *Endpoint {
	n := uint64(s.Len())
	if n == 0 {
		return nil // the position is kept for the next set
	}
	for {
		r := p.round.Load()
		if r != nil && r.set == s {
			return s.endpoints[(r.start+r.picked.Add(1)-1)%n]
		}
		// The loser of this race takes its turn in the winner's round.
		p.round.CompareAndSwap(r, r.next(s))
	}
}

// next returns the round that goes on in s where r stopped.
func (r *round) next(s *Set) *round {
	if r == nil {
		return &round{set: s, start: uint64(rand.IntN(s.Len()))}
	}
	// The endpoint before the next turn; r may be so new that nobody picked from it.
	n := uint64(r.set.Len())
	last := r.set.endpoints[(r.start+r.picked.Load()+n-1)%n]
	return &round{set: s, start: uint64(s.after(last.ID))}
}
