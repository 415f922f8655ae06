package balance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
)

// The names [New] knows.
const (
	StrategyP2C                = "p2c-ewma"
	StrategyRoundRobin         = "round-robin"
	StrategyWeightedRoundRobin = "weighted-round-robin"
	StrategyRandom             = "random"
	StrategyLeastConnections   = "least-connections"
	StrategyConsistentHash     = "consistent-hash"
)

// ErrUnknownStrategy says that [New] was given a name it does not know.
var ErrUnknownStrategy = errors.New("unknown balancing strategy")

// Picker chooses the endpoint for the next call. Pick returns nil if the set is
// nil or empty. It is safe for concurrent use. Make one picker per service: what
// round robin remembers makes sense for the sets of one service only.
type Picker interface {
	Pick(s *Set) *Endpoint
}

// KeyPicker is a Picker that can send all calls with the same key to the same
// endpoint: [ConsistentHash] is one, and so are [PreferZone] and [Subsetting] around one.
// PickKey returns nil if the set is nil or empty.
type KeyPicker interface {
	Picker
	PickKey(s *Set, key string) *Endpoint
}

// Strategies returns the names [New] knows, the default first.
func Strategies() []string {
	return []string{
		StrategyP2C, StrategyRoundRobin, StrategyWeightedRoundRobin, StrategyRandom,
		StrategyLeastConnections, StrategyConsistentHash,
	}
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
	case StrategyWeightedRoundRobin:
		return WeightedRoundRobin(), nil
	case StrategyRandom:
		return Random(), nil
	case StrategyLeastConnections:
		return LeastConnections(), nil
	case StrategyConsistentHash:
		return ConsistentHash(DefaultBound), nil
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
	for range passes {
		if e := s.endpoints[below(uint32(rand.Uint64()), n)]; !s.passesOver(e) {
			return e
		}
	}
	return leastLoaded(s, nil)
}

// LeastConnections returns a picker that takes an endpoint with the fewest calls
// in flight from this process, for its weight. It looks at every endpoint until it finds an idle
// one, which is O(n); use P2C for services with hundreds of instances. The scan
// starts at a random place, so that ties do not all go to the same endpoint.
func LeastConnections() Picker { return leastConnections{} }

type leastConnections struct{}

func (leastConnections) Pick(s *Set) *Endpoint { return leastLoaded(s, nil) }

// leastLoaded returns the endpoint with the fewest calls in flight for its weight
// that is not in tried; nil if there is none.
func leastLoaded(s *Set, tried []*Endpoint) *Endpoint {
	n := s.Len()
	if n == 0 {
		return nil
	}
	now := coarse.now.Load()
	for now < s.unsettled {
		e := leastLoadedOf(s, tried, now)
		if e == nil {
			break // all others are held back
		}
		if s.claim(e, now) {
			return e
		}
		// Another caller was first to have it, so it is held back now.
	}
	return leastLoadedOf(s, tried, never) // when nobody is new
}

// leastLoadedOf passes over newcomers at that time: being idle they would win always. Only
// the one that the scan starts at has a chance, so that no newcomer has more than its share.
func leastLoadedOf(s *Set, tried []*Endpoint, now int64) *Endpoint {
	n := s.Len()
	start := below(uint32(rand.Uint64()), n)
	var best *Endpoint
	var bestLoad, bestWeight int64
	for k := range n {
		i := start + k
		if i >= n {
			i -= n
		}
		e := s.endpoints[i]
		load, weight := s.cells[i].inFlight(), int64(e.weight())
		if (best != nil && load*bestWeight >= bestLoad*weight) || contains(tried, e) || (now < s.unsettled && s.isNew(e, now) && (k > 0 || s.holdsBack(e, now, rand.Uint32()))) {
			continue
		}
		if best, bestLoad, bestWeight = e, load, weight; load <= 0 {
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

// PickKeyExcept is [PickExcept] for a call with a key. If p is a [KeyPicker], calls
// with the same key whose endpoint was tried go to the same next one: that which
// would have the key if those that were tried were not there. With an empty key, or
// another kind of picker, the key does not matter.
func PickKeyExcept(p Picker, s *Set, key string, tried []*Endpoint) *Endpoint {
	keyed, ok := p.(KeyPicker)
	if !ok || key == "" {
		return PickExcept(p, s, tried)
	}
	e := keyed.PickKey(s, key)
	if e == nil || !contains(tried, e) {
		return e
	}
	return s.heir(hashString(key), tried)
}

func contains(tried []*Endpoint, e *Endpoint) bool {
	for _, t := range tried {
		if t == e || (t != nil && t.ID == e.ID) {
			return true
		}
	}
	return false
}
