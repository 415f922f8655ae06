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
)

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
	silent   atomic.Int64  // when the first call after the last End began, on the coarse clock; 0 = none has
	_        [24]byte

	ID      string // unique within a service; sets are ordered by it
	Address string // where requests go, as the caller understands it (a URL or host:port)
	Zone    string // where the instance runs; empty if unknown

	_ [16]byte
}

// NewEndpoint returns an endpoint without any load or latency.
func NewEndpoint(id, address string) *Endpoint {
	return &Endpoint{ID: id, Address: address}
}

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
	if e.silent.Load() == 0 {
		e.silent.CompareAndSwap(0, now)
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
	if e.silent.Load() != 0 {
		e.silent.Store(0)
	}
	// Swap shares the time since the last End out between concurrent Ends, so
	// that together they decay the average once, not once each.
	last := e.updated.Swap(now)
	for {
		old := e.latency.Load()
		average := math.Float64frombits(old)
		if last == 0 {
			average = 0 // what is there now was not measured
		}
		next := observe(average, float64(latency), time.Duration(now-last), failed)
		if e.latency.CompareAndSwap(old, math.Float64bits(next)) {
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

// cost is what P2C compares: the expected wait for one more call, in
// nanoseconds. now is the coarse clock. It is 0 for an endpoint that was never
// tried, which so wins against any other.
//
// While calls have begun and none has ended since, the wait so far counts as the
// latency if that is longer, up to maxPenalty. This fades too, since a call may be
// a stream, but only once the endpoint has been left alone for as long as it had
// been silent at its last call: the time between two tries doubles.
func (e *Endpoint) cost(now int64) float64 {
	latency, touched := e.latency.Load(), e.touched.Load()
	age := now - touched
	if silent := e.silent.Load(); silent != 0 {
		wait := float64(min(max(now-silent, 0), int64(maxPenalty)))
		latency = max(latency, math.Float64bits(wait)) // ordered as the floats are, see Pick
		age -= touched - silent
	}
	return math.Float64frombits(latency) * fade(age) * float64(e.inFlight.Load()+1)
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

// fade is 2^-(age/halfLife), exact at whole half-lives and linear between them
// (at most 7 % off): the bits of a float64 are its logarithm to the base 2, so
// one subtraction from those of 1.0 does it, where Exp2 would take as long as the
// rest of a pick. It stops at 2^-60.
func fade(age int64) float64 {
	const one = 1023 << 52 // the bits of 1.0
	const slope = (1 << 52) / float64(halfLife)
	return math.Float64frombits(uint64(one - int64(float64(min(max(age, 0), 60*int64(halfLife)))*slope)))
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
