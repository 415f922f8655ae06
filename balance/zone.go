package balance

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

const (
	// patience is how many times as long as elsewhere a call may take in the zone, and
	// how many times its part the zone may have to carry, before calls leave it.
	patience = 2

	// oneInScouts of the calls goes to other zones in any case: nobody would know
	// otherwise how long calls take there.
	oneInScouts = 128
)

// PreferZone returns a picker for callers in a zone, which keeps their calls in that
// zone while it can take them. newPicker makes the pickers that choose within the zone
// and among all other endpoints. With an empty zone it is just newPicker().
//
// Calls leave the zone gradually, for two reasons:
//
//   - It is slow. If calls take more than twice as long there as they do elsewhere, a
//     part of them goes elsewhere: half at four times as long, three quarters at eight.
//     What counts is the mean of the last calls as this process sees it, failures and
//     silence included, so the way to other zones counts too. As the zone recovers, its
//     calls come back.
//   - It is small. If, of the service's capacity (its endpoints by weight), it has less
//     than half of what it would have if all zones were alike, so much of the calls
//     stays as would make its endpoints carry twice as much as the mean if every zone had
//     as many callers. If it has no endpoints, all calls go elsewhere.
//
// One call in 128 goes elsewhere anyway, so that it is known how long calls take there.
// An endpoint elsewhere that is not known counts as no better than the zone; one that
// was slow counts as slow no longer when it has been left alone for a while.
//
// Calls with a key stay together, if the inner pickers see to that: the same keys stay
// and the same leave first. The other attempts of a call that failed may go anywhere:
// see [PickExcept].
func PreferZone(zone string, newPicker func() Picker) KeyPicker {
	if zone == "" {
		return unzoned{newPicker()}
	}
	return &zoned{zone: zone, near: newPicker(), far: newPicker()}
}

type unzoned struct{ Picker }

func (p unzoned) PickKey(s *Set, key string) *Endpoint { return pickKey(p.Picker, s, key) }

type zoned struct {
	zone      string
	near, far Picker // one each, since what they remember is about one set
	last      atomic.Pointer[split]
}

// split is a set, divided.
type split struct {
	of        *Set
	near, far *Set
	keep      uint64 // of 2^32 calls, how many may stay
}

func (p *zoned) Pick(s *Set) *Endpoint { return p.pick(s, rand.Uint64(), "", false) }

func (p *zoned) PickKey(s *Set, key string) *Endpoint { return p.pick(s, hashString(key), key, true) }

// pick decides with r, which is random or the hash of the key.
func (p *zoned) pick(s *Set, r uint64, key string, keyed bool) *Endpoint {
	if s.Len() == 0 {
		return nil
	}
	d := p.divide(s)
	if d.far.Len() == 0 {
		return pickWith(p.near, d.near, key, keyed)
	}
	if d.near.Len() == 0 || (mix(r)>>32 >= d.keep && !d.far.waits()) || (s.unsettled != 0 && d.near.isNewIn(s, uint32(mix(r)))) {
		return pickWith(p.far, d.far, key, keyed)
	}
	e := pickWith(p.near, d.near, key, keyed)
	other := below(uint32(r), len(d.far.endpoints))
	mean := math.Float64frombits(d.far.endpoints[other].mean.Load())
	if mean == 0 {
		return e // not known: no better than here. That is most of those of a large service
	}
	now := coarse.now.Load()
	here := e.here(now)
	// Where calls take x times as long as patience allows, 1/x of them stay.
	if here*float64(r>>32) > patience*(1<<32)*elsewhere(mean, d.far.cells[other], now, here) && !d.far.waits() {
		return pickWith(p.far, d.far, key, keyed)
	}
	return e
}

func pickWith(p Picker, s *Set, key string, keyed bool) *Endpoint {
	if keyed {
		return pickKey(p, s, key)
	}
	return p.Pick(s)
}

// here is how long a call to e takes, for an endpoint that calls may have to leave. A
// first call may wait as long as unknownLatency before that counts.
func (e *Endpoint) here(now int64) float64 {
	mean := math.Float64frombits(e.mean.Load())
	silent, age := silence(e.cell.times.Load(), ticks(now))
	wait := float64(expected(0, silent, age))
	if mean == 0 {
		return max(wait-float64(unknownLatency), 0)
	}
	return max(mean, wait)
}

// elsewhere is how long a call takes to an endpoint of that mean, which may take calls from
// where they take here. Bad news fades, so that it is tried again; good news does not: if
// it is wrong, the first calls tell.
func elsewhere(mean float64, c *cell, now int64, here float64) float64 {
	wait, age := silence(c.times.Load(), ticks(now))
	latency := max(mean, float64(wait*tick))
	if latency <= here {
		return latency
	}
	return here + float64(fade(math.Float32bits(float32(latency-here)), age))
}

// divide returns the two parts of s.
func (p *zoned) divide(s *Set) *split {
	last := p.last.Load()
	if last != nil && last.of == s {
		return last
	}
	var near, far []*Endpoint
	zones := map[string]bool{}
	nearWeight, weight := 0, 0
	for _, e := range s.endpoints {
		zones[e.Zone] = true
		weight += e.weight()
		if e.Zone != p.zone {
			far = append(far, e)
			continue
		}
		near = append(near, e)
		nearWeight += e.weight()
	}
	share := patience * float64(len(zones)) * float64(nearWeight) / float64(weight)
	next := &split{
		of: s, near: s.part(near), far: s.part(far),
		keep: uint64(min(share, 1-1.0/oneInScouts) * (1 << 32)),
	}
	if last != nil {
		next.near, next.far = next.near.unless(last.near), next.far.unless(last.far)
	}
	p.last.Store(next)
	return next
}

// unless returns before if it has the same endpoints as s, else s. What pickers know of
// before stays good, then.
func (s *Set) unless(before *Set) *Set {
	if s.like(before) {
		return before
	}
	return s
}
