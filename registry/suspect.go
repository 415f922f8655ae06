package registry

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/keelson-go/keelson/health"
)

const (
	leaseGrace    = time.Second           // for the lease of a record that was seen first
	checkInterval = 5 * time.Second       // between the checks of a suspect, ±10 %
	recheckSoon   = time.Second           // after the first failed check
	brokenPause   = 5 * time.Millisecond  // doubled each time a connection was cut
	lagPause      = 50 * time.Millisecond // for the snapshot to show what the reaper wrote
	brokenRetries = 5                     // cut connections in a row before they count as a failed check
	fall          = 2                     // failed checks that take an instance out of rotation
)

// atOnce is when those are due to whom something has just happened: before all
// whose time has merely come, of whom there may be a long queue.
var atOnce time.Time

// suspect is an instance whose lease was lost, or that is found without one.
// It stays under suspicion until it both answers and has a lease, or is gone.
type suspect struct {
	key     Key
	reason  string
	held    bool // it has a lease again
	found   bool // nothing was lost: it was seen without a lease, which may still come
	out     bool // it was taken out of rotation
	fails   int  // failed checks in a row
	broken  int  // cut connections in a row
	missing int  // checks in a row at which the snapshot did not have it
	probing bool
	again   bool // something happened while it was being probed
	due     time.Time
	index   int // in the agenda, -1 while it is not there

	// replaced is the revision of the record that the reaper last changed. As
	// long as the snapshot shows that one, it says nothing about now.
	replaced uint64
}

// verdict is what to do with a suspect after a probe.
type verdict int

const (
	keepChecking verdict = iota // again at suspect.due
	acquit                      // no longer suspect
	remove                      // confirmed dead: out of the registry
	takeOut                     // out of rotation, and keep checking
	restore                     // in rotation again; then acquit if it has a lease
)

// judge is the whole policy: values in, values out. in is the instance as it
// was when it was probed.
func (s *suspect) judge(result ProbeResult, in Instance, now time.Time) verdict {
	if result != ProbeBroken {
		s.broken = 0
	}
	switch result {
	case ProbeRefused, ProbeOther:
		return remove
	case ProbeOK:
		s.fails = 0
		s.due = now.Add(jitter(checkInterval))
		switch {
		case restored(in) != in.Status:
			return restore
		case s.held:
			return acquit
		}
		s.out = false // somebody else may have restored it
		return keepChecking
	case ProbeBroken:
		if s.broken++; s.broken <= brokenRetries {
			s.due = now.Add(brokenPause << s.broken)
			return keepChecking
		}
		s.broken = 0
	}
	if s.fails++; s.fails < fall {
		s.due = now.Add(recheckSoon)
		return keepChecking
	}
	s.due = now.Add(jitter(checkInterval))
	switch {
	case in.Status.Serving():
		return takeOut
	case s.held && in.Status != health.Starting && in.Announced == "":
		return acquit // it says itself that it is unwell, or going
	}
	return keepChecking
}

// restored is the status of in once it answers: its own word again where a
// registry node had taken it out, and healthy where it waits for its first
// passed check. Else it stays what it is.
func restored(in Instance) Status {
	switch {
	case in.Announced != "":
		return in.Announced
	case in.Status == health.Starting && in.Health != "":
		return health.Healthy
	}
	return in.Status
}

// panicking reports whether taking one more instance out of rotation would
// leave fewer than half of a service's instances in it. When most of a service
// seems lost at once it is more likely the network, or the node that checks,
// than the instances; calls then still try them. A service of one instance is
// exempt.
func panicking(total, out int) bool {
	return out+1 > max(1, total/2)
}

func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5)
}

// agenda orders suspects by when they are due; a container/heap.
type agenda []*suspect

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

// Push implements heap.Interface; use schedule.
func (a *agenda) Push(x any) {
	s := x.(*suspect)
	s.index = len(*a)
	*a = append(*a, s)
}

// Pop implements heap.Interface; use heap.Pop.
func (a *agenda) Pop() any {
	last := len(*a) - 1
	s := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	s.index = -1
	return s
}

func (a *agenda) schedule(s *suspect) {
	if s.index >= 0 {
		heap.Fix(a, s.index)
		return
	}
	heap.Push(a, s)
}
