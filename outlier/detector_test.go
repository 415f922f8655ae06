package outlier_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/outlier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoints(n int) []*balance.Endpoint {
	eps := make([]*balance.Endpoint, n)
	for i := range eps {
		id := fmt.Sprintf("i%05d", i)
		eps[i] = balance.NewEndpoint(id, "http://"+id)
	}
	return eps
}

func ids(s *balance.Set) []string {
	var out []string
	for e := range s.All() {
		out = append(out, e.ID)
	}
	return out
}

func newDetector(t testing.TB, cfg outlier.Config) *outlier.Detector {
	t.Helper()
	d, err := outlier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fleet is a service as one caller sees it, in virtual time.
type fleet struct {
	detector *outlier.Detector
	picker   balance.Picker
	eps      []*balance.Endpoint
	set      *balance.Set
	answer   func(e *balance.Endpoint) (latency time.Duration, failed bool)
	changes  []outlier.Change // in order; not for concurrent use
}

func newFleet(t testing.TB, n int, cfg outlier.Config, strategy string) *fleet {
	t.Helper()
	p, err := balance.New(strategy)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{detector: newDetector(t, cfg), picker: p, eps: endpoints(n)}
	f.set = balance.NewSet(f.eps)
	f.answer = func(*balance.Endpoint) (time.Duration, bool) { return 5 * time.Millisecond, false }
	f.detector.OnChange(func(c outlier.Change) { f.changes = append(f.changes, c) })
	return f
}

// call makes one call and waits for it.
func (f *fleet) call() *balance.Endpoint {
	e := f.picker.Pick(f.detector.InRotation(f.set))
	f.callTo(e)
	return e
}

func (f *fleet) callTo(e *balance.Endpoint) {
	e.Begin()
	start := time.Now()
	took, failed := f.answer(e)
	time.Sleep(took)
	e.End(time.Since(start), failed)
	f.detector.Report(e, time.Since(start), failed)
}

// run makes a call every interval for so long and returns how many each endpoint got.
func (f *fleet) run(long, interval time.Duration) map[string]int {
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for start := time.Now(); time.Since(start) < long; time.Sleep(interval) {
		wg.Go(func() {
			e := f.call()
			mu.Lock()
			got[e.ID]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return got
}

// fail makes calls to e until it is ejected; all is well again then.
func (f *fleet) fail(e *balance.Endpoint) {
	f.sick(refuses, e)
	for range 5 {
		f.callTo(e)
	}
	f.sick(refuses)
}

func (f *fleet) out() []string {
	var out []string
	for _, in := range f.detector.Snapshot().Out {
		out = append(out, in.ID)
	}
	return out
}

// sick makes some endpoints answer another way.
func (f *fleet) sick(answer func(e *balance.Endpoint) (time.Duration, bool), eps ...*balance.Endpoint) {
	well := func(*balance.Endpoint) (time.Duration, bool) { return 5 * time.Millisecond, false }
	f.answer = func(e *balance.Endpoint) (time.Duration, bool) {
		if slices.Contains(eps, e) {
			return answer(e)
		}
		return well(e)
	}
}

func refuses(*balance.Endpoint) (time.Duration, bool) { return time.Microsecond, true }

// halfFails fails a call in two, at random.
func halfFails(*balance.Endpoint) (time.Duration, bool) {
	return 5 * time.Millisecond, rand.IntN(2) == 0
}

func isSlow(*balance.Endpoint) (time.Duration, bool) { return 50 * time.Millisecond, false }

// Whatever picks, and whatever is wrong with it: a sick instance is found soon, and gets
// hardly any calls from then on. The others stay.
func TestSickInstance(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		for _, sick := range []struct {
			name   string
			answer func(*balance.Endpoint) (time.Duration, bool)
			most   int // calls of 15,000 in half a minute
		}{
			{"refuses", refuses, 5 + 4},
			{"half fails", halfFails, 600}, // it passes its probes one time in eight
			{"slow", isSlow, 100},
		} {
			t.Run(strategy+"/"+sick.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t, 5, outlier.Config{}, strategy)
					f.sick(sick.answer, f.eps[2])
					got := f.run(30*time.Second, 2*time.Millisecond)
					if n := got[f.eps[2].ID]; n == 0 || n > sick.most {
						t.Errorf("the sick instance got %d of 15,000 calls, want 1 to %d", n, sick.most)
					}
					for _, c := range f.changes {
						if c.ID != f.eps[2].ID {
							t.Errorf("%s was %v for %v, though it was well", c.ID, c.Kind, c.Reason)
						}
					}
				})
			})
		}
	}
}

// Those that are all alike are all kept, however bad they are.
func TestSickService(t *testing.T) {
	for name, answer := range map[string]func(*balance.Endpoint) (time.Duration, bool){
		"down": refuses, "slow": isSlow,
		"half fails": halfFails,
		"one in five fails": func(*balance.Endpoint) (time.Duration, bool) {
			return 5 * time.Millisecond, rand.IntN(5) == 0
		},
		"one in 20 takes 30 s": func(*balance.Endpoint) (time.Duration, bool) {
			if rand.IntN(20) == 0 {
				return 30 * time.Second, false
			}
			return 5 * time.Millisecond, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 5, outlier.Config{}, balance.StrategyRoundRobin)
				f.run(10*time.Second, 4*time.Millisecond)
				f.answer = answer
				f.run(40*time.Second, 4*time.Millisecond)
				ejected := 0
				for _, c := range f.changes {
					if c.Kind == outlier.Ejected {
						ejected++
					}
				}
				if ejected > 1 { // once, by chance, in some minutes
					t.Errorf("%d ejections, the first: %+v; want none", ejected, f.changes[0])
				}
			})
		})
	}
}

// An instance that is well again is back within seconds: single calls first, then a share
// that grows.
func TestComesBack(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		t.Run(strategy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3, outlier.Config{}, strategy)
				f.run(15*time.Second, time.Millisecond)
				f.fail(f.eps[1])
				if out := f.out(); len(out) != 1 {
					t.Fatalf("out: %v, want one", out)
				}
				if n := f.run(3*time.Second, time.Millisecond)[f.eps[1].ID]; n != 0 {
					t.Errorf("it got %d calls while it was ejected", n)
				}
				f.run(3*time.Second, time.Millisecond)
				if out := f.out(); len(out) != 0 {
					t.Fatalf("out: %v a second after the ejection, want none", out)
				}
				var kinds []outlier.Kind
				for _, c := range f.changes {
					kinds = append(kinds, c.Kind)
				}
				if want := []outlier.Kind{outlier.Ejected, outlier.Probing, outlier.Returned}; !slices.Equal(kinds, want) {
					t.Errorf("changes %v, want %v", kinds, want)
				}
				first := f.run(time.Second, time.Millisecond)[f.eps[1].ID]
				f.run(8*time.Second, time.Millisecond)
				then := f.run(time.Second, time.Millisecond)[f.eps[1].ID]
				f.run(5*time.Second, time.Millisecond)
				last := f.run(5*time.Second, time.Millisecond)[f.eps[1].ID] / 5
				if first == 0 || first > 120 || then < 2*first || last < 200 {
					t.Errorf("%d, %d, then %d calls of 1000 a second; want few, more, then its share", first, then, last)
				}
			})
		})
	}
}

// While it is probing an instance gets one call at a time.
func TestProbesAreSingle(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		t.Run(strategy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3, outlier.Config{}, strategy)
				f.run(time.Second, time.Millisecond)
				f.fail(f.eps[1])
				var most int64
				f.sick(func(e *balance.Endpoint) (time.Duration, bool) { // slow to fail, as what hangs does
					most = max(most, e.InFlight())
					return 900 * time.Millisecond, true
				}, f.eps[1])
				got := f.run(30*time.Second, 4*time.Millisecond)[f.eps[1].ID]
				if got < 2 || got > 4 || most != 1 {
					t.Errorf("%d calls in half a minute, %d at the same time; want one after each ejection", got, most)
				}
			})
		})
	}
}

// A service that is down and comes back has all of its instances at once.
func TestServiceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 5, outlier.Config{}, balance.StrategyRoundRobin)
		f.run(time.Second, time.Millisecond)
		f.answer = refuses
		f.run(20*time.Second, time.Millisecond)
		f.sick(refuses)
		got := f.run(time.Second, time.Millisecond)
		for _, e := range f.eps {
			if n := got[e.ID]; n < 190 || n > 210 {
				t.Errorf("%s got %d of 1000 calls in the first second, want its share", e.ID, n)
			}
		}
	})
}

// How long an ejection takes: twice as long as the last time, up to the limit, less up to a
// tenth; and as at first, once the instance was well for long.
func TestEjectTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, outlier.Config{EjectTime: time.Second, MaxEjectTime: 5 * time.Second}, balance.StrategyRoundRobin)
		f.sick(refuses, f.eps[0])
		f.run(40*time.Second, 4*time.Millisecond)
		f.sick(refuses)
		f.run(30*time.Second, 4*time.Millisecond) // it comes back, and is well
		var got []time.Duration
		for _, c := range f.changes {
			if c.Kind == outlier.Ejected {
				got = append(got, c.Until.Sub(c.At))
			}
		}
		if len(got) < 6 {
			t.Fatalf("ejected for %v, want more than that", got)
		}
		for i, want := range []time.Duration{1, 2, 4, 5, 5, 5} {
			if want *= time.Second; got[i] > want || got[i] < want*9/10 {
				t.Errorf("ejection %d took %v, want %v less up to a tenth (all: %v)", i+1, got[i], want, got)
			}
		}
		f.fail(f.eps[0])
		last := f.changes[len(f.changes)-1]
		if long := last.Until.Sub(last.At); last.Kind != outlier.Ejected || long > time.Second {
			t.Errorf("%v for %v after it was well for long, want an ejection for a second", last.Kind, long)
		}
	})
}
