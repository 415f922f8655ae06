package concurrency

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLogarithm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := time.Duration(rapid.Int64Range(1, math.MaxInt64/4).Draw(t, "a"))
		b := time.Duration(rapid.Int64Range(1, math.MaxInt64/4).Draw(t, "b"))
		if (a < b) && logOf(a) > logOf(b) {
			t.Fatalf("log %v > log %v", a, b)
		}
		exact := math.Log2(float64(a)) * float64(octave)
		if off := math.Abs(float64(logOf(a)) - exact); off > 0.09*float64(octave) {
			t.Fatalf("log %v is %v, want %v", a, logOf(a), exact)
		}
		if back := logOf(a).duration(); math.Abs(float64(back-a)) > 1+float64(a)/30_000 {
			t.Fatalf("%v comes back as %v", a, back)
		}
	})
	for d, want := range map[time.Duration]octaves{-1: 0, 0: 0, 1: 0, 2: octave, 1 << 40: 40 * octave} {
		if got := logOf(d); got != want {
			t.Errorf("log %d is %d, want %d", d, got, want)
		}
	}
	if got := octaves(-1).duration(); got != 0 {
		t.Errorf("%v", got)
	}
}

// However latencies are spread, one in ten is above the usual.
func TestUsualIsThe90thPercentile(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	for name, draw := range map[string]func() time.Duration{
		"all the same": func() time.Duration { return 7 * time.Millisecond },
		"exponential":  func() time.Duration { return time.Duration(random.ExpFloat64() * float64(20*time.Millisecond)) },
		"hit or miss": func() time.Duration {
			if random.IntN(4) == 0 {
				return 100 * time.Millisecond
			}
			return time.Millisecond
		},
	} {
		k := newKind(50 * time.Millisecond)
		for range 5000 {
			k.learn(logOf(draw()))
		}
		above, n := 0, 5000
		for range n {
			d := draw()
			if logOf(d) > octaves(k.usual.Load())+octave/8 { // it swings a little
				above++
			}
			k.learn(logOf(d))
		}
		if above > n*12/100 || name == "exponential" && above < n*5/100 {
			t.Errorf("%s: %d of %d are above %v", name, above, n, octaves(k.usual.Load()).duration())
		}
		usual, expected := octaves(k.usual.Load()).duration(), octaves(k.expected.Load()).duration()
		if diff := expected - usual - 50*time.Millisecond; diff.Abs() > time.Millisecond {
			t.Errorf("%s: usual %v, expected %v", name, usual, expected)
		}
	}
}

// What is learned from one window is bounded, and nothing is in overload.
func TestUsualGrowsSlowly(t *testing.T) {
	t.Parallel()
	k := newKind(time.Millisecond)
	for range 100 {
		k.learn(logOf(time.Millisecond))
	}
	for _, may := range []octaves{0, octave / 10, 0, octave} {
		before := octaves(k.usual.Load())
		k.raise(may)
		for range 1000 {
			k.learn(logOf(time.Second))
		}
		if got := octaves(k.usual.Load()) - before; got != may {
			t.Errorf("it grew by %d, want %d", got, may)
		}
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	k := newKind(10 * time.Millisecond)
	if k.sample(logOf(time.Second), finished, false).counts {
		t.Error("the first call of a kind counts")
	}
	if got := newKind(0).sample(0, overloaded, false); got != (sample{stretch: 2 * octave, slow: true, counts: true}) {
		t.Errorf("overload counts at once: %+v", got)
	}
	k = newKind(10 * time.Millisecond)
	for range 100 {
		k.learn(logOf(10 * time.Millisecond))
	}
	k.raise(0)
	near := func(a, b octaves) bool { return a-b < octave/10 && b-a < octave/10 }
	for _, tt := range []struct {
		latency time.Duration
		how     outcome
		want    sample
	}{
		{10 * time.Millisecond, finished, sample{-octave, false, true}},
		{20 * time.Millisecond, finished, sample{0, false, true}},
		{80 * time.Millisecond, finished, sample{2 * octave, true, true}},
		{1, finished, sample{leastStretch, false, true}},
		{1 << 60, finished, sample{mostStretch, true, true}},
		{5 * time.Millisecond, abandoned, sample{}}, // it might have been quick
		{15 * time.Millisecond, abandoned, sample{-octave * 4 / 10, false, true}},
		{40 * time.Millisecond, abandoned, sample{octave, true, true}},
		{time.Millisecond, overloaded, sample{2 * octave, true, true}},
		{160 * time.Millisecond, overloaded, sample{3 * octave, true, true}},
		{1 << 60, overloaded, sample{mostStretch, true, true}},
	} {
		got := k.sample(logOf(tt.latency), tt.how, false)
		if !near(got.stretch, tt.want.stretch) || got.slow != tt.want.slow || got.counts != tt.want.counts {
			t.Errorf("%v, outcome %d: %+v, want %+v", tt.latency, tt.how, got, tt.want)
		}
	}
}

// What callers give up does not become usual, unless it is found to be so.
func TestAbandonedIsNotUsual(t *testing.T) {
	t.Parallel()
	for _, learns := range []bool{false, true} {
		k := newKind(time.Millisecond)
		for range 100 {
			k.learn(logOf(10 * time.Millisecond))
		}
		before := k.usual.Load()
		for range 1000 {
			k.sample(logOf(time.Second), abandoned, learns)
		}
		if (k.usual.Load() > before) != learns {
			t.Errorf("learns: %t, and the usual goes from %d to %d", learns, before, k.usual.Load())
		}
	}
}

// steady is a window of so many calls a second and so much latency, none refused.
func steady(now time.Duration, rate int, latency time.Duration, stretch octaves) window {
	n := rate / 10
	w := window{
		now: now, length: 100 * time.Millisecond, samples: n, stretch: stretch, latency: logOf(latency),
		started: n, finished: n, inFlight: int(float64(rate) * latency.Seconds()),
	}
	if stretch > tooSlow {
		w.slow = n
	}
	return w
}

// A trial as a story: suspicion, half, proof, and the proof again.
func TestTrial(t *testing.T) {
	t.Parallel()
	for _, helps := range []bool{true, false} {
		c := newController(AdaptiveOptions{Initial: 1000, Min: 10, Max: 1000})
		now := time.Duration(0)
		want := func(what string, w window, limit int, afresh bool) {
			t.Helper()
			if d := c.step(w); d.limit != limit || d.afresh != afresh {
				t.Fatalf("helps: %t, %s: %+v, want limit %d, afresh: %t", helps, what, d, limit, afresh)
			}
			now += 100 * time.Millisecond
		}
		slow := steady(now, 1000, 512*time.Millisecond, 2*octave)
		want("first", slow, 1000, false)
		want("second", slow, 256, true)
		few := slow
		few.samples = 150
		if helps {
			few.stretch = octave / 2
		}
		want("too few samples", few, 256, false)
		if !helps {
			slow.now = now
			want("no better", slow, 1000, true)
			slow.now = now
			want("it learns", slow, 1000, false)
			slow.now += shortDeaf
			want("suspicion again", slow, 1000, false)
			continue
		}
		want("better", steady(now, 1000, 256*time.Millisecond, 0), 256, false)
		crowd := steady(now, 1000, 256*time.Millisecond, octave*8/10)
		crowd.rejected = 100
		want("just right", crowd, 256, false)
		crowd.stretch, crowd.slow = octave/2, 0
		want("fast enough", crowd, 256+25, true)
		crowd.now, crowd.stretch = crowd.now+reproof, octave*8/10
		before := c.limit
		want("half for a proof", crowd, 128, true)
		crowd.stretch, crowd.latency = -octave/2, logOf(128*time.Millisecond)
		want("not enough yet", crowd, 128, false)
		want("proved", crowd, before, true)
		crowd.now += reproof
		crowd.stretch, crowd.latency = octave, logOf(256*time.Millisecond)
		want("half for another", crowd, 128, true)
		crowd.stretch = octave * 11 / 10
		want("not enough of it yet", crowd, 128, false)
		want("not proved any more", crowd, 1000, true)
	}
}

// A trial without a result ends.
func TestTrialWithoutResult(t *testing.T) {
	t.Parallel()
	c := newController(AdaptiveOptions{Initial: 1000, Min: 10, Max: 1000})
	slow := steady(0, 1000, time.Second, 3*octave)
	c.step(slow)
	if d := c.step(slow); d.limit != 500 {
		t.Fatalf("%+v", d)
	}
	nothing := window{now: shortTrial - 1, length: time.Second, inFlight: 1000, rejected: 100}
	if d := c.step(nothing); d.limit != 500 {
		t.Errorf("%+v", d)
	}
	nothing.now = shortTrial
	if d := c.step(nothing); d.limit != 1000 {
		t.Errorf("%+v", d)
	}
}

// Whatever happens, the limit keeps its bounds, and is only lowered for a reason.
func TestControllerProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := AdaptiveOptions{Min: rapid.IntRange(2, 50).Draw(t, "min")}
		o.Initial = o.Min + rapid.IntRange(0, 500).Draw(t, "initial")
		o.Max = o.Initial + rapid.IntRange(0, 500).Draw(t, "max")
		c := newController(o)
		now := time.Duration(0)
		t.Repeat(map[string]func(*rapid.T){
			"window": func(t *rapid.T) {
				w := window{
					length:   time.Duration(rapid.Int64Range(int64(windowLength), int64(2*windowLimit)).Draw(t, "length")),
					samples:  rapid.IntRange(0, 200).Draw(t, "samples"),
					stretch:  octaves(rapid.Int64Range(int64(leastStretch), int64(mostStretch)).Draw(t, "stretch")),
					latency:  octaves(rapid.Int64Range(0, 62*int64(octave)).Draw(t, "latency")),
					started:  rapid.IntRange(0, 2000).Draw(t, "started"),
					rejected: rapid.IntRange(0, 100).Draw(t, "rejected"),
					inFlight: rapid.IntRange(0, 2000).Draw(t, "inFlight"),
				}
				w.slow = rapid.IntRange(0, w.samples).Draw(t, "slow")
				w.finished = rapid.IntRange(0, 2000).Draw(t, "finished")
				now += w.length
				w.now = now
				was := c
				d := c.step(w)
				switch {
				case d.limit != c.limit || d.limit < 1 || d.limit > o.Max || d.raise < 0:
					t.Fatalf("%+v, %+v", d, c)
				case d.limit < o.Min && c.trial.proceed == 0:
					t.Fatalf("less than the least, not for a proof: %+v, %+v", d, c)
				case d.limit < was.limit && !c.guarding:
					t.Fatalf("lower, but not on guard: %+v, %+v", d, c)
				case d.limit < was.limit && !was.trial.on && !was.isSlow(w) && w.rejected == 0:
					t.Fatalf("lower without a reason: %+v, %+v", w, d)
				case c.guarding && d.raise > 0:
					t.Fatalf("it learns in overload: %+v, %+v", d, c)
				case math.IsNaN(c.parked) || c.parked < 0:
					t.Fatalf("parked %v", c.parked)
				}
			},
			"pause": func(*rapid.T) {
				if d := c.reset(); d.limit != o.Initial || c.guarding {
					t.Fatalf("%+v", d)
				}
			},
		})
	})
}
