package balance_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
)

// in returns n endpoints in a zone.
func in(zone string, n int) []*balance.Endpoint {
	eps := make([]*balance.Endpoint, n)
	for i := range eps {
		id := zone + "-" + string(rune('a'+i))
		eps[i] = balance.NewEndpoint(id, "http://"+id)
		eps[i].Zone = zone
	}
	return eps
}

// load sends a call every interval for a time, and returns the share of those that left
// the zone "here". took says how long a call takes at a zone that has so many in flight;
// negative: it fails at once.
func load(p balance.Picker, set *balance.Set, every, total time.Duration, took func(zone string, inFlight int64) time.Duration) float64 {
	var wg sync.WaitGroup
	inFlight := map[string]*atomic.Int64{}
	for e := range set.All() {
		inFlight[e.Zone] = new(atomic.Int64)
	}
	calls, left := 0, 0
	for start := time.Now(); time.Since(start) < total; time.Sleep(every) {
		e := p.Pick(set)
		calls++
		if e.Zone != "here" {
			left++
		}
		e.Begin()
		t := took(e.Zone, inFlight[e.Zone].Add(1))
		wg.Go(func() {
			time.Sleep(max(t, 0))
			inFlight[e.Zone].Add(-1)
			e.End(max(t, 0), t < 0)
		})
	}
	wg.Wait()
	return float64(left) / float64(calls)
}

func fixed(here, there time.Duration) func(string, int64) time.Duration {
	return func(zone string, _ int64) time.Duration {
		if zone == "here" {
			return here
		}
		return there
	}
}

func TestPreferZoneSpills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		set := balance.NewSet(slices.Concat(in("here", 3), in("there", 3), in("beyond", 3)))
		p := balance.PreferZone("here", balance.P2C)
		for _, phase := range []struct {
			name        string
			here, there time.Duration
			least, most float64
		}{
			{"all is well", 5 * ms, 6 * ms, 0, .02},
			{"a bit slow here is no reason", 9 * ms, 6 * ms, 0, .02},
			{"three times as slow", 18 * ms, 6 * ms, .15, .45},
			{"ten times as slow", 60 * ms, 6 * ms, .6, .9},
			{"broken", -1, 6 * ms, .95, 1},
		} {
			if left := load(p, set, 5*ms, time.Minute, fixed(phase.here, phase.there)); left < phase.least || left > phase.most {
				t.Errorf("%s: %.3f of the calls leave the zone, want %.2f to %.2f", phase.name, left, phase.least, phase.most)
			}
		}
		load(p, set, 2*ms, 2*time.Minute, fixed(5*ms, 6*ms)) // recovers
		if left := load(p, set, 5*ms, time.Minute, fixed(5*ms, 6*ms)); left > .02 {
			t.Errorf("recovered: %.3f of the calls leave the zone still", left)
		}
	})
}

// A zone that works off so many calls at a time, and no more: the rest must leave, the
// zone must stay busy, and no queue may build up in it.
func TestPreferZoneOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := balance.NewSet(slices.Concat(in("here", 2), in("there", 4)))
		p := balance.PreferZone("here", balance.P2C)
		var slow, calls int
		queue := func(zone string, inFlight int64) time.Duration {
			took := 10 * time.Millisecond
			if zone == "here" {
				took = max(took, time.Duration(inFlight)*time.Millisecond) // ten are done at a time, more wait
			}
			calls++
			if took > 120*time.Millisecond {
				slow++
			}
			return took
		}
		load(p, set, 20*time.Millisecond, 10*time.Second, queue)
		if left := load(p, set, 5*time.Millisecond, time.Minute, queue); left > .02 {
			t.Errorf("within its capacity, %.3f of the calls leave the zone", left)
		}
		slow, calls = 0, 0
		left := load(p, set, 250*time.Microsecond, 20*time.Second, queue) // 4000 a second, of which here 1000 can be done
		if left < .7 || left > .85 {
			t.Errorf("with four times the calls it can do, %.3f leave the zone", left)
		}
		if slow > calls/10 {
			t.Errorf("%d of %d calls took more than 120 ms", slow, calls)
		}
	})
}

// Nothing in the zone answers any more, not even with an error.
func TestPreferZoneSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, known := range []bool{true, false} {
			set := balance.NewSet(slices.Concat(in("here", 1), in("there", 2)))
			p := balance.PreferZone("here", balance.P2C)
			if known {
				load(p, set, 2*time.Millisecond, 10*time.Second, fixed(5*time.Millisecond, 5*time.Millisecond))
			}
			thaw := make(chan struct{})
			var wg sync.WaitGroup
			stuck := 0
			for range 20_000 { // 40 s
				e := p.Pick(set)
				e.Begin()
				if e.Zone == "here" {
					stuck++
				}
				wg.Go(func() {
					if e.Zone == "here" {
						<-thaw
					} else {
						time.Sleep(5 * time.Millisecond)
					}
					e.End(5*time.Millisecond, false)
				})
				time.Sleep(2 * time.Millisecond)
			}
			close(thaw)
			wg.Wait()
			if stuck > 2500 {
				t.Errorf("%d of 20000 calls went to the silent zone (known before: %v)", stuck, known)
			}
		}
	})
}

// One slow call, or the first one, which opens a connection, is no reason to leave.
func TestPreferZoneHiccup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, there := in("here", 1), in("there", 2)
		set := balance.NewSet(slices.Concat(local, there))
		p := balance.PreferZone("here", balance.P2C)
		call := func(e *balance.Endpoint, latency time.Duration, failed bool) {
			e.Begin()
			time.Sleep(latency)
			e.End(latency, failed)
		}
		call(local[0], time.Second, false)
		for range 200 {
			for _, e := range slices.Concat(local, there) {
				call(e, time.Millisecond, false)
			}
		}
		for name, slow := range map[string]struct {
			latency time.Duration
			failed  bool
			most    int
		}{
			"50 ms instead of 1": {50 * time.Millisecond, false, 50},
			"a failure":          {time.Millisecond, true, 50},
		} {
			call(local[0], slow.latency, slow.failed)
			left := 0
			for range 1000 {
				e := p.Pick(set)
				if e.Zone != "here" {
					left++
				}
				call(e, time.Millisecond, false)
			}
			if left > slow.most {
				t.Errorf("%s: %d of the next 1000 calls leave", name, left)
			}
		}
	})
}

func TestPreferZoneSize(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		set  []*balance.Endpoint
		left float64
	}{
		"alone":                 {in("here", 3), 0},
		"gone":                  {in("there", 3), 1},
		"nobody has a zone":     {endpoints(3), 1},
		"half":                  {slices.Concat(in("here", 3), in("there", 3)), 1. / 128},
		"a quarter of two":      {slices.Concat(in("here", 1), in("there", 3)), 1. / 128},
		"a tenth of two":        {slices.Concat(in("here", 1), in("there", 9)), 1 - 2*2./10},
		"a tenth of three":      {slices.Concat(in("here", 1), in("there", 5), in("beyond", 4)), 1 - 2*3./10},
		"a heavy tenth of two":  {slices.Concat([]*balance.Endpoint{in("here", 1)[0].WithWeight(9)}, in("there", 9)), 1. / 128},
		"a light third of two":  {slices.Concat([]*balance.Endpoint{in("here", 1)[0].WithWeight(1)}, weighted(9, 9)), 1 - 2*2./19},
		"weight 0 is not there": {slices.Concat([]*balance.Endpoint{in("here", 1)[0].WithWeight(0)}, in("there", 2)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 50_000
			set, p, left := balance.NewSet(tc.set), balance.PreferZone("here", balance.Random), 0
			for range n {
				if p.Pick(set).Zone != "here" {
					left++
				}
			}
			if !near(left, n, tc.left) {
				t.Errorf("%d of %d calls left the zone, want a share of %.4f", left, n, tc.left)
			}
		})
	}
}

// Sets change as they like: there is always an endpoint if the set has one, and it is one
// of the set.
func TestPreferZoneChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pool := slices.Concat(in("here", 3), in("there", 3), endpoints(2))
		strategy := rapid.SampledFrom(balance.Strategies()).Draw(t, "strategy")
		zone := rapid.SampledFrom([]string{"", "here", "nowhere"}).Draw(t, "zone")
		p := balance.PreferZone(zone, func() balance.Picker {
			inner, err := balance.New(strategy)
			if err != nil {
				t.Fatal(err)
			}
			return balance.Subsetting(inner, "me", 2)
		})
		for range 10 {
			members := slices.DeleteFunc(slices.Clone(pool), func(*balance.Endpoint) bool { return rapid.Bool().Draw(t, "out") })
			set := balance.NewSet(members)
			for range 10 {
				for _, e := range []*balance.Endpoint{p.Pick(set), p.PickKey(set, rapid.String().Draw(t, "key"))} {
					if len(members) == 0 && e != nil || len(members) > 0 && !slices.Contains(members, e) {
						t.Fatalf("picked %v of %d", e, len(members))
					}
				}
			}
		}
		if p.Pick(nil) != nil || p.PickKey(nil, "k") != nil {
			t.Fatal("picked from nothing")
		}
	})
}

// Round robin goes on within the zone when another zone changes.
func TestPreferZoneKeepsTurns(t *testing.T) {
	t.Parallel()
	local, there := in("here", 4), in("there", 4)
	p := balance.PreferZone("here", balance.RoundRobin)
	got := map[string]int{}
	for i := range 4000 {
		got[p.Pick(balance.NewSet(slices.Concat(local, there[:1+i%4]))).ID]++
	}
	lowest, highest := 4000, 0
	for _, e := range local {
		lowest, highest = min(lowest, got[e.ID]), max(highest, got[e.ID])
	}
	if highest-lowest > 1 || lowest < 900 {
		t.Errorf("turns within the zone differ: %v", got)
	}
}

// Each key has one home, nearly always in the zone. As the zone slows down, keys leave it
// one after the other, each to one home elsewhere.
func TestPreferZoneKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, there := in("here", 3), in("there", 3)
		set := balance.NewSet(slices.Concat(local, there))
		p := balance.PreferZone("here", func() balance.Picker { return balance.ConsistentHash(0) })
		call := func(eps []*balance.Endpoint, latency time.Duration) {
			for _, e := range eps {
				for range 1000 { // until the mean is that
					e.Begin()
					e.End(latency, false)
				}
			}
		}
		call(there, 5*time.Millisecond)
		var before []string
		lastLeft := -1
		for _, latency := range []time.Duration{5, 15, 30, 100, 1000} {
			call(local, latency*time.Millisecond)
			now, left := homes(p, set, 2000), 0
			if again := homes(p, set, 2000); !slices.Equal(now, again) {
				t.Fatal("the second call of a key goes elsewhere")
			}
			for i, id := range now {
				if id[0] == 't' {
					left++
				} else if before != nil && before[i][0] == 't' {
					t.Fatalf("%s came back as the zone got slower", key(i))
				}
			}
			if want := max(1-2*5/float64(latency), 1./128); !near(left, 2000, want+(1-want)/128) {
				t.Errorf("at %d ms %d of 2000 keys have left, want a share of %.3f", latency, left, want)
			}
			if left <= lastLeft {
				t.Errorf("at %d ms %d keys have left, before %d", latency, left, lastLeft)
			}
			before, lastLeft = now, left
		}
	})
}

func TestWrappersAllocate(t *testing.T) {
	set := balance.NewSet(slices.Concat(in("here", 20), in("there", 20), endpoints(20)))
	hash := func() balance.Picker { return balance.ConsistentHash(0) }
	for name, p := range map[string]balance.KeyPicker{
		"zone": balance.PreferZone("here", balance.P2C), "zone of keys": balance.PreferZone("here", hash),
		"subset": balance.Subsetting(balance.P2C(), "me", 10), "keys": balance.ConsistentHash(0),
		"subsets of a zone": balance.PreferZone("here", func() balance.Picker { return balance.Subsetting(hash(), "me", 10) }),
	} {
		p.Pick(set)
		if n := testing.AllocsPerRun(200, func() {
			p.Pick(set)
			p.PickKey(set, "user-42")
		}); n != 0 {
			t.Errorf("%s: %v allocations a call", name, n)
		}
	}
}

func TestWrappersConcurrent(t *testing.T) {
	t.Parallel()
	eps := slices.Concat(in("here", 3), in("there", 20), endpoints(20))
	sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[:30]), balance.NewSet(eps[2:]), balance.NewSet(eps[5:])}
	p := balance.PreferZone("here", func() balance.Picker { return balance.Subsetting(balance.ConsistentHash(0), "me", 10) })
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 400 {
				e := p.Pick(sets[(g+i/100)%len(sets)])
				e.Begin()
				p.PickKey(sets[(g+i/100)%len(sets)], key(i))
				e.End(time.Duration(i)*time.Microsecond, i%10 == 0)
			}
		})
	}
	wg.Wait()
	for _, e := range eps {
		if e.InFlight() != 0 {
			t.Errorf("%s has %d calls in flight after all ended", e.ID, e.InFlight())
		}
	}
}
