package concurrency

import (
	"sync"
	"sync/atomic"
	"time"
)

// adaptive is what a limiter with an adaptive limit has more: it collects samples
// in windows and has the controller judge each.
type adaptive struct {
	kinds   *kinds
	initial int

	mu         sync.Mutex // held to close a window
	controller controller
	admitted   uint64 // at the last close
	rejected   uint64
	inFlight   int64

	began  atomic.Int64 // when the window began
	since  atomic.Int64 // calls that began before do not count: they knew another limit
	cut    atomic.Bool  // the limit is lower than it was initially
	learns atomic.Bool  // what is usual is learned from calls that were given up, too

	_       [64]byte
	samples atomic.Int64
	slow    atomic.Int64
	stretch atomic.Int64 // sum over the samples, in octaves
	latency atomic.Int64 // the same
	_       [64]byte
}

const (
	// A window lasts at least this: long enough for many calls of most services,
	// short enough to act before callers lose patience.
	windowLength = 100 * time.Millisecond
	// and is closed after this with whatever it has.
	windowLimit = 5 * time.Second
	// If a call comes after so long a pause, alone, the overload is over.
	pause = time.Second
	// Fewer samples are chance, and
	fewestSamples = 10
	// more than this would not make it clearer.
	mostSamples = 200
)

func newAdaptive(o AdaptiveOptions) *adaptive {
	return &adaptive{kinds: newKinds(o.Delay), initial: o.Initial, controller: newController(o)}
}

// start returns the time at which a call begins.
func (l *Limiter) start() time.Duration {
	now := l.now()
	if a := l.adaptive; a.cut.Load() && now-time.Duration(a.began.Load()) > pause && l.inFlight.Load() == 1 {
		l.wakeUp(now)
	}
	return now
}

// wakeUp forgets the last overload if there were no calls since.
func (l *Limiter) wakeUp(now time.Duration) {
	a := l.adaptive
	a.mu.Lock()
	defer a.mu.Unlock()
	if now-time.Duration(a.began.Load()) > pause {
		l.apply(now, a.controller.reset())
	}
}

// observe takes the end of a call into account, and closes the window if it is
// over.
func (l *Limiter) observe(t Token, how outcome, inFlight int64) {
	a, now := l.adaptive, l.now()
	k := t.kind
	if k == nil {
		k = a.kinds.other
	}
	latency := logOf(now - t.start)
	one := k.sample(latency, how, a.learns.Load())
	if one.counts && int64(t.start) >= a.since.Load() {
		a.stretch.Add(int64(one.stretch))
		a.latency.Add(int64(latency))
		if one.slow {
			a.slow.Add(1)
		}
		a.samples.Add(1)
	}
	lasted := now - time.Duration(a.began.Load())
	if lasted >= windowLength && (a.samples.Load() >= fewestSamples || lasted >= windowLimit) {
		l.closeWindow(now, inFlight)
	}
}

// hurry closes a window that is overdue. Otherwise it would be for a call that ends,
// and if all that are under way hang there is none, and everybody would be refused.
func (l *Limiter) hurry() {
	if now := l.now(); now-time.Duration(l.adaptive.began.Load()) >= windowLimit {
		l.closeWindow(now, l.inFlight.Load())
	}
}

// The most that one sample may say.
const (
	leastStretch = -4 * octave
	mostStretch  = 12 * octave
)

// sample is what one call says.
type sample struct {
	stretch octaves // its latency by what is expected
	slow    bool    // it took too long
	counts  bool    // it may be asked at all
}

// sample learns from a call's latency and judges it. From a call that was given up
// it learns only if learns says so: what callers don't wait for is not usual.
func (k *kind) sample(latency octaves, how outcome, learns bool) sample {
	usual := octaves(k.usual.Load())
	s := sample{stretch: latency - octaves(k.expected.Load()), counts: k.isGrown()}
	s.slow = s.stretch > tooSlow
	switch how {
	case overloaded:
		// How long it took says little if it was refused at once. Two octaves are
		// clearly too much.
		if s.stretch = max(s.stretch, 2*octave); !s.counts {
			s.stretch = 2 * octave
		}
		s.slow, s.counts = true, true
		learns = false
	case abandoned:
		if usual != 0 && latency <= usual {
			return sample{}
		}
		// No delay is accepted that the caller did not accept.
		s.slow = latency-usual > tooSlow
	default:
		learns = true
	}
	if learns {
		k.learn(latency)
	}
	s.stretch = min(max(s.stretch, leastStretch), mostStretch)
	return s
}

// closeWindow has the controller judge the window and begins the next one.
func (l *Limiter) closeWindow(now time.Duration, inFlight int64) {
	a := l.adaptive
	if !a.mu.TryLock() {
		return // somebody is at it
	}
	defer a.mu.Unlock()
	began := time.Duration(a.began.Load())
	if now-began < windowLength {
		return // somebody just was
	}
	w := window{
		now: now, length: now - began,
		samples: int(a.samples.Swap(0)), slow: int(a.slow.Swap(0)), inFlight: int(inFlight),
	}
	stretch, latency := a.stretch.Swap(0), a.latency.Swap(0)
	if w.samples > 0 {
		w.stretch = octaves(stretch / int64(w.samples))
		w.latency = octaves(latency / int64(w.samples))
	}
	admitted, rejected := counts(&l.admitted).Total(), counts(&l.rejected).Total()
	w.started, w.rejected = int(admitted-a.admitted), int(rejected-a.rejected)
	w.finished = w.started - int(inFlight-a.inFlight)
	a.admitted, a.rejected, a.inFlight = admitted, rejected, inFlight
	l.apply(now, a.controller.step(w))
}

// apply does what the controller decided. a.mu must be held.
func (l *Limiter) apply(now time.Duration, d decision) {
	a := l.adaptive
	a.kinds.each(func(k *kind) { k.raise(d.raise) })
	l.setLimit(d.limit)
	a.cut.Store(d.limit < a.initial)
	a.learns.Store(d.learns)
	if d.afresh {
		a.since.Store(int64(now))
		a.samples.Store(0)
		a.slow.Store(0)
		a.stretch.Store(0)
		a.latency.Store(0)
	}
	a.began.Store(int64(now))
}
