package balance

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// cell holds what every pick reads of an endpoint, in 16 bytes: those of 10,000 endpoints
// take 160 KB, which stay in a processor's second-level cache, where the endpoints
// themselves, at a cache line each and more, would not.
type cell struct {
	load  atomic.Uint64 // calls in flight, signed, << 32 | latency: bits of a float32 in nanoseconds, 0 = no call has begun yet
	times atomic.Uint64 // touched << 32 | silent
}

// touched is when a call last began or ended. silent is when the first call after the last
// End began; 0 = none has.

// Times in cells count ticks, a little more than a millisecond each, and begin anew after
// 52 days. An endpoint that is left alone for longer looks as if that had been so for less
// time, and fades again.
const (
	tickBits = 20
	tick     = 1 << tickBits // ns

	// slack is how many ticks a time may be ahead of now, as the clock of another call
	// may be: a minute.
	slack = 1 << 16
)

// ticks returns a time on the coarse clock in ticks.
func ticks(now int64) uint32 { return uint32(now >> tickBits) }

// ago returns how many ticks before now t was; less than 0 if it is ahead.
func ago(now, t uint32) int64 { return int64(now-t+slack) - slack }

// oneCall is a call in flight, as load has it.
const oneCall = 1 << 32

// begin notes that a call starts.
func (c *cell) begin(now uint32) {
	if load := c.load.Add(oneCall); uint32(load) == 0 {
		c.known(float32(unknownLatency))
	}
	for {
		times := c.times.Load()
		silent := uint32(times)
		if silent == 0 {
			silent = max(now, 1)
		}
		next := uint64(now)<<32 | uint64(silent)
		if times == next || c.times.CompareAndSwap(times, next) {
			return
		}
	}
}

// known sets the latency if there is none.
func (c *cell) known(latency float32) {
	for {
		load := c.load.Load()
		if uint32(load) != 0 || c.load.CompareAndSwap(load, load|uint64(math.Float32bits(latency))) {
			return
		}
	}
}

// end notes that a call is over and takes it into the latency; see observe. With first
// there is none yet: what is there was not measured.
func (c *cell) end(now uint32, latency float64, since time.Duration, failed, first bool) {
	c.times.Store(uint64(now) << 32)
	for {
		load := c.load.Load()
		before := float64(math.Float32frombits(uint32(load)))
		if first {
			before = 0
		}
		average := observe(before, latency, since, failed)
		after := math.Float32bits(float32(average))
		if average < before {
			after = min(after, uint32(load)-1) // however many calls there are, each takes it down a bit
		}
		if c.load.CompareAndSwap(load, (load-oneCall)&^math.MaxUint32|uint64(after)) {
			return
		}
	}
}

// forget leaves nothing but the calls in flight.
func (c *cell) forget() {
	for {
		load := c.load.Load()
		if c.load.CompareAndSwap(load, load&^math.MaxUint32) {
			break
		}
	}
	c.times.Store(0)
}

// follow takes over the latency of another cell and when it was measured.
func (c *cell) follow(before *cell) {
	c.load.Store(before.load.Load() & math.MaxUint32)
	c.times.Store(before.times.Load() &^ math.MaxUint32)
}

// inFlight returns the number of calls begun and not ended.
func (c *cell) inFlight() int64 { return int64(c.load.Load()) >> 32 }

// latency returns the moving average, in nanoseconds.
func (c *cell) latency() float32 { return math.Float32frombits(uint32(c.load.Load())) }

// silence returns for how long calls have been waiting that began since the last one
// ended, up to maxPenalty; and the age of what is known of the endpoint. Both are in
// ticks.
//
// It is the time since the last Begin or End; but what is known by silence gets old
// only once the endpoint has been left alone for as long as it had been silent at its
// last call: the time between two tries doubles.
//
// There is no branch in it, because half of the endpoints of a busy service are
// silent at any moment, and a branch would be predicted wrong as often.
func silence(times uint64, now uint32) (wait, age int64) {
	touched, silent := uint32(times>>32), uint32(times)
	is := int64(int32(silent|-silent)) >> 63 // all bits set if it is silent, else none
	// Of two calls that begin at the same moment the later one may have read the clock
	// before the other: then touched is before silent.
	return min(max(ago(now, silent), 0), longest) & is, ago(now, touched) - max(ago(touched, silent), 0)&is
}

// longest is maxPenalty in ticks.
const longest = int64(maxPenalty / tick)

// expected returns how long a call to the endpoint is expected to take, in
// nanoseconds: the wait of those that wait, if that is longer than the latency, less
// what age has taken. It is 0 for an endpoint that was never tried. latency is as load
// has it.
func expected(latency uint32, wait, age int64) float32 {
	// Floats that are not negative are ordered as their bits are.
	return fade(max(latency, math.Float32bits(float32(wait*tick))), age)
}

// cost is what P2C compares: the expected wait for one more call, in nanoseconds,
// as the bits of a float32. It is 0 for an endpoint that was never tried, which so
// wins against any other.
func cost(load, times uint64, now uint32) uint32 {
	wait, age := silence(times, now)
	return math.Float32bits(expected(uint32(load), wait, age) * float32(int64(load)>>32+1))
}

// relativeCost is cost times the weight, for sets whose weights differ and are mean
// on average. An endpoint of twice the mean weight does two calls at a time as fast as
// another does one: without calls in flight it costs no less, but a call in flight
// adds only half as much.
func (c *cell) relativeCost(now uint32, weight, mean float32) float32 {
	load := c.load.Load()
	wait, age := silence(c.times.Load(), now)
	return expected(uint32(load), wait, age) * (float32(int64(load)>>32)*mean + weight)
}

// fade returns the latency, given as the bits of a float32, after age has taken its part
// of it: half for each halfLife, and about linear between them (at most 7 % off). The
// bits of a float are its logarithm to the base 2, so one subtraction does it, where Exp2
// would take as long as the rest of a pick. It stops far below a nanosecond; 0 stays 0.
func fade(latency uint32, age int64) float32 {
	const slope = (1<<23*tick + int64(halfLife)/2) / int64(halfLife)
	whole := int64(latency)
	return math.Float32frombits(uint32(max(min(whole-age*slope, whole), whole>>2)))
}

// Cells come from slabs of a page. Those made one after the other are in different cache
// lines, so that calls to an endpoint of a small service do not slow down picks that look
// at another one. In a service of many, two that are busy at the same moment are hardly
// ever in the same line.
const (
	slabLines    = 64
	cellsPerLine = 4
)

var slab struct {
	sync.Mutex
	cells *[slabLines * cellsPerLine]cell
	used  int
}

func newCell() *cell {
	slab.Lock()
	defer slab.Unlock()
	if slab.cells == nil || slab.used == len(slab.cells) {
		slab.cells, slab.used = new([slabLines * cellsPerLine]cell), 0
	}
	i := slab.used
	slab.used++
	return &slab.cells[i%slabLines*cellsPerLine+i/slabLines]
}

// coarse is the clock that Pick reads: one atomic load, where time.Now costs as
// much as a whole pick. Every Begin and End sets it. It has a cache line of its own
// and moves in steps of a millisecond, so that it is hardly ever written.
var coarse struct {
	_   [64]byte
	now atomic.Int64
	_   [64]byte
}

// epoch makes times monotonic. It is so long ago that they are positive in virtual time,
// too (package synctest), which begins in the year 2000.
var epoch = time.Now().Add(-64 * 365 * 24 * time.Hour)

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
