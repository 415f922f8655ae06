package outlier_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/outlier"
)

// Whatever was wrong with whichever instances, for however long and by turns: when all are
// well again, all come back and get their share.
func TestAllComeBack(t *testing.T) {
	ways := map[string]func(*balance.Endpoint) (time.Duration, bool){
		"refuses": refuses, "half fails": halfFails, "slow": isSlow,
		"hangs": func(*balance.Endpoint) (time.Duration, bool) { return 15 * time.Second, true },
		"stutters": func(*balance.Endpoint) (time.Duration, bool) {
			return time.Duration(rand.IntN(1000)) * time.Millisecond, rand.IntN(4) == 0
		},
	}
	type phase struct {
		way  string
		sick []bool
		long time.Duration
	}
	rapid.Check(t, func(rt *rapid.T) {
		strategy := rapid.SampledFrom(balance.Strategies()).Draw(rt, "strategy")
		n := rapid.IntRange(2, 5).Draw(rt, "n")
		phases := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) phase {
			return phase{
				rapid.SampledFrom(slices.Sorted(maps.Keys(ways))).Draw(t, "way"),
				rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "sick"),
				time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds")) * time.Second,
			}
		}), 1, 3).Draw(rt, "phases")
		problem := "" // a rapid.T must not fail inside
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, n, outlier.Config{MaxEjectTime: 20 * time.Second}, strategy)
			for _, ph := range phases {
				sick := slices.Clone(f.eps)
				sick = slices.DeleteFunc(sick, func(e *balance.Endpoint) bool { return !ph.sick[slices.Index(f.eps, e)] })
				f.sick(ways[ph.way], sick...)
				f.run(ph.long, 20*time.Millisecond)
			}
			f.sick(refuses)
			start := time.Now()
			for len(f.out()) > 0 && time.Since(start) < 3*time.Minute {
				f.run(time.Second, 20*time.Millisecond)
			}
			if out := f.detector.Snapshot().Out; len(out) > 0 {
				problem = fmt.Sprintf("after three minutes some are still out: %+v", out)
			}
			f.run(3*time.Minute, 50*time.Millisecond) // P2C holds failures against them for a minute and a half
			got := f.run(5*time.Second, time.Millisecond)
			for _, e := range f.eps {
				if got[e.ID] < 5000/n/4 {
					problem += fmt.Sprintf("%s got %d of 5000 calls, want more of its share of %d; ", e.ID, got[e.ID], 5000/n)
				}
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// Many callers come at the moment an ejection is over: one of them makes the rotation, and
// its single calls, for all.
func TestOneRotationForAllCallers(t *testing.T) {
	t.Parallel()
	eps := endpoints(200)
	set := balance.NewSet(eps)
	for range 30 {
		d := newDetector(t, outlier.Config{EjectTime: 10 * time.Millisecond})
		d.InRotation(set)
		for range 5 {
			d.Report(eps[0], time.Millisecond, true)
		}
		before := d.InRotation(set)
		var wg sync.WaitGroup
		var mu sync.Mutex
		after := map[*balance.Set]bool{}
		for range 8 {
			wg.Go(func() {
				in := before
				for in == before {
					in = d.InRotation(set)
				}
				mu.Lock()
				defer mu.Unlock()
				after[in] = true
			})
		}
		wg.Wait()
		if len(after) != 1 {
			t.Fatalf("%d rotations for callers that came at the same moment, want one", len(after))
		}
	}
}
