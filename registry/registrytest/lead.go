package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
)

// quickly is how soon the leadership is taken over that was given back; well
// before a store could have found out by itself.
const quickly = 2 * time.Second

// throne is what candidates compete for. It sees to it that one at most leads.
type throne struct{ leaders atomic.Int32 }

// candidate is one campaign.
type candidate struct {
	Connection
	leads  atomic.Bool
	terms  atomic.Int32
	resign func() // ends the campaign and waits until it has ended
}

func (h *throne) campaign(t *testing.T, conn Connection) *candidate {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &candidate{Connection: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for leads := range conn.Lead(ctx) {
			if leads == c.leads.Load() {
				t.Errorf("Lead yielded %t twice, or false first", leads)
			}
			if !leads {
				c.leads.Store(false)
				h.leaders.Add(-1)
				continue
			}
			if n := h.leaders.Add(1); n != 1 {
				t.Errorf("%d lead at a time", n)
			}
			c.terms.Add(1)
			c.leads.Store(true)
		}
		if c.leads.Load() {
			t.Error("the campaign of a leader has ended without telling it false")
		}
	}()
	c.resign = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(deadline):
			t.Error("a campaign does not end")
		}
	}
	t.Cleanup(c.resign)
	return c
}

func (h *throne) campaigns(t *testing.T, s Store, n int) []*candidate {
	t.Helper()
	var all []*candidate
	for range n {
		all = append(all, h.campaign(t, s.Connect(t)))
	}
	return all
}

// elected waits until one of candidates leads, and returns its index.
func elected(t *testing.T, candidates []*candidate) int {
	t.Helper()
	n := -1
	eventually(t, func() string {
		n = slices.IndexFunc(candidates, func(c *candidate) bool { return c.leads.Load() })
		if n < 0 {
			return "nobody leads"
		}
		return ""
	})
	return n
}

func steps(t *testing.T, c *candidate) {
	t.Helper()
	eventually(t, func() string {
		if c.leads.Load() {
			return "it still leads"
		}
		return ""
	})
}

func without(all []*candidate, n int) []*candidate {
	return slices.Delete(slices.Clone(all), n, n+1)
}

func testLead(t *testing.T, s Store) {
	h := &throne{}
	node := s.Connect(t)
	follow, _ := leases(t, node)
	left := h.campaigns(t, s, 5)
	var took []time.Duration
	for {
		n := elected(t, left)
		leader := left[n]
		began := time.Now()
		leader.resign()
		if leader.leads.Load() {
			t.Error("it leads after its campaign")
		}
		if left = without(left, n); len(left) == 0 {
			break
		}
		elected(t, left)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if most := took[len(took)-1]; most > quickly {
		t.Errorf("it took %v to take over what was given back", most)
	}
	t.Logf("given back → taken over: %v", took)
	if n := h.leaders.Load(); n != 0 {
		t.Errorf("%d lead in the end", n)
	}
	// The leadership is no instance's lease.
	in := instance(t, "users", 1)
	mustRegister(t, node, in, longTTL)
	expectLease(t, follow, registry.LeaseHeld, in.Key())
}

// A leader whose renewals work leads for as long as it likes.
func testLeadLasts(t *testing.T, s Store) {
	h := &throne{}
	all := h.campaigns(t, s, 3)
	leader := all[elected(t, all)]
	tick(t, 5*time.Second)
	if !leader.leads.Load() || leader.terms.Load() != 1 {
		t.Errorf("after a while: leads %t, in its term %d; want the first", leader.leads.Load(), leader.terms.Load())
	}
}

// Nobody is left leading, and nothing is left behind, whichever way a campaign
// ends.
func testLeadEnds(t *testing.T, s Store) {
	a, b := s.Connect(t), s.Connect(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for leads := range a.Lead(ended) {
		t.Errorf("a campaign without time yields %t", leads)
	}
	began := time.Now()
	for range 3 { // the consumer may stop at any time
		for _, conn := range []Connection{a, b, a} {
			for leads := range conn.Lead(t.Context()) {
				if !leads {
					t.Error("Lead yields false first")
				}
				break
			}
		}
	}
	if took := time.Since(began) / 9; took > quickly {
		t.Errorf("it took %v each time to take over what was given back", took)
	}

	h := &throne{}
	leader := h.campaign(t, a)
	elected(t, []*candidate{leader})
	a.Sever()
	steps(t, leader)
	began = time.Now()
	leader.resign()
	if took := time.Since(began); took > deadline/4 {
		t.Errorf("a campaign took %v to end without the store", took)
	}
	elected(t, []*candidate{h.campaign(t, b)})
}

// Two campaigns on one connection are two.
func testLeadShared(t *testing.T, s Store) {
	h := &throne{}
	conn := s.Connect(t)
	both := []*candidate{h.campaign(t, conn), h.campaign(t, conn)}
	for range 3 {
		elected(t, both)
		conn.Sever()
		steps(t, both[0])
		steps(t, both[1])
		conn.Mend()
	}
	n := elected(t, both)
	both[n].resign()
	elected(t, without(both, n))
}

func testLeadSevered(t *testing.T, s Store) {
	h := &throne{}
	all := h.campaigns(t, s, 3)
	var took []time.Duration
	for range 5 {
		n := elected(t, all)
		began := time.Now()
		all[n].Sever()
		elected(t, without(all, n))
		took = append(took, time.Since(began))
		if all[n].leads.Load() {
			t.Error("it leads without the store")
		}
		all[n].Mend()
	}
	slices.Sort(took)
	t.Logf("severed → taken over: %v", took)
	if most := took[len(took)-1]; most > 5*time.Second {
		t.Errorf("it took %v to replace a leader", most)
	}
	// Whoever was severed is a candidate again.
	for _, c := range all {
		c.Sever()
	}
	for _, c := range all {
		steps(t, c)
	}
	all[0].Mend()
	if n := elected(t, all); n != 0 {
		t.Errorf("candidate %d leads, which is severed", n)
	}
}

func testLeadStalled(t *testing.T, s Store) {
	h := &throne{}
	all := h.campaigns(t, s, 3)
	n := elected(t, all)
	stalled := all[n]
	if stalled.Stall == nil {
		t.Log("connections to this store don't stall")
		return
	}
	began := time.Now()
	resume := stalled.Stall()
	t.Cleanup(resume)
	rest := without(all, n)
	elected(t, rest)
	t.Logf("stalled → taken over: %v", time.Since(began))
	if stalled.leads.Load() {
		t.Error("it leads though nothing gets through")
	}
	resume()
	for _, c := range rest {
		c.resign()
	}
	elected(t, []*candidate{stalled}) // it is a candidate again
}

func testLeadWipe(t *testing.T, s Store) {
	if s.Wipe == nil {
		t.Log("this store can't be wiped")
		return
	}
	h := &throne{}
	all := h.campaigns(t, s, 3)
	for range 2 {
		leader := all[elected(t, all)]
		term := leader.terms.Load()
		s.Wipe(t)
		eventually(t, func() string {
			if leader.leads.Load() && leader.terms.Load() == term {
				return "it leads in a store that knows nothing of it"
			}
			return ""
		})
		elected(t, all)
	}
}

// testLeadRandom does whatever may happen in any order.
func testLeadRandom(t *testing.T, s Store) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	var log []string
	defer func() {
		if t.Failed() {
			t.Logf("seed %d: %s", seed, strings.Join(log, ", "))
		}
	}()
	h := &throne{}
	all := h.campaigns(t, s, 4)
	for range 40 {
		n := random.IntN(len(all))
		if l := slices.IndexFunc(all, func(c *candidate) bool { return c.leads.Load() }); l >= 0 && random.IntN(2) == 0 {
			n = l
		}
		c := all[n]
		what := []string{"sever", "mend", "resign"}[random.IntN(3)]
		log = append(log, fmt.Sprint(what, " ", n))
		switch what {
		case "sever":
			c.Sever()
		case "mend":
			c.Mend()
		case "resign":
			c.resign()
			c.Mend()
			all[n] = h.campaign(t, c.Connection)
		}
		tick(t, time.Duration(random.IntN(100))*time.Millisecond)
	}
	for _, c := range all {
		c.Mend()
	}
	all[elected(t, all)].resign()
	elected(t, all)
}
