package concurrency

import (
	"maps"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// octaves are the logarithm of a time or of a ratio of times, to the base 2, in
// parts of 65,536. Differences of them are ratios, averages are geometric, and
// a single extreme value does not outweigh all others.
type octaves int64

const octave octaves = 1 << 16

// logOf returns the logarithm of d, in nanoseconds. Between powers of two it is
// a straight line, at most 6 % off; that is nothing here, and quick.
func logOf(d time.Duration) octaves {
	n := uint64(max(d, 1))
	whole := bits.Len64(n) - 1
	fraction := n << (63 - whole) << 1 >> 48 // the 16 bits after the first
	return octaves(whole)<<16 | octaves(fraction)
}

// duration is the inverse of logOf.
func (o octaves) duration() time.Duration {
	if o < 0 {
		return 0
	}
	whole, mantissa := min(o>>16, 61), octave+o&(octave-1)
	if whole < 16 {
		return time.Duration(mantissa >> (16 - whole))
	}
	return time.Duration(mantissa << (whole - 16))
}

// kind knows how long calls of one kind usually take.
type kind struct {
	delay time.Duration
	seen  atomic.Int64
	// usual is the 90th percentile of the latency without overload: then one call
	// in ten is above it however the latencies are spread, a cache's hits beside
	// its misses, too. 0 as long as there was no call.
	usual atomic.Int64
	// expected is usual and the delay that is accepted.
	expected atomic.Int64
	// ceiling is what usual may not grow past before the next window.
	ceiling atomic.Int64
}

const (
	// grown is after how many calls a kind is known well enough to be judged by.
	grown = 20
	// With every call usual goes down by this, or up by nine times as much: it
	// rests where one call in ten is above.
	learnStep = octave / 100
	// Until it is grown, a kind learns so much faster.
	youngFactor = 5
)

func newKind(delay time.Duration) *kind {
	k := &kind{delay: delay}
	k.ceiling.Store(math.MaxInt64)
	return k
}

// learn takes a latency without overload into account. Of calls that end at the
// same moment one may be lost; they are many.
func (k *kind) learn(latency octaves) {
	step := learnStep
	if !k.isGrown() {
		k.seen.Add(1)
		step *= youngFactor
	}
	usual := octaves(k.usual.Load())
	next := latency
	switch {
	case usual == 0:
	case latency > usual:
		next = max(usual, min(usual+9*step, latency, octaves(k.ceiling.Load())))
	default:
		next = max(usual-step, latency)
	}
	if next != usual {
		k.become(usual, next)
	}
}

func (k *kind) become(usual, next octaves) {
	next = max(next, 1) // 0 means none
	if k.usual.CompareAndSwap(int64(usual), int64(next)) {
		k.expected.Store(int64(logOf(next.duration() + k.delay)))
	}
}

// isGrown tells whether the kind is known well enough to be judged by.
func (k *kind) isGrown() bool { return k.seen.Load() > grown }

// raise lets usual grow by at most so much until it is called again.
func (k *kind) raise(by octaves) {
	if k.isGrown() {
		k.ceiling.Store(k.usual.Load() + int64(by))
	}
}

// maxKinds bounds the memory: many routes, and still only some 30 KB.
const maxKinds = 256

// kinds are all kinds of work by name. Reading takes no lock.
type kinds struct {
	delay time.Duration
	other *kind // all that have none of their own
	named atomic.Pointer[map[string]*kind]
	mu    sync.Mutex // held to add
}

func newKinds(delay time.Duration) *kinds {
	k := &kinds{delay: delay, other: newKind(delay)}
	k.named.Store(&map[string]*kind{})
	return k
}

// get returns the kind of that name, or nil for the one that the rest share.
func (k *kinds) get(name string) *kind {
	known := *k.named.Load()
	if one := known[name]; one != nil || len(known) >= maxKinds {
		return one
	}
	return k.add(name)
}

// add is get for a kind that is not known yet.
func (k *kinds) add(name string) *kind {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := *k.named.Load()
	if one := known[name]; one != nil || len(known) >= maxKinds {
		return one
	}
	one, more := newKind(k.delay), maps.Clone(known)
	more[name] = one
	k.named.Store(&more)
	return one
}

// each calls f with every kind.
func (k *kinds) each(f func(*kind)) {
	f(k.other)
	for _, one := range *k.named.Load() {
		f(one)
	}
}
