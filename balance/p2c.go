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
	now := coarse.now.Load()
	if now < s.unsettled {
		return s.settledP2C(now)
	}
	if s.shares != nil {
		i, j := s.shares.draw(rand.Uint64())
		return s.endpoints[s.cheaperWeighted(i, j, now)]
	}
	i, j := draw(rand.Uint64(), n)
	return s.endpoints[s.cheaper(i, j, now)]
}

// draw makes two different positions below n of a random number. Each pair is equally
// likely.
func draw(r uint64, n int) (i, j int) {
	i, j = below(uint32(r), n), below(uint32(r>>32), n-1)
	// j++ if j >= i. This and the choice below are written without branches, which would
	// be predicted wrong every other time and cost a third of the pick.
	return i, j + int(uint64(i-j-1)>>63)
}

// draw makes two different positions of a random number, as likely as their weights want
// it.
func (s *shares) draw(r uint64) (i, j int) {
	i = s.at(r)
	return i, s.others(i, r<<32) // the low half, which hardly mattered for i
}

// cheaper returns the one of two positions whose endpoint takes the next call at less
// cost.
func (s *Set) cheaper(i, j int, now int64) int {
	a, b, t := s.cells[i], s.cells[j], ticks(now)
	// All four loads first, since two of them may have to wait for the memory.
	loadA, loadB, timesA, timesB := a.load.Load(), b.load.Load(), a.times.Load(), b.times.Load()
	_, less := bits.Sub32(cost(loadB, timesB, t), cost(loadA, timesA, t), 0)
	return i ^ (i^j)&-int(less)
}

// settledP2C is Pick while there are newcomers, which are passed over for their part.
func (s *Set) settledP2C(now int64) *Endpoint {
	for range passes {
		a, b := s.drawAny()
		r := rand.Uint64()
		overA := s.holdsBack(s.endpoints[a], now, uint32(r))
		overB := s.holdsBack(s.endpoints[b], now, uint32(r>>32))
		var i int
		switch {
		case overA && overB:
			continue
		case overA:
			i = s.besides(b, now)
		case overB:
			i = s.besides(a, now)
		default:
			i = s.cheaperAny(a, b, now)
		}
		if s.claim(s.endpoints[i], now) {
			return s.endpoints[i]
		}
	}
	return leastLoaded(s, nil)
}

// besides returns i, or a cheaper one that is no newcomer: the one it was drawn with was
// passed over, and without another to compare it with, it would get that one's calls
// however much worse than all others it is.
func (s *Set) besides(i int, now int64) int {
	if len(s.endpoints) == 2 {
		return i
	}
	for range passes {
		a, b := s.drawAny()
		if a == i {
			a = b
		}
		if !s.isNew(s.endpoints[a], now) {
			return s.cheaperAny(i, a, now)
		}
	}
	return i
}

// drawAny and cheaperAny are for sets with and without weights.
func (s *Set) drawAny() (i, j int) {
	if s.shares != nil {
		return s.shares.draw(rand.Uint64())
	}
	return draw(rand.Uint64(), len(s.endpoints))
}

func (s *Set) cheaperAny(i, j int, now int64) int {
	if s.shares != nil {
		return s.cheaperWeighted(i, j, now)
	}
	return s.cheaper(i, j, now)
}

func (s *Set) cheaperWeighted(i, j int, now int64) int {
	t, mean := ticks(now), s.shares.mean
	a, b := s.shares.each[i], s.shares.each[j]
	// Each relative cost, by its weight, is the cost; times the other's weight it
	// compares the same way without a division.
	costA := s.cells[i].relativeCost(t, a, mean) * b
	costB := s.cells[j].relativeCost(t, b, mean) * a
	_, less := bits.Sub32(math.Float32bits(costB), math.Float32bits(costA), 0)
	return i ^ (i^j)&-int(less)
}

// below maps 32 random bits to [0, n) by multiplication, which is cheaper than a
// division. n fits into 32 bits; the bias is below n/2^32.
func below(r uint32, n int) int { return int(uint64(r) * uint64(n) >> 32) }
