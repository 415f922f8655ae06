package balance

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// Every number belongs to one endpoint; all shares are in proportion to the weights, to
// the last number; and a draw that leaves one endpoint out keeps the others' proportions.
func TestShares(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, MaxWeight), 2, 50).Draw(t, "weights")
		var eps []*Endpoint
		for i, w := range weights {
			e := NewEndpoint(fmt.Sprintf("%02d", i), "")
			e.Weight = w
			eps = append(eps, e)
		}
		s := NewSet(eps).shares
		if s == nil {
			for _, w := range weights {
				if w != weights[0] {
					t.Fatal("no shares though weights differ")
				}
			}
			return
		}
		first := uint64(0)
		for i, w := range weights {
			if s.at(first) != i || s.at(s.last[i]) != i {
				t.Fatalf("from %d to %d is endpoint %d, but found %d and %d", first, s.last[i], i, s.at(first), s.at(s.last[i]))
			}
			share := math.Ldexp(float64(s.last[i]-first)+1, -64)
			if want := float64(w) / float64(s.total); math.Abs(share-want) > 1e-12 {
				t.Fatalf("endpoint %d has %g, want %g", i, share, want)
			}
			first = s.last[i] + 1
		}
		if first != 0 {
			t.Fatalf("the last share ends before %d", first)
		}
		out := rapid.IntRange(0, len(weights)-1).Draw(t, "left out")
		const draws = 4096
		got := make([]int, len(weights))
		for u := range uint64(draws) {
			got[s.others(out, u<<52)]++ // evenly spread
		}
		for i, n := range got {
			want := draws * float64(weights[i]) / float64(s.total-weights[out])
			if i == out {
				want = 0
			}
			if math.Abs(float64(n)-want) > 2 {
				t.Fatalf("without %d, endpoint %d is drawn %d times of %d, want %.1f", out, i, n, draws, want)
			}
		}
		if s.others(out, 1<<64-1) == out || s.others(out, 0) == out {
			t.Fatal("the one left out is drawn at an end")
		}
	})
}
