package registry

import (
	"container/heap"
	"hash/fnv"
	"time"
)

// atOnce is when those are due to whom something has just happened: before all
// whose time has merely come, of whom there may be a long queue.
var atOnce time.Time

// agenda orders patients by when they are due; a container/heap.
type agenda []*patient

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

// Push implements heap.Interface; use schedule.
func (a *agenda) Push(x any) {
	p := x.(*patient)
	p.index = len(*a)
	*a = append(*a, p)
}

// Pop implements heap.Interface; use heap.Pop.
func (a *agenda) Pop() any {
	last := len(*a) - 1
	p := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	p.index = -1
	return p
}

func (a *agenda) schedule(p *patient) {
	if p.index >= 0 {
		heap.Fix(a, p.index)
		return
	}
	heap.Push(a, p)
}

func (a *agenda) cancel(p *patient) {
	if p.index >= 0 {
		heap.Remove(a, p.index)
	}
}

// rhythm is when the regular checks of one instance are due: once in each
// [CheckInterval], at a time that follows from its key and the clock alone. So the
// checks of many instances are spread evenly, and a node that takes over goes on
// where the one before has stopped, without a word between them.
type rhythm uint64

func rhythmOf(k Key) rhythm {
	h := fnv.New64a()
	_, _ = h.Write([]byte(k.String())) // it never fails
	return rhythm(h.Sum64())
}

// sway is how far a check may be from the middle of its time, either way: two in
// succession are then an interval apart, ±10 %.
const sway = CheckInterval / 20

// beat returns when the n-th check is due, in nanoseconds since 1970.
func (r rhythm) beat(n int64) int64 {
	jitter := int64(mix(uint64(r)+uint64(n)*0x9e3779b97f4a7c15)%uint64(2*sway)) - int64(sway)
	return n*int64(CheckInterval) + r.phase() + jitter
}

func (r rhythm) phase() int64 { return int64(mix(uint64(r)) % uint64(CheckInterval)) }

// first returns when the first check after now is due.
func (r rhythm) first(now time.Time) time.Time {
	t := now.UnixNano()
	n := t/int64(CheckInterval) - 2
	for r.beat(n) <= t {
		n++
	}
	return now.Add(time.Duration(r.beat(n) - t)) // in monotonic time: clocks jump
}

// next returns when a check is due after one that began at last: an interval
// later, ±10 %, and in that as near to the rhythm as can be.
func (r rhythm) next(last time.Time) time.Time {
	t := last.UnixNano()
	n := (t + int64(CheckInterval)*3/2 - r.phase()) / int64(CheckInterval)
	wait := time.Duration(r.beat(n) - t)
	return last.Add(min(max(wait, CheckInterval-2*sway), CheckInterval+2*sway))
}

// mix scatters x over all of its bits: the end of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
