package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// halfLife is the time in which a latency loses half its weight. It makes the
	// time constant ten seconds, which Finagle and linkerd settled on.
	halfLife = 7 * time.Second

	// unknownLatency stands for the latency of an endpoint whose first call has
	// not ended or has failed: high enough that a second call waits for the
	// first's result while any other endpoint can take it.
	unknownLatency = time.Second

	// maxPenalty is how far failures alone, or silence, can raise the latency. It
	// bounds the time until such an endpoint is tried again to about a minute and a
	// half.
	maxPenalty = 10 * time.Second

	// never stands for a time that has not come: so far ahead that comparing with it
	// needs no branch, so near that subtracting it from any clock can't overflow.
	never = 1 << 62
)

// MaxWeight is the greatest weight that counts; see [Endpoint].
const MaxWeight = 1000

// Endpoint is one address that requests can go to, with the load this process
// has put on it. Use [NewEndpoint] to make one and keep the same pointer for as
// long as the instance lives: a new Endpoint knows nothing of the old one's load.
//
// The exported fields are set before the endpoint is first used and never
// changed after. The methods are safe for concurrent use.
type Endpoint struct {
	cell    *cell         // what every pick reads
	updated atomic.Int64  // when a call last ended, on the fine clock; 0 = none has
	mean    atomic.Uint64 // float64 bits, nanoseconds: the plain moving average; 0 = not known yet

	started atomic.Int64 // when it came, on the coarse clock; see SlowStart
	window  atomic.Int64 // for how long it is new, from then on

	// Weight is the share of the calls the endpoint takes compared with others: one
	// of weight 2 takes twice as many as one of weight 1. NewEndpoint sets 1. More
	// than MaxWeight counts as MaxWeight. With 0 or less it takes no new calls: NewSet
	// leaves it out.
	Weight int

	_ [16]byte // what follows is not written: it has a cache line of its own

	ID      string // unique within a service; sets are ordered by it
	Address string // where requests go, as the caller understands it (a URL or host:port)
	Zone    string // where the instance runs; empty if unknown

	_ [16]byte
}

// NewEndpoint returns an endpoint of weight 1 without any load or latency. In a set
// beside others that have been there for longer, its share of the calls grows within
// [DefaultSlowStart]; see [Endpoint.SlowStart].
func NewEndpoint(id, address string) *Endpoint {
	e := &Endpoint{ID: id, Address: address, Weight: 1, cell: newCell()}
	e.SlowStart(DefaultSlowStart)
	return e
}

// WithWeight returns an endpoint like e but of another weight, which takes its
// place in the sets to come. It knows the latency that e has had so far; the calls in
// flight stay with e.
func (e *Endpoint) WithWeight(weight int) *Endpoint {
	next := NewEndpoint(e.ID, e.Address)
	next.Zone, next.Weight = e.Zone, weight
	next.started.Store(e.started.Load())
	next.window.Store(e.window.Load())
	if updated := e.updated.Load(); updated != 0 { // else its latency is a guess about calls in flight
		next.cell.follow(e.cell)
		next.mean.Store(e.mean.Load())
		next.updated.Store(updated)
	}
	return next
}

// weight is the weight that counts for an endpoint that takes calls.
func (e *Endpoint) weight() int { return min(max(e.Weight, 1), MaxWeight) }

// Begin notes that a call to the endpoint starts. Each Begin must be followed by
// exactly one End, also if the call is cancelled or panics: until then the
// endpoint looks loaded.
func (e *Endpoint) Begin() {
	// A coarse clock that stood still while nothing went on would make this call
	// look as old as that; so this, too, moves it on.
	readClock()
	e.cell.begin(ticks(coarse.now.Load()))
}

// End notes that a call that Begin announced is over. latency is how long the
// caller waited; failed tells that the endpoint did not do its work (no
// connection, timeout, 5xx). A call that the caller itself gave up says little
// about the endpoint: report it with failed false and the time it waited.
func (e *Endpoint) End(latency time.Duration, failed bool) {
	now := readClock()
	// Swap shares the time since the last End out between concurrent Ends, so
	// that together they decay the average once, not once each.
	last := e.updated.Swap(now)
	since := time.Duration(now - last)
	e.cell.end(ticks(now), float64(latency), since, failed, last == 0)
	if last != 0 || failed { // the first call of all takes longer: it opens a connection
		change(&e.mean, func(mean float64) float64 { return include(mean, float64(latency), since, failed) })
	}
}

// change replaces the float64 in f.
func change(f *atomic.Uint64, next func(float64) float64) {
	for {
		old := f.Load()
		if f.CompareAndSwap(old, math.Float64bits(next(math.Float64frombits(old)))) {
			return
		}
	}
}

// InFlight returns the number of calls begun and not ended.
func (e *Endpoint) InFlight() int64 { return e.cell.inFlight() }

// Latency returns the peak-sensitive moving average of the latency as of the
// last End, penalties for failures included; 0 if no call has ended yet.
func (e *Endpoint) Latency() time.Duration {
	if e.updated.Load() == 0 {
		return 0
	}
	return time.Duration(e.cell.latency())
}

// observe returns the moving average after one more call. since is the time
// since the call before; average is 0 if there was none. The result is never 0.
func observe(average, latency float64, since time.Duration, failed bool) float64 {
	latency = max(latency, 1)
	if failed {
		penalty := float64(unknownLatency)
		if average > 0 {
			penalty = min(2*average+float64(time.Millisecond), float64(maxPenalty))
		}
		return max(latency, penalty, average)
	}
	if latency >= average {
		return latency // the peak: believe bad news at once
	}
	weight := math.Exp2(-float64(max(since, 0)) / float64(halfLife))
	return average*weight + latency*(1-weight)
}

// include returns the plain moving average after one more call. Where observe jumps
// to a peak, one slow call of many hardly moves this. It is about the last 64 calls,
// or fewer where calls are rare: the last ten seconds. A failure counts as a call that
// took 16 times the mean, up to maxPenalty: where 1 of 30 calls fails, that doubles the
// mean, and where 1 of 16 does, it has no end. mean is 0 if nothing is known. The result
// is never 0.
func include(mean, latency float64, since time.Duration, failed bool) float64 {
	latency = max(latency, 1)
	if failed {
		penalty := float64(unknownLatency)
		if mean > 0 {
			penalty = min(16*mean, float64(maxPenalty))
		}
		latency = max(latency, penalty)
	}
	if mean == 0 {
		return latency
	}
	part := min(max(float64(since)/float64(10*time.Second), 1./64), .5)
	return mean + (latency-mean)*part
}
