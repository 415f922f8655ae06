package balance_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
)

func TestSubset(t *testing.T) {
	t.Parallel()
	set := balance.NewSet(endpoints(10))
	for _, size := range []int{-1, 0, 10, 11} {
		if set.Subset("me", size) != set {
			t.Errorf("a subset of size %d of 10 is not the set", size)
		}
	}
	var none *balance.Set
	if n := none.Subset("me", 3).Len(); n != 0 {
		t.Errorf("a subset of a nil set has %d endpoints", n)
	}
}

// A subset depends on the set and the client alone, and a change of one endpoint changes
// at most one of its members.
func TestSubsetStable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		eps := weighted(rapid.SliceOfN(rapid.IntRange(1, 5), 2, 60).Draw(t, "weights")...)
		client := rapid.String().Draw(t, "client")
		size := rapid.IntRange(1, len(eps)-1).Draw(t, "size")
		gone := rapid.IntRange(0, len(eps)-1).Draw(t, "gone")
		more := ids(balance.NewSet(eps).Subset(client, size))
		less := ids(balance.NewSet(slices.Delete(slices.Clone(eps), gone, gone+1)).Subset(client, size))
		if len(more) != size || len(less) != size {
			t.Fatalf("subsets of %d and %d, want %d", len(more), len(less), size)
		}
		kept := slices.DeleteFunc(slices.Clone(more), func(id string) bool { return !slices.Contains(less, id) })
		if was := slices.Contains(more, eps[gone].ID); was && len(kept) != size-1 || !was && len(kept) != size {
			t.Fatalf("as %s (a member: %v) went, %v became %v", eps[gone].ID, was, more, less)
		}
	})
}

// Many clients together use all endpoints about equally.
func TestSubsetBalanced(t *testing.T) {
	t.Parallel()
	const n, clients, size = 200, 2000, 20
	set := balance.NewSet(endpoints(n))
	used := map[string]int{}
	for c := range clients {
		for _, id := range ids(set.Subset(fmt.Sprintf("gateway-%d", c), size)) {
			used[id]++
		}
	}
	chi2 := 0.0
	for _, id := range ids(set) {
		// 200 expected, deviation 13.4.
		if used[id] < 140 || used[id] > 260 {
			t.Errorf("%s is in %d of %d subsets, want about %d", id, used[id], clients, clients*size/n)
		}
		d := float64(used[id]) - clients*size/n
		chi2 += d * d / (clients * size / n)
	}
	if chi2 > 300 { // of 199 degrees of freedom; times 0.9, since an endpoint is in a subset once only
		t.Errorf("χ² is %.0f, want about 180", chi2)
	}
}

func TestSubsetting(t *testing.T) {
	t.Parallel()
	eps := endpoints(100)
	set := balance.NewSet(eps)
	want := set.Subset("me", 10)
	p := balance.Subsetting(balance.RoundRobin(), "me", 10)
	for i := range 30 {
		if e := p.Pick(set); !slices.Contains(ids(want), e.ID) {
			t.Fatalf("picked %s, which is not in the subset", e.ID)
		} else if i >= 10 && i%10 == 0 {
			// An endpoint outside the subset goes: round robin does not notice.
			outside := slices.IndexFunc(eps, func(e *balance.Endpoint) bool { return !slices.Contains(ids(want), e.ID) })
			eps = slices.Delete(slices.Clone(eps), outside, outside+1)
			set = balance.NewSet(eps)
		}
	}
	// A small set is used whole, and an empty one not at all.
	few := balance.NewSet(eps[:3])
	for i, n := range counts(balance.Subsetting(balance.RoundRobin(), "me", 10), few, 30) {
		if n != 10 {
			t.Errorf("endpoint %d of 3 picked %d times of 30", i, n)
		}
	}
	for _, empty := range []*balance.Set{nil, balance.NewSet(nil)} {
		if p.Pick(empty) != nil || p.PickKey(empty, "k") != nil {
			t.Error("picked from nothing")
		}
	}
}

// Keys stay together within a subset, and do not matter to a picker that minds none.
func TestSubsettingKeys(t *testing.T) {
	t.Parallel()
	set := balance.NewSet(endpoints(100))
	sub := set.Subset("me", 10)
	p := balance.Subsetting(balance.ConsistentHash(0), "me", 10)
	alone := balance.ConsistentHash(0)
	for i := range 100 {
		if got, want := p.PickKey(set, key(i)), alone.PickKey(sub, key(i)); got != want {
			t.Fatalf("%s: %s, want %s", key(i), got.ID, want.ID)
		}
	}
	seen := map[*balance.Endpoint]bool{}
	turns := balance.Subsetting(balance.RoundRobin(), "me", 10)
	for range 10 {
		seen[turns.PickKey(set, "k")] = true
	}
	if len(seen) != 10 {
		t.Errorf("round robin with a key reached %d of 10", len(seen))
	}
}
