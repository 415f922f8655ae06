package balance

import "math/bits"

// shares divides the numbers from 0 to 2^64-1 among endpoints in the order of their
// set, in proportion to their weights. With it a random number becomes an endpoint in
// O(1) on average, whatever the weights are.
type shares struct {
	last  []uint64  // the last number of each endpoint's share
	guide []uint32  // where the search starts, for each of as many equal parts as there are endpoints
	each  []float32 // the weights
	total int       // of the weights
	mean  float32   // of the weights
	most  int       // the greatest weight
}

// newShares divides them among eps, whose weights differ; total and most are of the
// weights.
func newShares(eps []*Endpoint, total, most int) *shares {
	s := &shares{
		last:  make([]uint64, len(eps)),
		guide: make([]uint32, len(eps)),
		total: total,
		mean:  float32(total) / float32(len(eps)),
		each:  make([]float32, len(eps)),
		most:  most,
	}
	for i, e := range eps {
		s.each[i] = float32(e.weight())
	}
	sum := 0
	for i, e := range eps[:len(eps)-1] {
		sum += e.weight()
		end, _ := bits.Div64(uint64(sum), 0, uint64(total)) // sum/total of 2^64
		s.last[i] = end - 1
	}
	s.last[len(eps)-1] = 1<<64 - 1
	i := 0
	for k := range s.guide {
		first, _ := bits.Div64(uint64(k), 0, uint64(len(eps)))
		for s.last[i] < first {
			i++
		}
		s.guide[k] = uint32(i)
	}
	return s
}

// at returns the position of the endpoint whose share u is in.
func (s *shares) at(u uint64) int {
	k, _ := bits.Mul64(u, uint64(len(s.guide)))
	i := int(s.guide[k])
	for u > s.last[i] {
		i++
	}
	return i
}

// others returns the position of an endpoint other than i: u is looked up in what
// is left when i's share is taken out.
func (s *shares) others(i int, u uint64) int {
	first := uint64(0)
	if i > 0 {
		first = s.last[i-1] + 1
	}
	share := s.last[i] - first + 1 // less than 2^64: there are others
	u, _ = bits.Mul64(u, -share)   // below 2^64 - share
	if u >= first {
		u += share
	}
	return s.at(u)
}
