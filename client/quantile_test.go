package client

import (
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newLatencies(q float64) *latencies { return &latencies{quantile: q, least: 50} }

// Each step begins where the one before it ends.
func TestSteps(t *testing.T) {
	t.Parallel()
	before := time.Duration(0)
	for i := range steps {
		end := longestOf(i)
		if step(before) != i || step(end-1) != i {
			t.Fatalf("step %d is from %v to %v, but those are in %d and %d", i, before, end, step(before), step(end-1))
		}
		if width := end - before; i >= eighths && width > before/eighths {
			t.Errorf("step %d is %v wide from %v on", i, width, before)
		}
		before = end
	}
	for _, d := range []time.Duration{-1, 1<<63 - 1, time.Hour} {
		if got := step(d); got < 0 || got >= steps {
			t.Errorf("%v is in step %d of %d", d, got, steps)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := rapid.Float64Range(0.5, 0.999).Draw(t, "quantile")
		l := newLatencies(q)
		samples := rapid.SliceOfN(rapid.Int64Range(0, int64(100*time.Second)), 64, 640).Draw(t, "samples")
		samples = samples[:len(samples)/refreshed*refreshed] // the figure takes all of them in
		for _, s := range samples {
			l.record(time.Duration(s))
		}
		slices.Sort(samples)
		want := time.Duration(samples[int(q*float64(len(samples)))])
		// At most one step above, and never below.
		if got := l.usual(); got < want || got > want+want/eighths+2<<finest {
			t.Errorf("%v, want %v or an eighth more", got, want)
		}
	})
}

func TestQuantileNeedsSamples(t *testing.T) {
	t.Parallel()
	l := newLatencies(0.95)
	for range 49 {
		l.record(time.Millisecond)
	}
	if got := l.usual(); got != 0 {
		t.Errorf("%v after 49 answers", got)
	}
	l.record(time.Millisecond)
	if got := l.usual(); got < time.Millisecond || got > 1200*time.Microsecond {
		t.Errorf("%v after 50 answers of 1ms", got)
	}
}

func TestQuantileForgets(t *testing.T) {
	t.Parallel()
	l := newLatencies(0.95)
	for range 100_000 {
		l.record(time.Second)
	}
	n := 0
	for ; l.usual() > 2*time.Millisecond; n++ {
		if l.record(time.Millisecond); n > 20*remembered {
			t.Fatalf("still %v after %d answers of 1ms", l.usual(), n)
		}
	}
	// 1 in 32 halvings' worth: log2(20) halvings, of half of remembered each.
	if n > 6*remembered {
		t.Errorf("it took %d answers to forget", n)
	}
	if total := l.total.Load(); total > remembered {
		t.Errorf("%d samples kept", total)
	}
}

func TestQuantileOfManyAtOnce(t *testing.T) {
	t.Parallel()
	l := newLatencies(0.95)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20_000 {
				l.record(time.Duration(i%100) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	var sum int64
	for i := range l.counts {
		n := l.counts[i].Load()
		if n > 1<<20 {
			t.Errorf("step %d went below zero", i)
		}
		sum += int64(n)
	}
	if sum != l.total.Load() || sum > 2*remembered {
		t.Errorf("%d samples kept, %d counted", sum, l.total.Load())
	}
	if got := l.usual(); got < 80*time.Millisecond || got > 120*time.Millisecond {
		t.Errorf("%v, want about 95ms", got)
	}
}

func BenchmarkRecord(b *testing.B) {
	l := newLatencies(0.95)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.record(time.Duration(i&1023) * time.Microsecond)
	}
}

func TestLosers(t *testing.T) {
	t.Parallel()
	var l losers
	now := time.Now()
	lost := func(id string, after time.Duration, again, failing bool) {
		t.Helper()
		if a, f := l.lost(id, now.Add(after)); a != again || f != failing {
			t.Errorf("%s lost after %v: again %v, failing %v; want %v, %v", id, after, a, f, again, failing)
		}
	}
	lost("a", 0, false, false)
	lost("a", stall-1, true, false) // a short stall is no failure
	lost("a", stall, true, true)
	lost("a", time.Hour, true, true)
	lost("b", stall, false, false)
	l.answered("a")
	lost("a", 2*stall, false, false)
	for i := range 10 * watched {
		l.lost(string(rune(i)), now)
	}
	if n := int(l.n.Load()); n > watched || n != len(l.since) {
		t.Errorf("%d instances are kept, %d counted", len(l.since), n)
	}
}
