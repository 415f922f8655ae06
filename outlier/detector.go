package outlier

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// Detector keeps the instances of one service that do worse than the others out of
// rotation. Use [New] to make one for each service. It is safe for concurrent use and
// has no goroutine and no timer, so it needs no end.
type Detector struct {
	config  Config
	epoch   time.Time // times are relative to it
	current atomic.Pointer[view]

	mu        sync.Mutex // guards changes of current, what members say it guards, and:
	gone      map[string]*member
	median    uint64        // of the typical latencies, as log2 has it; 0 = not known
	looked    time.Duration // when the median was last looked for; 0 = never
	ejections [reasons]uint64
	queue     []Change // not yet told to the listeners
	telling   bool
	listeners []func(Change)
}

// view is what the detector knows of one set. It is replaced when the set or what is in
// rotation changes.
type view struct {
	of       *balance.Set
	rotation *balance.Set
	members  []*member // in the order of the set
	index    map[*balance.Endpoint]*member
	due      time.Duration // when the first ejection ends; 0 = nobody is ejected
	out      int           // members that are not serving
}

// New returns a detector. The error says which field of cfg is wrong and what it may be.
func New(cfg Config) (*Detector, error) {
	c, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	d := &Detector{config: c, epoch: time.Now(), gone: map[string]*member{}}
	d.current.Store(&view{})
	return d, nil
}

// now returns the time since epoch, never 0.
func (d *Detector) now() time.Duration { return time.Since(d.epoch) | 1 }

// InRotation returns the endpoints of set that may be picked from: set itself while all
// is well. Call it with the service's newest set each time an endpoint is picked; give it
// all endpoints, and let pickers like [balance.PreferZone] choose among those that it
// returns. The same set is returned until something changes, so that what pickers know of
// it stays good.
//
// It does not allocate, and reads the clock only while somebody is ejected. When an
// ejection is over or set is another one than before, it takes time in proportion to
// the size of the set.
func (d *Detector) InRotation(set *balance.Set) *balance.Set {
	v := d.current.Load()
	if v.of == set && (v.due == 0 || d.now() < v.due) {
		return v.rotation
	}
	return d.renew(set)
}

// renew is InRotation when something has changed.
func (d *Detector) renew(set *balance.Set) *balance.Set {
	if set.Len() == 0 {
		return set // what is known of those that were there is kept for when they are back
	}
	d.mu.Lock()
	now := d.now()
	v := d.current.Load()
	if v.of == set && (v.due == 0 || now < v.due) { // another call has just done it
		d.mu.Unlock()
		return v.rotation
	}
	if v.of != set {
		v = d.follow(v, set, now)
	}
	for _, m := range v.members {
		if m.state.Load() == ejected && m.until <= now {
			d.probe(m, now)
		}
	}
	v = d.rotate(v, now)
	d.mu.Unlock()
	d.tell()
	return v.rotation
}

// Report tells how an attempt at a call went: how long it took until the answer, or
// until there was none, and whether it failed (no connection, no answer in time, a
// status of 500 or more). Report every attempt to an endpoint that was picked, but not
// one that the caller gave up, unless it had already taken longer than calls do: report that with the time it
// took, and not as failed. Attempts at endpoints that are not in the set count nothing.
//
// It does not allocate.
func (d *Detector) Report(ep *balance.Endpoint, latency time.Duration, failed bool) {
	m := d.current.Load().member(ep)
	if m == nil {
		return
	}
	if m.state.Load() != serving {
		d.probed(m, latency, failed)
		return
	}
	if m.count(latency, failed, d.config.Consecutive) {
		d.judge(m)
	}
}

// member returns what is known of ep; nil if it is not in the set.
func (v *view) member(ep *balance.Endpoint) *member {
	if m := v.index[ep]; m != nil {
		return m
	}
	// A call may have begun before the endpoint was replaced by one of another weight.
	for i, j := 0, v.of.Len(); ep != nil && i < j; {
		h := (i + j) / 2
		switch at := v.of.At(h); {
		case at.ID == ep.ID && at.Address == ep.Address:
			return v.members[h]
		case at.ID < ep.ID:
			i = h + 1
		default:
			j = h
		}
	}
	return nil
}

// follow returns the view of another set, with what is known of the instances that
// stay. d.mu is held.
func (d *Detector) follow(before *view, set *balance.Set, now time.Duration) *view {
	next := &view{of: set, members: make([]*member, 0, set.Len()), index: make(map[*balance.Endpoint]*member, set.Len())}
	i := 0
	for ep := range set.All() {
		for ; i < len(before.members) && before.members[i].endpoint.ID < ep.ID; i++ {
			d.leave(before.members[i], now)
		}
		var m *member
		if i < len(before.members) && before.members[i].endpoint.ID == ep.ID {
			m = before.members[i]
			i++
		} else if m = d.gone[ep.ID]; m != nil {
			delete(d.gone, ep.ID)
		}
		if m == nil || m.endpoint.Address != ep.Address { // at another address it is another instance
			m = &member{}
		}
		m.endpoint = ep
		next.members = append(next.members, m)
		next.index[ep] = m
	}
	for ; i < len(before.members); i++ {
		d.leave(before.members[i], now)
	}
	return next
}

// maxGone bounds how many instances that have left are remembered.
const maxGone = 1024

// leave keeps an ejected instance in mind that has left the set, until its ejection
// would be over: it may come back sooner, as one does that its health check lets in and
// out. d.mu is held.
func (d *Detector) leave(m *member, now time.Duration) {
	if m.state.Load() == serving {
		return
	}
	for id, g := range d.gone {
		if g.until <= now {
			delete(d.gone, id)
		}
	}
	if m.until > now && len(d.gone) < maxGone {
		d.gone[m.endpoint.ID] = m
	}
}

// rotate makes v's rotation anew and v the current view. d.mu is held.
func (d *Detector) rotate(v *view, now time.Duration) *view {
	next := &view{of: v.of, members: v.members, index: v.index}
	for _, m := range next.members {
		if m.state.Load() != serving {
			next.out++
		}
	}
	for allowed := d.config.allowed(len(next.members)); next.out > allowed; next.out-- {
		d.serve(next.leastBad(), now) // others have left
	}
	in := make([]*balance.Endpoint, 0, len(next.members))
	var probes []*balance.Endpoint
	asItIs := true
	next.due = math.MaxInt64
	for _, m := range next.members {
		if m.state.Load() == ejected {
			next.due = min(next.due, m.until)
			continue
		}
		if m.state.Load() == probing {
			probes = append(probes, m.endpoint)
		}
		// Sets know newcomers only if they are made after those have come.
		asItIs = asItIs && m.warm <= now
		in = append(in, m.endpoint)
	}
	if next.due == math.MaxInt64 {
		next.due = 0
	}
	next.rotation = next.of
	if !asItIs || next.out > 0 {
		next.rotation = balance.NewSet(in).Probing(probes...)
	}
	d.current.Store(next)
	return next
}

// leastBad returns the member out of rotation that should come back first: a slow one,
// else the one whose ejection is over first; nil if there is none.
func (v *view) leastBad() *member {
	var best *member
	for _, m := range v.members {
		if m.state.Load() == serving {
			continue
		}
		if best == nil || (m.reason == Slow) != (best.reason == Slow) {
			if best == nil || m.reason == Slow {
				best = m
			}
		} else if m.until < best.until {
			best = m
		}
	}
	return best
}
