package telemetry

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The native buckets: schema 3 has 2³ bounds to each power of two. Shorter
// durations than 2^nativeMinExp s (954 ns) are in the zero bucket, longer ones
// than 2^nativeMaxExp s (68 min) in the highest.
const (
	nativeSchema  = 3
	perOctave     = 1 << nativeSchema
	nativeMinExp  = -20
	nativeMaxExp  = 12
	nativeBuckets = (nativeMaxExp - nativeMinExp) * perOctave
	// zero bucket, native bounds, the 11 classic bounds that are no native bound
	// (.25, .5 and 1 s are both), and what is above them all.
	fineBuckets = 1 + nativeBuckets + 11 + 1
)

// histogram counts durations in buckets cut at every native and every classic
// bound, so that one atomic addition feeds both kinds, both always agree with
// each other and with the count, and /health reads its percentiles here too.
// (client_golang's histogram with native buckets costs four times as much and
// keeps what percentiles need to itself; see BenchmarkObserve.)
type histogram struct {
	counts [fineBuckets]atomic.Uint64
	sum    atomic.Uint64 // seconds, as the bits of a float64
}

func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	h.counts[grid.bucket(d)].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+d.Seconds())) {
			return
		}
	}
}

// addTo adds the histogram's counts to t.
func (h *histogram) addTo(t *tally) {
	for i := range h.counts {
		n := h.counts[i].Load()
		t.counts[i] += n
		t.total += n
	}
	t.sum += math.Float64frombits(h.sum.Load())
}

// grid says where the fine buckets are.
var grid = newLayout()

type layout struct {
	bounds  [fineBuckets]int64 // upper bounds in ns, inclusive; the last has no limit
	native  [fineBuckets]int   // index of the native bucket around the fine one; 0 is the zero bucket
	classic [fineBuckets]int   // index of the classic bucket around it; the last is +Inf
	first   [65]int            // by bit length: the bucket to start the search at
}

func newLayout() *layout {
	const second = float64(time.Second)
	native := make([]int64, 0, nativeBuckets+1)
	for k := nativeMinExp * perOctave; k <= nativeMaxExp*perOctave; k++ {
		// Durations are whole nanoseconds, so the bound may be rounded down.
		native = append(native, int64(math.Floor(second*math.Exp2(float64(k)/perOctave))))
	}
	var classic []int64
	for _, s := range DurationBuckets() {
		classic = append(classic, int64(math.Round(s*second)))
	}
	bounds := slices.Concat(native, classic, []int64{math.MaxInt64})
	slices.Sort(bounds)

	l := new(layout)
	copy(l.bounds[:], slices.Compact(bounds))
	for i, b := range l.bounds {
		n, _ := slices.BinarySearch(native, b)
		l.native[i] = min(n, nativeBuckets)
		l.classic[i], _ = slices.BinarySearch(classic, b)
	}
	for n := range l.first {
		var least int64 // the least duration of this bit length
		if n > 0 {
			least = int64(min(uint64(1)<<(n-1), math.MaxInt64))
		}
		l.first[n], _ = slices.BinarySearch(l.bounds[:], least)
	}
	return l
}

func (l *layout) bucket(d time.Duration) int {
	i := l.first[bits.Len64(uint64(d))]
	for int64(d) > l.bounds[i] { // a dozen steps at most: eight bounds to an octave and classic ones between
		i++
	}
	return i
}

// tally is a copy of histograms' counts at one moment, for reading.
type tally struct {
	counts [fineBuckets]uint64
	total  uint64
	sum    float64 // seconds
}

// quantile estimates the q-quantile (0 < q ≤ 1) in seconds, linearly within the
// bucket it falls in, so it is off by 9 % at most between 1 µs and 68 min.
func (t *tally) quantile(q float64) float64 {
	if t.total == 0 {
		return 0
	}
	rank := q * float64(t.total)
	var below float64
	last := 0.0
	for i, n := range t.counts {
		if n == 0 {
			continue
		}
		var lower int64
		if i > 0 {
			lower = grid.bounds[i-1]
		}
		upper := grid.bounds[i]
		if i == fineBuckets-1 {
			upper = lower // nothing better is known than that it is longer
		}
		last = float64(upper)
		if below+float64(n) >= rank {
			within := (rank - below) / float64(n)
			return (float64(lower) + within*float64(upper-lower)) / float64(time.Second)
		}
		below += float64(n)
	}
	return last / float64(time.Second) // rounding left the rank just above the total
}

// durationMetric shows a histogram to Prometheus.
type durationMetric struct {
	histogram
	desc   *prometheus.Desc
	labels []*dto.LabelPair // sorted by name, never changed
}

func (m *durationMetric) Desc() *prometheus.Desc { return m.desc }

func (m *durationMetric) Write(out *dto.Metric) error {
	var t tally
	m.addTo(&t)

	bounds := DurationBuckets()
	classic := make([]uint64, len(bounds)+1)
	var native [nativeBuckets + 1]uint64
	for i, n := range t.counts {
		classic[grid.classic[i]] += n
		native[grid.native[i]] += n
	}
	h := &dto.Histogram{
		SampleCount:   &t.total,
		SampleSum:     &t.sum,
		Schema:        new(int32(nativeSchema)),
		ZeroThreshold: new(math.Exp2(nativeMinExp)),
		ZeroCount:     &native[0],
	}
	var cumulative uint64
	for i, b := range bounds {
		cumulative += classic[i]
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: new(b), CumulativeCount: new(cumulative)})
	}
	h.PositiveSpan, h.PositiveDelta = spans(native[1:])
	out.Label, out.Histogram = m.labels, h
	return nil
}

// spans writes native buckets as runs, each with the distance to the run before,
// and the differences of their counts. A gap of one or two empty buckets does
// not end a run: a new run costs more.
func spans(counts []uint64) (runs []*dto.BucketSpan, deltas []int64) {
	next := 0 // the bucket after the last run, by Prometheus' index
	var previous uint64
	for i, n := range counts {
		if n == 0 {
			continue
		}
		// The bucket with index k ends at 2^(k/8); ours start right above the
		// zero bucket.
		index := nativeMinExp*perOctave + 1 + i
		gap := index - next
		if len(runs) == 0 || gap > 2 {
			runs = append(runs, &dto.BucketSpan{Offset: new(int32(gap)), Length: new(uint32(0))})
			gap = 0
		}
		run := runs[len(runs)-1]
		for range gap {
			deltas = append(deltas, -int64(previous))
			previous = 0
		}
		deltas = append(deltas, int64(n)-int64(previous))
		previous = n
		*run.Length += uint32(gap) + 1
		next = index + 1
	}
	return runs, deltas
}
