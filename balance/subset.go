package balance

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// Subset returns size endpoints of s chosen for a client: any text that is its own, such
// as the ID of its instance. The same client gets the same ones of the same set, and when
// an endpoint comes or goes at most one of them changes. Clients together use all
// endpoints about equally ("random subsetting", by rendezvous hashing); weights do not
// matter for the choice, only among those chosen. A size of 0 or less, or of
// all there are, returns s.
func (s *Set) Subset(client string, size int) *Set {
	if size <= 0 || size >= s.Len() {
		return s
	}
	type bidder struct {
		bid      uint64
		endpoint *Endpoint
	}
	place := mix(hashString(client))
	best := make([]bidder, 0, size+1) // the highest bids so far, in order; few come late enough to be inserted
	for _, e := range s.endpoints {
		b := bidder{bid(hashString(e.ID), place), e}
		if len(best) == size && b.bid <= best[size-1].bid {
			continue
		}
		i, _ := slices.BinarySearchFunc(best, b, func(a, b bidder) int { return cmp.Compare(b.bid, a.bid) })
		best = slices.Insert(best, i, b)
		best = best[:min(len(best), size)]
	}
	chosen := make([]*Endpoint, size)
	for i := range chosen {
		chosen[i] = best[i].endpoint
	}
	return s.part(chosen)
}

// Subsetting returns a picker that lets inner choose among the [Set.Subset] of size
// endpoints for client, for services so large that a client should not keep connections
// to all of them. Take a size that bears the loss of some endpoints, 20 or more, and as
// many clients that each endpoint is in many subsets: with m clients the number of
// subsets an endpoint is in spreads by about the square root of m*size/n.
//
// The subset is made once for each set, in O(n) if it is small, and kept. The other attempts of
// a call that failed may leave it: see [PickExcept].
func Subsetting(inner Picker, client string, size int) KeyPicker {
	return &subsetting{inner: inner, client: client, size: size}
}

type subsetting struct {
	inner  Picker
	client string
	size   int
	last   atomic.Pointer[subset]
}

// subset is what was made of one set.
type subset struct{ of, set *Set }

func (p *subsetting) Pick(s *Set) *Endpoint { return p.inner.Pick(p.subset(s)) }

// PickKey does not mind the key if the inner picker does not.
func (p *subsetting) PickKey(s *Set, key string) *Endpoint { return pickKey(p.inner, p.subset(s), key) }

func (p *subsetting) subset(s *Set) *Set {
	if p.size <= 0 || s.Len() <= p.size {
		return s
	}
	last := p.last.Load()
	if last == nil || last.of != s {
		next := &subset{of: s, set: s.Subset(p.client, p.size)}
		if last != nil {
			next.set = next.set.unless(last.set)
		}
		p.last.Store(next)
		last = next
	}
	return last.set
}

// pickKey picks with the key if p minds it.
func pickKey(p Picker, s *Set, key string) *Endpoint {
	if keyed, ok := p.(KeyPicker); ok {
		return keyed.PickKey(s, key)
	}
	return p.Pick(s)
}
