package balance

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// DefaultBound is how far above the mean the load of an endpoint may rise before
// [ConsistentHash] sends calls elsewhere.
const DefaultBound = 1.25

const (
	// slotBits: keys are divided into 2^slotBits slots, each of which belongs to one
	// endpoint. It can't depend on the number of endpoints, since all keys would move
	// when it changed. 1,000 endpoints have 65 slots each, give or take 8.
	slotBits = 16

	// few endpoints are asked for their bids each time, and counted each time.
	// That is as fast as a table and takes no memory.
	few = 16

	// maxJumps bounds the search for an endpoint below the bound.
	maxJumps = 64
)

// ConsistentHash returns a picker that sends all calls with the same key to the same
// endpoint, whichever process they come from. When an endpoint goes, only its own
// keys move, and they are shared out among all the others; one that comes takes its
// share of the keys and moves no other ("rendezvous hashing"). Shares are in
// proportion to weights. Pick is PickKey with a random key.
//
// A key that everybody asks for must not break its endpoint: while an endpoint has more
// calls in flight than bound times the mean (for its weight), further calls for its
// keys go to the key's next endpoint, and so on ("consistent hashing with bounded
// loads", Mirrokni, Thorup and Zadimoghaddam, 2016, with the random jumps of Chen,
// Coleman and Shrivastava, 2021). A bound nearer to 1 balances better and moves more
// calls; 1 or less means [DefaultBound], and math.Inf(1) none. The mean is that of
// the calls this process has in flight. With more than 16 endpoints it is not
// counted for every pick and may lag by the calls that one endpoint in 16 begins.
//
// Keys come to an endpoint that is new beside others one by one; see [Endpoint.SlowStart].
//
// A pick is O(1), but for the first one in each of 65,536 slots of keys, which is
// O(n); what is known of the slots is carried over when the set changes. A picker that
// is used with more than 16 endpoints holds 256 KiB.
func ConsistentHash(bound float64) KeyPicker {
	if !(bound > 1) { // NaN too
		bound = DefaultBound
	}
	return &consistentHash{bound: bound}
}

type consistentHash struct {
	bound float64
	table atomic.Pointer[slotTable]
	mu    sync.Mutex // held to replace table
}

// slotTable is what the picker knows of one set.
type slotTable struct {
	set    *Set
	seeds  []uint64
	owners []atomic.Uint32 // of each slot: the position of its endpoint, plus 1; 0 = not known yet. Nil for few
	total  atomic.Int64    // calls in flight, when last counted
	budget atomic.Int64    // what comparisons with the total may still cost before it is counted again
}

func (p *consistentHash) Pick(s *Set) *Endpoint { return p.pick(s, rand.Uint64()) }

func (p *consistentHash) PickKey(s *Set, key string) *Endpoint { return p.pick(s, hashString(key)) }

func (p *consistentHash) pick(s *Set, hash uint64) *Endpoint {
	switch s.Len() {
	case 0:
		return nil
	case 1:
		return s.endpoints[0]
	}
	t := p.of(s)
	key := hash
	for range maxJumps {
		e := s.endpoints[t.owner(hash)]
		if load := e.InFlight(); (load <= 0 || t.allows(e, load, p.bound)) && !s.passesOverKey(e, key) {
			return e
		}
		hash = mix(hash + golden)
	}
	return leastLoaded(s, nil) // which is never above the mean
}

// of returns the table of s.
func (p *consistentHash) of(s *Set) *slotTable {
	t := p.table.Load()
	if t != nil && t.set == s {
		return t
	}
	// One caller makes it, and those who come meanwhile wait, which takes less than if
	// each made its own.
	p.mu.Lock()
	defer p.mu.Unlock()
	if t = p.table.Load(); t == nil || t.set != s {
		t = t.next(s)
		p.table.Store(t)
	}
	return t
}

// owner returns the position of the endpoint that has the key of this hash.
func (t *slotTable) owner(hash uint64) int {
	slot := hash >> (64 - slotBits)
	if t.owners == nil {
		return t.set.highest(place(slot), t.seeds)
	}
	if o := t.owners[slot].Load(); o != 0 {
		return int(o - 1)
	}
	o := t.set.highest(place(slot), t.seeds)
	t.owners[slot].Store(uint32(o + 1))
	return o
}

// place is the random number that stands for a slot.
func place(slot uint64) uint64 { return mix(slot + golden) }

// allows reports whether e, with load calls in flight, can have one more.
func (t *slotTable) allows(e *Endpoint, load int64, bound float64) bool {
	// Counting costs as much as there are endpoints, so it is done once for so many
	// comparisons: on average, each costs as if there were few.
	if t.budget.Add(-few) < 0 {
		total := int64(0)
		for _, c := range t.set.cells {
			total += max(c.inFlight(), 0)
		}
		t.total.Store(total)
		t.budget.Store(int64(len(t.set.endpoints)) - few)
	}
	weight, weights := 1, len(t.set.endpoints)
	if s := t.set.shares; s != nil {
		weight, weights = e.weight(), s.total
	}
	// load + 1 <= bound * (total+1) * weight / weights, rounded up; without a division,
	// which would round a whole number up sometimes.
	return float64(load)*float64(weights) < bound*float64(t.total.Load()+1)*float64(weight)
}

// next returns the table for s, with all that t knows which is still true. t may be
// nil.
func (t *slotTable) next(s *Set) *slotTable {
	next := &slotTable{set: s, seeds: s.seeds()}
	if s.Len() <= few {
		return next
	}
	next.owners = make([]atomic.Uint32, 1<<slotBits)
	if t == nil || t.owners == nil {
		return next
	}
	moved, added := t.set.changes(s)
	if len(added) > few {
		return next // asking the new ones about every slot would cost more than it saves
	}
	for slot := range t.owners {
		before := t.owners[slot].Load()
		if before == 0 || moved[before-1] == 0 {
			continue // not known, or gone
		}
		now := moved[before-1]
		if len(added) > 0 {
			now = next.defend(now, added, place(uint64(slot)))
		}
		next.owners[slot].Store(now)
	}
	return next
}

// defend returns who has a place, once added have bid against the owner. All are
// positions plus 1.
func (t *slotTable) defend(owner uint32, added []uint32, place uint64) uint32 {
	highest := bid(t.seeds[owner-1], place)
	for _, a := range added {
		b := bid(t.seeds[a-1], place)
		if t.set.outbids(b, t.set.endpoints[a-1], highest, t.set.endpoints[owner-1]) {
			owner, highest = a, b
		}
	}
	return owner
}

// changes compares s with the set that follows it. moved tells, for each position
// in s, the one in next; added are the positions of the endpoints that s has not,
// or not with the same weight, which then have not moved. Positions are counted from 1,
// 0 meaning none.
func (s *Set) changes(next *Set) (moved, added []uint32) {
	moved = make([]uint32, s.Len())
	i := 0
	for j, e := range next.endpoints {
		for i < len(moved) && s.endpoints[i].ID < e.ID {
			i++
		}
		if i < len(moved) && s.endpoints[i].ID == e.ID && s.endpoints[i].weight() == e.weight() {
			moved[i] = uint32(j + 1)
		} else {
			added = append(added, uint32(j+1))
		}
	}
	return moved, added
}

// heir returns the endpoint that would have the key of this hash if those in tried
// were not there; nil if there is nobody else. It is O(n).
func (s *Set) heir(hash uint64, tried []*Endpoint) *Endpoint {
	place := place(hash >> (64 - slotBits))
	var best *Endpoint
	var highest uint64
	for e := range s.All() {
		if contains(tried, e) {
			continue
		}
		if b := bid(hashString(e.ID), place); best == nil || s.outbids(b, e, highest, best) {
			best, highest = e, b
		}
	}
	return best
}
