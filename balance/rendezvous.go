package balance

import (
	"math"
	"math/bits"
)

// A rendezvous is a place that every endpoint bids for; the highest bid wins
// (Thaler and Ravishankar, 1998). A bid depends on nothing but the place and the
// bidder, so an endpoint that comes only takes places, and one that goes only leaves
// those it had.

// bid is what an endpoint bids for a place, both given as random numbers: seed is the
// hash of the endpoint's ID.
func bid(seed, place uint64) uint64 {
	high, low := bits.Mul64(seed^place, 0xA0761D6478BD642F)
	return high ^ low
}

// weigh turns a bid into one that wins in proportion to the bidder's weight. Among
// equal weights it keeps the order. The result is negative.
func weigh(bid uint64, weight int) float64 {
	return math.Log((float64(bid>>11)+0.5)/(1<<53)) / float64(weight)
}

// outbids reports whether a's bid wins against b's. All weights are equal if the set has
// no shares, and the bids alone decide.
func (s *Set) outbids(bidA uint64, a *Endpoint, bidB uint64, b *Endpoint) bool {
	if s.shares == nil {
		return bidA > bidB
	}
	return weigh(bidA, a.weight()) > weigh(bidB, b.weight())
}

// seeds returns the random numbers that stand for the endpoints of s.
func (s *Set) seeds() []uint64 {
	seeds := make([]uint64, s.Len())
	for i := range seeds {
		seeds[i] = hashString(s.endpoints[i].ID)
	}
	return seeds
}

// highest returns the position of the endpoint that wins a place. seeds are those
// of the set, which is not empty.
func (s *Set) highest(place uint64, seeds []uint64) int {
	if s.shares != nil {
		return s.highestWeighed(place, seeds)
	}
	best, highest := 0, uint64(0)
	for i, seed := range seeds {
		if b := bid(seed, place); b > highest {
			best, highest = i, b
		}
	}
	return best
}

func (s *Set) highestWeighed(place uint64, seeds []uint64) int {
	best, highest := 0, math.Inf(-1)
	hopeless := uint64(0) // bids up to this can't win, even with the greatest weight; it saves the logarithm
	for i, seed := range seeds {
		b := bid(seed, place)
		if b <= hopeless {
			continue
		}
		if w := weigh(b, s.endpoints[i].weight()); w > highest {
			best, highest = i, w
			// A little less than exact, for the rounding.
			hopeless = uint64(max(math.Exp(w*float64(s.shares.most))-1e-9, 0) * (1 << 64))
		}
	}
	return best
}
