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
	// The figures every pick reads fill a cache line of their own, so that a
	// call to one endpoint does not slow down picks that look at another.
	inFlight atomic.Int64
	latency  atomic.Uint64 // float64 bits, nanoseconds; 0 = no call has begun yet
	updated  atomic.Int64  // when a call last ended, on the fine clock; 0 = none has
	touched  atomic.Int64  // when a call last began or ended, on the coarse clock
	silent   atomic.Int64  // when the first call after the last End began, on the coarse clock; never = none has

	// Weight is the share of the calls the endpoint takes compared with others: one
	// of weight 2 takes twice as many as one of weight 1. NewEndpoint sets 1. More
	// than MaxWeight counts as MaxWeight. With 0 or less it takes no new calls: NewSet
	// leaves it out.
	Weight int

	mean atomic.Uint64 // float64 bits, nanoseconds: the plain moving average; 0 = not known yet
	_    [8]byte

	ID      string // unique within a service; sets are ordered by it
	Address string // where requests go, as the caller understands it (a URL or host:port)
	Zone    string // where the instance runs; empty if unknown

	_ [16]byte
}

// NewEndpoint returns an endpoint of weight 1 without any load or latency.
func NewEndpoint(id, address string) *Endpoint {
	e := &Endpoint{ID: id, Address: address, Weight: 1}
	e.silent.Store(never)
	return e
}

// WithWeight returns an endpoint like e but of another weight, which takes its
// place in the sets to come. It knows the latency that e has had so far; the calls in
// flight stay with e.
func (e *Endpoint) WithWeight(weight int) *Endpoint {
	next := NewEndpoint(e.ID, e.Address)
	next.Zone, next.Weight = e.Zone, weight
	if updated := e.updated.Load(); updated != 0 { // else its latency is a guess about calls in flight
		next.latency.Store(e.latency.Load())
		next.mean.Store(e.mean.Load())
		next.updated.Store(updated)
		next.touched.Store(e.touched.Load())
	}
	return next
}

// weight is the weight that counts for an endpoint that takes calls.
func (e *Endpoint) weight() int { return min(max(e.Weight, 1), MaxWeight) }

// Begin notes that a call to the endpoint starts. Each Begin must be followed by
// exactly one End, also if the call is cancelled or panics: until then the
// endpoint looks loaded.
func (e *Endpoint) Begin() {
	e.inFlight.Add(1)
	if e.latency.Load() == 0 {
		e.latency.CompareAndSwap(0, math.Float64bits(float64(unknownLatency)))
	}
	// A coarse clock that stood still while nothing went on would make this call
	// look as old as that; so this, too, moves it on.
	readClock()
	now := coarse.now.Load()
	if e.touched.Load() != now {
		e.touched.Store(now)
	}
	if e.silent.Load() == never {
		e.silent.CompareAndSwap(never, now)
	}
}

// End notes that a call that Begin announced is over. latency is how long the
// caller waited; failed tells that the endpoint did not do its work (no
// connection, timeout, 5xx). A call that the caller itself gave up says little
// about the endpoint: report it with failed false and the time it waited.
func (e *Endpoint) End(latency time.Duration, failed bool) {
	e.inFlight.Add(-1)
	now := readClock()
	e.touched.Store(now)
	if e.silent.Load() != never {
		e.silent.Store(never)
	}
	// Swap shares the time since the last End out between concurrent Ends, so
	// that together they decay the average once, not once each.
	last := e.updated.Swap(now)
	since := time.Duration(now - last)
	change(&e.latency, func(average float64) float64 {
		if last == 0 {
			average = 0 // what is there now was not measured
		}
		return observe(average, float64(latency), since, failed)
	})
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
func (e *Endpoint) InFlight() int64 { return e.inFlight.Load() }

// Latency returns the peak-sensitive moving average of the latency as of the
// last End, penalties for failures included; 0 if no call has ended yet.
func (e *Endpoint) Latency() time.Duration {
	if e.updated.Load() == 0 {
		return 0
	}
	return time.Duration(math.Float64frombits(e.latency.Load()))
}

// silence returns for how long calls have been waiting that began since the last one
// ended, as the bits of a float64 in nanoseconds, up to maxPenalty; and the age of what
// is known of the endpoint. now is the coarse clock.
//
// It is the time since the last Begin or End; but what is known by silence gets old
// only once the endpoint has been left alone for as long as it had been silent at its
// last call: the time between two tries doubles.
//
// There is no branch in it, because half of the endpoints of a busy service are
// silent at any moment, and a branch would be predicted wrong as often.
func (e *Endpoint) silence(now int64) (wait uint64, age int64) {
	touched, silent := e.touched.Load(), e.silent.Load()
	wait = math.Float64bits(float64(min(max(now-silent, 0), int64(maxPenalty))))
	return wait, now - touched - max(touched-silent, 0)
}

// expected returns how long a call to the endpoint is expected to take, in
// nanoseconds: the wait of those that wait, if that is longer than the latency, less
// what age has taken. It is 0 for an endpoint that was never tried.
func (e *Endpoint) expected(now int64) float64 {
	wait, age := e.silence(now)
	return fade(max(e.latency.Load(), wait), age) // floats that are not negative are ordered as their bits are
}

// cost is what P2C compares: the expected wait for one more call, in nanoseconds,
// as the bits of a float64. It is 0 for an endpoint that was never tried, which so
// wins against any other.
func (e *Endpoint) cost(now int64) uint64 {
	return math.Float64bits(e.expected(now) * float64(e.inFlight.Load()+1))
}

// relativeCost is cost times the weight, for sets whose weights differ and are mean
// on average. An endpoint of twice the mean weight does two calls at a time as fast as
// another does one: without calls in flight it costs no less, but a call in flight
// adds only half as much.
func (e *Endpoint) relativeCost(now int64, mean float64) float64 {
	return e.expected(now) * (float64(e.inFlight.Load())*mean + float64(e.weight()))
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

// fade returns the latency after age has taken its part of it: half for each
// halfLife, and about linear between them (at most 7 % off). The bits of a float64
// are its logarithm to the base 2, so one subtraction does it, where Exp2 would take
// as long as the rest of a pick. It stops at 2^-60; 0 stays 0.
func fade(latency uint64, age int64) float64 {
	const slope = (1 << 52) / int64(halfLife)
	age = min(max(age, 0), 60*int64(halfLife))
	return math.Float64frombits(uint64(max(int64(latency)-age*slope, 0)))
}

// coarse is the clock that Pick reads: one atomic load, where time.Now costs as
// much as a whole pick. Every Begin and End sets it. It has a cache line of its own
// and moves in steps of a millisecond, so that it is hardly ever written.
var coarse struct {
	_   [64]byte
	now atomic.Int64
	_   [64]byte
}

// epoch makes times small and monotonic.
var epoch = time.Now()

// readClock returns the time since epoch in nanoseconds and moves the coarse clock.
// The coarse clock also goes back if it is ahead: virtual time in tests (package
// synctest) may be any time, and must not stop the clock for what runs after.
func readClock() int64 {
	now := int64(time.Since(epoch)) | 1 // never 0, which means "not yet"
	if step := now - coarse.now.Load(); step >= int64(time.Millisecond) || step < 0 {
		coarse.now.Store(now)
	}
	return now
}
