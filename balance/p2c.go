package balance

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// P2C returns a picker that takes two different endpoints at random and keeps
// the one where the next call will be over sooner, by its moving latency and the
// calls in flight ("power of two choices", peak EWMA; see the package comment).
// An endpoint that was never tried wins against any other, until it has one call
// in flight; then it waits for the result of that call.
//
// Where weights differ, the two are drawn in proportion to their weights, and calls in
// flight count less the greater the weight is.
func P2C() Picker { return p2c{} }

type p2c struct{}

func (p2c) Pick(s *Set) *Endpoint {
	n := s.Len()
	if n < 2 {
		if n == 0 {
			return nil
		}
		return s.endpoints[0]
	}
	if s.shares != nil {
		return s.weightedP2C()
	}
	r := rand.Uint64()
	i, j := below(uint32(r), n), below(uint32(r>>32), n-1)
	// i and j are different, each pair equally likely: j++ if j >= i. This and the
	// choice below are written without branches, which would be predicted wrong every
	// other time and cost a third of the pick.
	j += int(uint64(i-j-1) >> 63)
	now := coarse.now.Load()
	_, less := bits.Sub64(s.endpoints[j].cost(now), s.endpoints[i].cost(now), 0)
	return s.endpoints[i^(i^j)&-int(less)]
}

func (s *Set) weightedP2C() *Endpoint {
	r := rand.Uint64()
	i := s.shares.at(r)
	j := s.shares.others(i, r<<32) // the low half, which hardly mattered for i
	now := coarse.now.Load()
	a, b := s.endpoints[i], s.endpoints[j]
	// Each relative cost, by its weight, is the cost; times the other's weight it
	// compares the same way without a division.
	costA := a.relativeCost(now, s.shares.mean) * float64(b.weight())
	costB := b.relativeCost(now, s.shares.mean) * float64(a.weight())
	_, less := bits.Sub64(math.Float64bits(costB), math.Float64bits(costA), 0)
	return s.endpoints[i^(i^j)&-int(less)]
}

// below maps 32 random bits to [0, n) by multiplication, which is cheaper than a
// division. n fits into 32 bits; the bias is below n/2^32.
func below(r uint32, n int) int { return int(uint64(r) * uint64(n) >> 32) }
