package client

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// finest is the shift of the finest difference kept: 2^10 ns, about a microsecond.
	finest = 10
	// octaves reach up to 2^37 ns, 137 s; what took longer counts as that.
	octaves = 27
	// eighths part each doubling, so that a figure is at most an eighth too high.
	eighths = 8

	steps = (octaves - 3 + 1) * eighths

	// remembered is after how many samples all counts are halved: the figure follows a
	// change within a few thousand calls, and one odd second does not decide it.
	remembered = 2048
	// refreshed is how many samples may come before the figure is worked out again.
	refreshed = 32
)

// latencies knows how long the answers of a service take: a histogram of logarithmic
// steps that forgets. It is safe for concurrent use; nobody waits for anybody.
type latencies struct {
	quantile float64
	least    int // samples needed to tell

	figure atomic.Int64  // what usual returns
	total  atomic.Int64  // samples in counts
	seen   atomic.Uint64 // samples ever
	counts [steps]atomic.Uint32

	forgetting sync.Mutex // only ever tried
}

// usual returns what the quantile of the answers take at most, 0 if too few are known.
func (l *latencies) usual() time.Duration { return time.Duration(l.figure.Load()) }

// record takes in the time of one answer.
func (l *latencies) record(d time.Duration) {
	l.counts[step(d)].Add(1)
	if total := l.total.Add(1); total >= remembered {
		l.forget()
	}
	// Until the first figure each sample counts.
	if n := l.seen.Add(1); n%refreshed == 0 || n == uint64(l.least) {
		l.refresh()
	}
}

// forget halves all counts.
func (l *latencies) forget() {
	if !l.forgetting.TryLock() {
		return // somebody does
	}
	defer l.forgetting.Unlock()
	for i := range l.counts {
		if gone := l.counts[i].Load() / 2; gone > 0 {
			l.counts[i].Add(-gone)
			l.total.Add(-int64(gone))
		}
	}
}

// refresh works the figure out. Samples that come meanwhile may count or not.
func (l *latencies) refresh() {
	var counts [steps]uint32
	var total uint64
	for i := range counts {
		counts[i] = l.counts[i].Load()
		total += uint64(counts[i])
	}
	if total < uint64(l.least) {
		return
	}
	rank := uint64(l.quantile * float64(total))
	for i, n := range counts {
		if uint64(n) > rank {
			l.figure.Store(int64(longestOf(i)))
			return
		}
		rank -= uint64(n)
	}
}

// step is the place of a time in counts: the leading bit and the three after it.
func step(d time.Duration) int {
	v := min(uint64(max(d, 0))>>finest, 1<<octaves-1)
	if v < eighths {
		return int(v)
	}
	e := bits.Len64(v) - 4
	return e*eighths + int(v>>e)
}

// longestOf is the time at which a step ends.
func longestOf(step int) time.Duration {
	if step < eighths {
		return time.Duration(step+1) << finest
	}
	e, m := step/eighths-1, step%eighths+eighths
	return time.Duration(m+1) << e << finest
}
