package balance

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// The names [New] knows.
const (
	StrategyP2C              = "p2c-ewma"
	StrategyRoundRobin       = "round-robin"
	StrategyRandom           = "random"
	StrategyLeastConnections = "least-connections"
)

// ErrUnknownStrategy says that [New] was given a name it does not know.
var ErrUnknownStrategy = errors.New("unknown balancing strategy")

// Picker chooses the endpoint for the next call. Pick returns nil if the set is
// nil or empty. It is safe for concurrent use. Make one picker per service: what
// round robin remembers makes sense for the sets of one service only.
type Picker interface {
	Pick(s *Set) *Endpoint
}

// Strategies returns the names [New] knows, the default first.
func Strategies() []string {
	return []string{StrategyP2C, StrategyRoundRobin, StrategyRandom, StrategyLeastConnections}
}

// New returns a new picker for the strategy of that name; the empty name means
// the default, "p2c-ewma". For any other name the error wraps
// [ErrUnknownStrategy] and names the strategies there are.
func New(strategy string) (Picker, error) {
	switch strategy {
	case "", StrategyP2C:
		return P2C(), nil
	case StrategyRoundRobin:
		return RoundRobin(), nil
	case StrategyRandom:
		return Random(), nil
	case StrategyLeastConnections:
		return LeastConnections(), nil
	}
	return nil, fmt.Errorf("%w %q: use one of %s", ErrUnknownStrategy, strategy, strings.Join(Strategies(), ", "))
}

// Random returns a picker that takes each endpoint with equal chance.
func Random() Picker { return random{} }

type random struct{}

func (random) Pick(s *Set) *Endpoint {
	n := s.Len()
	if n == 0 {
		return nil
	}
	return s.endpoints[below(uint32(rand.Uint64()), n)]
}

// P2C returns a picker that takes two different endpoints at random and keeps
// the one where the next call will be over sooner, by its moving latency and the
// calls in flight ("power of two choices", peak EWMA; see the package comment).
// An endpoint that was never tried wins against any other, until it has one call
// in flight; then it waits for the result of that call.
func P2C() Picker { return p2c{} }

type p2c struct{}

func (p2c) Pick(s *Set) *Endpoint {
	n := s.Len()
	switch n {
	case 0:
		return nil
	case 1:
		return s.endpoints[0]
	}
	r := rand.Uint64()
	i, j := below(uint32(r), n), below(uint32(r>>32), n-1)
	if j >= i {
		j++ // i and j are different, each pair equally likely
	}
	a, b := s.endpoints[i], s.endpoints[j]
	now := coarse.now.Load()
	// Costs are not negative, and such floats are ordered as their bits are. With
	// integers the compiler makes this a conditional move; a branch would be
	// predicted wrong every other time.
	cheaper := i
	if math.Float64bits(b.cost(now)) < math.Float64bits(a.cost(now)) {
		cheaper = j
	}
	return s.endpoints[cheaper]
}

// LeastConnections returns a picker that takes an endpoint with the fewest calls
// in flight from this process. It looks at every endpoint until it finds an idle
// one, which is O(n); use P2C for services with hundreds of instances. The scan
// starts at a random place, so that ties do not all go to the same endpoint.
func LeastConnections() Picker { return leastConnections{} }

type leastConnections struct{}

func (leastConnections) Pick(s *Set) *Endpoint { return leastLoaded(s, nil) }

// leastLoaded returns the endpoint with the fewest calls in flight that is not
// in tried; nil if there is none.
func leastLoaded(s *Set, tried []*Endpoint) *Endpoint {
	n := s.Len()
	if n == 0 {
		return nil
	}
	start := below(uint32(rand.Uint64()), n)
	var best *Endpoint
	var bestLoad int64
	for k := range n {
		i := start + k
		if i >= n {
			i -= n
		}
		e := s.endpoints[i]
		load := e.inFlight.Load()
		if (best != nil && load >= bestLoad) || contains(tried, e) {
			continue
		}
		if best, bestLoad = e, load; load <= 0 {
			break // nothing is less loaded than idle
		}
	}
	return best
}

// PickExcept picks an endpoint that is not in tried, for the next attempt of a
// call that failed on those; nil if there is none left. Endpoints are told apart by
// their IDs. It asks p a few times and, if p insists on those that were tried,
// takes the least loaded of the others.
func PickExcept(p Picker, s *Set, tried []*Endpoint) *Endpoint {
	const asks = 3
	for range asks {
		e := p.Pick(s)
		if e == nil || !contains(tried, e) {
			return e
		}
	}
	return leastLoaded(s, tried)
}

func contains(tried []*Endpoint, e *Endpoint) bool {
	for _, t := range tried {
		if t == e || (t != nil && t.ID == e.ID) {
			return true
		}
	}
	return false
}

// below maps 32 random bits to [0, n) by multiplication, which is cheaper than a
// division. n fits into 32 bits; the bias is below n/2^32.
func below(r uint32, n int) int { return int(uint64(r) * uint64(n) >> 32) }
