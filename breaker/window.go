package breaker

import (
	"sync"
	"time"
)

// steps is how many buckets a time window has.
const steps = 10

// tally counts calls.
type tally struct{ calls, failures, slow int32 }

func (t *tally) add(u tally) {
	t.calls += u.calls
	t.failures += u.failures
	t.slow += u.slow
}

func (t *tally) sub(u tally) {
	t.calls -= u.calls
	t.failures -= u.failures
	t.slow -= u.slow
}

// window is a ring of tallies with their total. A window of calls has one bucket
// for each call, a window of time one for each tenth of its time.
type window struct {
	limits Window
	bucket time.Duration // length of a bucket; 0 in a window of calls

	mu    sync.Mutex
	ring  []tally
	at    int   // the bucket in use
	tick  int64 // when it began, in buckets
	total tally
}

func newWindow(limits Window, now time.Duration) *window {
	w := &window{limits: limits}
	if limits.Calls > 0 {
		w.ring = make([]tally, limits.Calls)
		return w
	}
	w.ring = make([]tally, steps)
	w.bucket = limits.Time / steps
	w.tick = int64(now / w.bucket)
	return w
}

// record adds one call and tells whether the calls in the window are too bad. now
// may be a little before that of an earlier record.
func (w *window) record(now time.Duration, failed, slow bool) bool {
	call := tally{calls: 1}
	if failed {
		call.failures = 1
	}
	if slow {
		call.slow = 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bucket == 0 {
		w.advance()
	} else if tick := int64(now / w.bucket); tick > w.tick {
		for range min(tick-w.tick, int64(len(w.ring))) {
			w.advance()
		}
		w.tick = tick
	}
	w.ring[w.at].add(call)
	w.total.add(call)
	return w.tooBad()
}

// advance goes on to the next bucket, forgetting what it held.
func (w *window) advance() {
	if w.at++; w.at == len(w.ring) {
		w.at = 0
	}
	w.total.sub(w.ring[w.at])
	w.ring[w.at] = tally{}
}

func (w *window) tooBad() bool {
	if int(w.total.calls) < w.limits.MinCalls {
		return false
	}
	// Division, not multiplication: 3/10 is the same float as 0.3, 0.3*10 need not be 3.
	share := func(n int32) float64 { return float64(n) / float64(w.total.calls) }
	return (w.limits.FailureRate > 0 && share(w.total.failures) >= w.limits.FailureRate) ||
		(w.limits.SlowRate > 0 && share(w.total.slow) >= w.limits.SlowRate)
}
