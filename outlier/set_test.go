package outlier_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/outlier"
)

// How many may be out, of how many; the last one never.
func TestMaxEjected(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64][]int{ // of 1, 2, 3 ...
		0.5: {0, 1, 1, 2, 2, 3, 3, 4, 4, 5},
		0.1: {0, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		1:   {0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
	} {
		for i, most := range want {
			d := newDetector(t, outlier.Config{MaxEjected: share})
			eps := endpoints(i + 1)
			set := balance.NewSet(eps)
			d.InRotation(set)
			for _, e := range eps { // all fail, and those that come later look well till then
				for range 5 {
					d.Report(e, time.Millisecond, true)
				}
			}
			if s := d.Snapshot(); s.Ejected() != most || d.InRotation(set).Len() != i+1-most {
				t.Errorf("MaxEjected %v: %d of %d out, %d in rotation; want %d out", share, s.Ejected(), i+1, d.InRotation(set).Len(), most)
			}
		}
	}
}

// A slow instance makes room for a broken one.
func TestBrokenBeforeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, outlier.Config{}, balance.StrategyRoundRobin)
		f.sick(isSlow, f.eps[0])
		f.run(2*time.Second, time.Millisecond)
		if out := f.detector.Snapshot().Out; len(out) != 1 || out[0].ID != f.eps[0].ID || out[0].Reason != outlier.Slow {
			t.Fatalf("out: %+v, want the slow one", out)
		}
		f.fail(f.eps[1])
		if diff := cmp.Diff([]string{f.eps[1].ID}, f.out()); diff != "" {
			t.Error(diff)
		}
		f.sick(isSlow, f.eps[0])
		f.run(2*time.Second, time.Millisecond) // the slow one can't take its place back
		if diff := cmp.Diff([]string{f.eps[1].ID}, f.out()); diff != "" {
			t.Error(diff)
		}
	})
}

// Calls that began before an ejection was over say nothing about what is after it.
func TestLateResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, outlier.Config{}, balance.StrategyRoundRobin)
		f.run(time.Second, time.Millisecond)
		f.fail(f.eps[0])
		for range 10 {
			f.detector.Report(f.eps[0], time.Second, true) // while it is ejected
		}
		time.Sleep(5 * time.Second)
		f.detector.InRotation(f.set)
		for range 5 {
			f.detector.Report(f.eps[0], 6*time.Second, true)
			f.detector.Report(f.eps[0], 6*time.Second, false)
		}
		s := f.detector.Snapshot()
		if len(s.Out) != 1 || !s.Out[0].Probing || s.Out[0].Times != 1 {
			t.Fatalf("after late results out is %+v, want one that probes, ejected once", s.Out)
		}
		if want := map[outlier.Reason]uint64{outlier.ConsecutiveFailures: 1, outlier.FailureRate: 0, outlier.Slow: 0}; !cmp.Equal(want, s.Ejections) {
			t.Error(cmp.Diff(want, s.Ejections))
		}
	})
}

// What the set becomes while an instance is ejected.
func TestSetChanges(t *testing.T) {
	for _, tc := range []struct {
		name string
		next func(eps []*balance.Endpoint) []*balance.Endpoint // eps[0] is ejected, of three
		want []string                                          // out then
	}{
		{"one comes", func(eps []*balance.Endpoint) []*balance.Endpoint { return append(eps, endpoints(4)[3]) }, []string{"i00000"}},
		{"another one goes", func(eps []*balance.Endpoint) []*balance.Endpoint { return eps[:2] }, []string{"i00000"}},
		{"all others go", func(eps []*balance.Endpoint) []*balance.Endpoint { return eps[:1] }, nil},
		{"it goes", func(eps []*balance.Endpoint) []*balance.Endpoint { return eps[1:] }, nil},
		{"its weight changes", func(eps []*balance.Endpoint) []*balance.Endpoint {
			return append([]*balance.Endpoint{eps[0].WithWeight(2)}, eps[1:]...)
		}, []string{"i00000"}},
		{"its address changes", func(eps []*balance.Endpoint) []*balance.Endpoint {
			return append([]*balance.Endpoint{balance.NewEndpoint(eps[0].ID, "http://other")}, eps[1:]...)
		}, nil},
		{"all go", func([]*balance.Endpoint) []*balance.Endpoint { return nil }, []string{"i00000"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3, outlier.Config{}, balance.StrategyRoundRobin)
				f.run(time.Second, time.Millisecond)
				f.fail(f.eps[0])
				next := balance.NewSet(tc.next(slices.Clone(f.eps)))
				in := f.detector.InRotation(next)
				out := f.out()
				if diff := cmp.Diff(tc.want, out); diff != "" {
					t.Error(diff)
				}
				if next.Len() > 0 && in.Len() != next.Len()-len(out) {
					t.Errorf("%v in rotation", ids(in))
				}
				if tc.name == "its weight changes" { // a call that began before
					f.detector.Report(f.eps[1], time.Millisecond, true)
				}
				f.detector.InRotation(f.set) // and back
				if tc.want != nil || tc.name == "it goes" {
					if diff := cmp.Diff([]string{"i00000"}, f.out()); diff != "" {
						t.Error("back:", diff)
					}
				}
			})
		})
	}
}

// What a rotation is for one set, it is for the others that pickers make of it.
func TestPreferZoneOverRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6, outlier.Config{}, balance.StrategyP2C)
		for i, e := range f.eps {
			e.Zone = []string{"north", "south"}[i%2]
		}
		f.set = balance.NewSet(f.eps)
		f.picker = balance.PreferZone("north", balance.P2C)
		f.run(15*time.Second, time.Millisecond)
		f.fail(f.eps[0])
		got := f.run(4*time.Second, time.Millisecond)
		near, far := got[f.eps[2].ID]+got[f.eps[4].ID], got[f.eps[1].ID]+got[f.eps[3].ID]+got[f.eps[5].ID]
		if got[f.eps[0].ID] != 0 || far > near/10 {
			t.Errorf("the ejected one got %d, the zone %d, elsewhere %d calls", got[f.eps[0].ID], near, far)
		}
		f.run(2*time.Second, time.Millisecond)
		if got = f.run(time.Second, time.Millisecond); got[f.eps[0].ID] == 0 || got[f.eps[0].ID] > 200 {
			t.Errorf("back it got %d of 1000 calls, want a small share", got[f.eps[0].ID])
		}
	})
}

// Whatever is reported, comes and goes, some instance is in rotation, not more than allowed
// are out, and all agree on who is.
func TestAlwaysSomeInRotation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) { always(rt) })
	})
}

func always(t *rapid.T) {
	cfg := outlier.Config{
		Consecutive: rapid.IntRange(1, 5).Draw(t, "consecutive"), MinCalls: rapid.IntRange(1, 20).Draw(t, "min"),
		MaxEjected: rapid.SampledFrom([]float64{0.1, 0.5, 1}).Draw(t, "max"), EjectTime: time.Second, MaxEjectTime: 4 * time.Second,
	}
	d, err := outlier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pool := endpoints(8)
	set := balance.NewSet(pool[:rapid.IntRange(1, 8).Draw(t, "n")])
	var ejected, probing, returned uint64
	d.OnChange(func(c outlier.Change) {
		switch c.Kind {
		case outlier.Ejected:
			ejected++
		case outlier.Probing:
			probing++
		case outlier.Returned:
			returned++
		}
	})
	for range rapid.IntRange(1, 200).Draw(t, "steps") {
		switch rapid.IntRange(0, 20).Draw(t, "step") {
		case 0:
			var some []*balance.Endpoint
			for _, e := range pool {
				if rapid.Bool().Draw(t, "in") {
					some = append(some, e)
				}
			}
			set = balance.NewSet(some)
		case 1, 2, 3:
			time.Sleep(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
		default:
			e := rapid.SampledFrom(pool).Draw(t, "endpoint")
			d.Report(e, time.Duration(rapid.IntRange(0, 1_000_000).Draw(t, "µs"))*time.Microsecond, rapid.IntRange(0, 2).Draw(t, "ok") == 0)
		}
		in := d.InRotation(set)
		if set.Len() == 0 {
			continue
		}
		if in.Len() == 0 {
			t.Fatal("nobody is in rotation")
		}
		s := d.Snapshot()
		allowed := min(max(int(cfg.MaxEjected*float64(set.Len())), 1), set.Len()-1)
		if len(s.Out) > allowed || in.Len() != set.Len()-s.Ejected() || s.Endpoints != set.Len() {
			t.Fatalf("of %d %d are out, %d ejected, %d in rotation; %d may be out", set.Len(), len(s.Out), s.Ejected(), in.Len(), allowed)
		}
		for _, o := range s.Out {
			if !slices.Contains(ids(set), o.ID) || slices.Contains(ids(in), o.ID) != o.Probing {
				t.Fatalf("%+v, and in rotation are %v of %v", o, ids(in), ids(set))
			}
			if !o.Probing && !o.Until.After(time.Now()) {
				t.Fatalf("%s is still ejected at %v, until %v", o.ID, time.Now(), o.Until)
			}
		}
		if d.InRotation(set) != in {
			t.Fatal("the rotation changes though nothing has")
		}
	}
	total := uint64(0)
	for _, n := range d.Snapshot().Ejections {
		total += n
	}
	if total != ejected || probing > ejected || returned > ejected {
		t.Fatalf("%d ejections counted, %d told, %d probing, %d returned", total, ejected, probing, returned)
	}
}

// Many callers at once; run with -race.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	d := newDetector(t, outlier.Config{EjectTime: 10 * time.Millisecond, Interval: 10 * time.Millisecond})
	eps := endpoints(6)
	sets := []*balance.Set{balance.NewSet(eps), balance.NewSet(eps[1:]), balance.NewSet(eps[:5])}
	var mu sync.Mutex
	var kinds []outlier.Kind
	d.OnChange(func(c outlier.Change) {
		d.Snapshot() // no lock is held
		mu.Lock()
		defer mu.Unlock()
		kinds = append(kinds, c.Kind)
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p := balance.RoundRobin()
			for i := range 20_000 {
				e := p.Pick(d.InRotation(sets[(g+i/1000)%3]))
				e.Begin()
				e.End(time.Millisecond, e == eps[2])
				d.Report(e, time.Millisecond, e == eps[2])
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	var want uint64
	for _, n := range d.Snapshot().Ejections {
		want += n
	}
	got := uint64(0)
	for _, k := range kinds {
		if k == outlier.Ejected {
			got++
		}
	}
	if got != want || got == 0 {
		t.Errorf("told of %d ejections, there were %d", got, want)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	d := newDetector(t, outlier.Config{EjectTime: time.Hour, MaxEjectTime: time.Hour})
	eps := endpoints(10)
	set := balance.NewSet(eps)
	d.InRotation(set)
	for range 5 {
		d.Report(eps[0], time.Millisecond, true)
	}
	stranger := balance.NewEndpoint("stranger", "")
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		d.InRotation(set)
		d.Report(eps[i%10], time.Millisecond, i%7 == 0)
		d.Report(stranger, time.Millisecond, true)
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if d.Snapshot().Ejected() == 0 {
		t.Error("nobody is ejected")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]outlier.Config{
		"FailureRate": {FailureRate: 1.1}, "MinCalls": {MinCalls: -1}, "Interval": {Interval: time.Millisecond},
		"SlowFactor": {SlowFactor: 1}, "EjectTime": {EjectTime: -1}, "MaxEjected": {MaxEjected: 2},
		"MaxEjectTime":        {EjectTime: time.Second, MaxEjectTime: time.Millisecond},
		"Consecutive is 33":   {Consecutive: 33},
		"EjectTime is 8761":   {EjectTime: 8761 * time.Hour},
		"MaxEjectTime is 256": {MaxEjectTime: math.MaxInt64},
		"SlowStart is 8761":   {SlowStart: 8761 * time.Hour},
		"all off":             {Consecutive: -1, FailureRate: -1, SlowFactor: -1},
	} {
		_, err := outlier.New(cfg)
		if err == nil || !strings.Contains(err.Error(), field) || cfg.Check() == nil {
			t.Errorf("%+v: error %v, want one about %s", cfg, err, field)
		}
	}
	for _, cfg := range []outlier.Config{{}, {Consecutive: -1}, {FailureRate: -1}, {SlowFactor: -1, SlowStart: -1}, {EjectTime: time.Hour}} {
		if err := cfg.Check(); err != nil {
			t.Error(err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, r := range []outlier.Reason{outlier.ConsecutiveFailures, outlier.FailureRate, outlier.Slow} {
		text, err := r.MarshalText()
		var back outlier.Reason
		if err != nil || back.UnmarshalText(text) != nil || back != r {
			t.Errorf("%v is written as %q and read as %v", r, text, back)
		}
	}
	var r outlier.Reason
	if err := r.UnmarshalText([]byte("bored")); err == nil || !strings.Contains(err.Error(), "failure-rate") {
		t.Errorf("error %v for an unknown reason", err)
	}
	if got := fmt.Sprint(outlier.Ejected, outlier.Probing, outlier.Returned, outlier.Kind(9), outlier.Reason(9)); got != "ejected probing returned Kind(9) Reason(9)" {
		t.Error(got)
	}
}
