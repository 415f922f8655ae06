package balance

import (
	"math"
	"testing"
	"time"
	"unsafe"
)

// Cells of endpoints made one after the other are in lines of their own; a slab is used
// up before the next one.
func TestCellsShareNoLine(t *testing.T) {
	t.Parallel()
	const line = 64
	seen := map[uintptr]bool{}
	shared := 0
	var before uintptr
	for range 4 * slabLines {
		at := uintptr(unsafe.Pointer(newCell())) / line
		if at == before {
			t.Fatal("two cells in a row share a cache line")
		}
		if seen[at] {
			shared++
		}
		seen[at], before = true, at
	}
	if shared == 0 || shared > 3*slabLines {
		t.Errorf("%d cells of %d share a line; want them dense, four to a line", shared, 4*slabLines)
	}
}

// Times begin anew after 52 days, and clocks of other calls are a little ahead.
func TestAgo(t *testing.T) {
	t.Parallel()
	for _, now := range []uint32{0, 1, 1 << 31, math.MaxUint32, math.MaxUint32 - 3} {
		for _, ticks := range []int64{0, 1, -1, -slack, 1000, 1 << 31, 1<<32 - slack - 1} {
			if got := ago(now, now-uint32(ticks)); got != ticks {
				t.Errorf("at %d: %d ticks ago is taken for %d", now, ticks, got)
			}
		}
	}
}

// However many calls there are in a moment, an old peak does not stay for ever.
func TestLatencyOfManyCalls(t *testing.T) {
	t.Parallel()
	var c cell
	c.begin(1)
	c.end(1, float64(time.Second), 0, false, true)
	before := c.latency()
	for range 1000 {
		c.begin(1)
		c.end(1, float64(time.Second)/2, time.Nanosecond, false, false)
		if now := c.latency(); now >= before {
			t.Fatalf("%v after a shorter call, %v before", now, before)
		} else {
			before = now
		}
	}
	if c.inFlight() != 0 {
		t.Errorf("%d in flight", c.inFlight())
	}
}

// Calls in flight do not touch the latency, not even if there are less than none.
func TestCellFieldsAreApart(t *testing.T) {
	t.Parallel()
	var c cell
	c.end(1, 5e6, 0, false, true)
	if c.inFlight() != -1 || c.latency() != 5e6 {
		t.Fatalf("%d in flight, latency %v; want -1 and 5 ms", c.inFlight(), c.latency())
	}
	for i := range int64(1000) {
		c.begin(2)
		if c.inFlight() != i || c.latency() != 5e6 {
			t.Fatalf("%d in flight, latency %v; want %d and 5 ms", c.inFlight(), c.latency(), i)
		}
	}
	c.forget()
	if c.inFlight() != 999 || c.latency() != 0 {
		t.Errorf("%d in flight, latency %v after forgetting", c.inFlight(), c.latency())
	}
	if wait, _ := silence(c.times.Load(), 100); wait != 0 {
		t.Errorf("silent for %d ticks after forgetting", wait)
	}
}
