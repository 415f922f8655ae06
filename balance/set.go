package balance

import (
	"iter"
	"slices"
	"strings"
)

// Set is an immutable snapshot of endpoints, ordered by ID. It is safe for
// concurrent use. A nil Set is an empty one.
type Set struct {
	endpoints []*Endpoint
	cells     []*cell // of the endpoints
	shares    *shares // nil if all weights are equal

	// unsettled is until when, on the coarse clock, some endpoints take less than their
	// share; 0 = none does. lead is the one that they are compared with.
	unsettled int64
	lead      *Endpoint
	probes    map[*Endpoint]*probe // those that take single calls
}

// NewSet makes a set of eps, which it copies and orders. Nil entries and those of
// weight 0 are left out; of several entries with the same ID the last one stays. It is
// O(n) if eps is in order already, as when it comes from another set.
func NewSet(eps []*Endpoint) *Set {
	if s := setOf(eps); s != nil {
		return s
	}
	return setOf(ordered(eps))
}

// setOf returns nil if eps are not in order. It is one pass for all that is to be known of
// an endpoint, as many endpoints do not fit into a processor's cache.
func setOf(eps []*Endpoint) *Set {
	s := &Set{endpoints: make([]*Endpoint, 0, len(eps)), cells: make([]*cell, 0, len(eps))}
	var first, last int64 // when they are ready
	total, most, equal, before := 0, 0, true, (*Endpoint)(nil)
	for _, e := range eps {
		if e == nil {
			continue
		}
		if before != nil && before.ID >= e.ID {
			return nil
		}
		before = e
		if e.Weight <= 0 {
			continue
		}
		weight, ready := e.weight(), e.ready()
		if s.lead == nil {
			first, last, most, s.lead = ready, ready, weight, e
		}
		if ready < first {
			first, s.lead = ready, e
		}
		last = max(last, ready)
		equal = equal && weight == most
		most = max(most, weight)
		total += weight
		s.endpoints = append(s.endpoints, e)
		s.cells = append(s.cells, e.cell)
	}
	if !equal {
		s.shares = newShares(s.endpoints, total, most)
	}
	s.newcomers(first, last)
	return s
}

// ordered returns a copy of eps in the order of IDs, each ID once.
func ordered(eps []*Endpoint) []*Endpoint {
	set := slices.DeleteFunc(slices.Clone(eps), func(e *Endpoint) bool { return e == nil })
	slices.SortStableFunc(set, func(a, b *Endpoint) int { return strings.Compare(a.ID, b.ID) })
	n := 0
	for i, e := range set {
		if i+1 < len(set) && set[i+1].ID == e.ID {
			continue // a later one replaces it
		}
		set[n] = e
		n++
	}
	return set[:n]
}

// Len returns the number of endpoints.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.endpoints)
}

// At returns the endpoint at position i in the order of IDs. It panics if i is
// not in [0, Len()).
func (s *Set) At(i int) *Endpoint { return s.endpoints[i] }

// All iterates over the endpoints in the order of IDs.
func (s *Set) All() iter.Seq[*Endpoint] {
	return func(yield func(*Endpoint) bool) {
		if s == nil {
			return
		}
		for _, e := range s.endpoints {
			if !yield(e) {
				return
			}
		}
	}
}

// after returns the position of the first endpoint whose ID is greater than id,
// or 0 if there is none.
func (s *Set) after(id string) int {
	i, found := slices.BinarySearchFunc(s.endpoints, id, func(e *Endpoint, id string) int {
		return strings.Compare(e.ID, id)
	})
	if found {
		i++
	}
	if i >= len(s.endpoints) {
		return 0
	}
	return i
}
