package balance

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// WeightedRoundRobin returns a picker that gives each endpoint turns in proportion
// to its weight, evenly spread: an endpoint's turns come at nearly equal distances, not
// in a row, and of any number of turns in sequence each endpoint has its share, give or
// take a few.
//
// It takes the endpoints in whose shares the multiples of the golden ratio fall,
// from a random start. All it remembers is one number, so a pick is O(1) for any
// weights and any number of endpoints, and goes on as before when the set changes.
func WeightedRoundRobin() Picker {
	p := &weightedRoundRobin{}
	p.position.Store(rand.Uint64())
	return p
}

type weightedRoundRobin struct {
	position atomic.Uint64
}

// golden is 2^64 by the golden ratio. Its multiples, modulo 2^64, are spread more evenly
// than those of any other number.
const golden = 0x9E3779B97F4A7C15

func (p *weightedRoundRobin) Pick(s *Set) *Endpoint {
	for range passes {
		if e := p.turn(s); !s.passesOver(e) {
			return e
		}
	}
	return leastLoaded(s, nil)
}

func (p *weightedRoundRobin) turn(s *Set) *Endpoint {
	n := s.Len()
	if n == 0 {
		return nil
	}
	u := p.position.Add(golden)
	if s.shares != nil {
		return s.endpoints[s.shares.at(u)]
	}
	i, _ := bits.Mul64(u, uint64(n)) // equal shares
	return s.endpoints[i]
}
