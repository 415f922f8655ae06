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
	probes    []*probe // those that take single calls
}

// NewSet makes a set of eps, which it copies and orders. Nil entries and those of
// weight 0 are left out; of several entries with the same ID the last one stays. It is
// O(n) if eps is in order already, as when it comes from another set.
func NewSet(eps []*Endpoint) *Set {
	set := ordered(eps)
	// Last, since of several entries with the same ID the last one decides.
	set = slices.DeleteFunc(set, func(e *Endpoint) bool { return e.Weight <= 0 })
	s := &Set{endpoints: set, cells: make([]*cell, len(set)), shares: newShares(set)}
	for i, e := range set {
		s.cells[i] = e.cell
	}
	s.newcomers()
	return s
}

// ordered returns a copy of eps in the order of IDs, each ID once.
func ordered(eps []*Endpoint) []*Endpoint {
	set := make([]*Endpoint, 0, len(eps))
	inOrder := true
	for _, e := range eps {
		if e == nil {
			continue
		}
		if n := len(set); n > 0 && set[n-1].ID >= e.ID {
			inOrder = false
		}
		set = append(set, e)
	}
	if inOrder {
		return set
	}
	slices.SortStableFunc(set, func(a, b *Endpoint) int { return strings.Compare(a.ID, b.ID) })
	n := 0
	for i, e := range set {
		if i+1 < len(set) && set[i+1].ID == e.ID {
			continue // a later one replaces it
		}
		set[n] = e
		n++
	}
	clear(set[n:])
	return set[:n:n]
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
