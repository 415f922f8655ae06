package registry

import (
	"container/heap"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAgenda(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a agenda
		var all []*patient
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			due := time.Unix(int64(rapid.IntRange(0, 100).Draw(t, "due")), 0)
			if len(all) > 0 && rapid.Bool().Draw(t, "again") {
				p := rapid.SampledFrom(all).Draw(t, "patient")
				p.due = due
				a.schedule(p)
				continue
			}
			p := &patient{index: -1, due: due}
			a.schedule(p)
			all = append(all, p)
		}
		slices.SortFunc(all, func(x, y *patient) int { return x.due.Compare(y.due) })
		for _, want := range all {
			if p := heap.Pop(&a).(*patient); !p.due.Equal(want.due) || p.index != -1 {
				t.Fatalf("popped %v, want %v", p.due, want.due)
			}
		}
	})
}

// The checks of one instance are 5 s apart, ±10 %, and each node that begins
// anywhere between two of them makes the same next one.
func TestRhythm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := rhythm(rapid.Uint64().Draw(t, "key"))
		now := time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "now"))
		at := r.first(now)
		if wait := at.Sub(now); wait <= 0 || wait > CheckInterval*11/10 {
			t.Fatalf("the first is due in %v", wait)
		}
		for range 5 {
			next := r.next(at)
			if gap := next.Sub(at); gap < CheckInterval*9/10 || gap > CheckInterval*11/10 {
				t.Fatalf("%v between two checks", gap)
			}
			between := at.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(at))-1).Draw(t, "takeover")))
			if first := r.first(between); !first.Equal(next) {
				t.Fatalf("who takes over at %v goes on at %v, want %v", between, first, next)
			}
			at = next
		}
	})
}

// Whenever an instance was checked out of turn, it is back in its rhythm within
// half a minute, and no gap is unusual until then.
func TestRhythmConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := rhythm(rapid.Uint64().Draw(t, "key"))
		at := time.Unix(0, rapid.Int64Range(1<<60, 1<<62).Draw(t, "at"))
		for range 12 {
			next := r.next(at)
			if gap := next.Sub(at); gap < CheckInterval*9/10 || gap > CheckInterval*11/10 {
				t.Fatalf("%v between two checks", gap)
			}
			at = next
		}
		if first := r.first(at.Add(-time.Nanosecond)); !first.Equal(at) {
			t.Fatalf("checked at %v, but its rhythm says %v", at, first)
		}
	})
}

// The checks of many instances are spread evenly over the interval, and two
// instances whose names are alike are not checked together.
func TestRhythmSpread(t *testing.T) {
	t.Parallel()
	const n, parts = 10_000, 10
	var due [parts]int
	now := time.Unix(1_800_000_000, 0)
	for i := range n {
		wait := rhythmOf(Key{"users", fmt.Sprintf("users-%d", i)}).first(now).Sub(now)
		due[min(int(wait*parts/CheckInterval), parts-1)]++
	}
	for i, got := range due {
		if got < n/parts*3/4 || got > n/parts*5/4 {
			t.Errorf("%d of %d are due in part %d of %d of the interval", got, n, i, parts)
		}
	}
}
