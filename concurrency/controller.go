package concurrency

import (
	"math"
	"time"
)

// controller decides about the limit. It has no clock and no lock: what happened
// in each window is told to it.
type controller struct {
	least, most, initial int

	limit int
	// parked is how many calls in flight are no load, such as long polls: those
	// that throughput and latency do not explain.
	parked float64
	// guarding: there was overload, and it is not known to be over. The usual
	// latency is not learned from what is seen now.
	guarding bool
	bad      int           // windows in a row that looked like overload
	before   window        // they, together
	proved   time.Duration // when a lower limit last made calls faster
	deafness time.Duration // how long the next time that nothing is judged will be
	deaf     time.Duration // until then it is so
	trial    trial
}

// trial is a lower limit that has still to prove itself.
type trial struct {
	on      bool
	until   time.Duration // if there is no result by then it ends without
	before  octaves       // the stretch until then
	promise octaves       // by how much it shrinks if calls wait for each other
	proceed int           // the limit when it has proved itself, or 0 for the same
	enough  int           // so many samples tell

	samples int
	slow    int
	stretch octaves // their sum
}

// window is what was seen in a while.
type window struct {
	now, length time.Duration

	samples int
	slow    int     // those of them that were too slow
	stretch octaves // average of latency by what is expected
	latency octaves // average

	started, finished, rejected int
	inFlight                    int // at the end
}

// decision is what follows from a window.
type decision struct {
	limit  int
	afresh bool    // only calls that begin now tell how the limit does
	raise  octaves // by how much the usual latencies may grow until the next
	learns bool    // also from calls that were given up
}

const (
	// From this on calls are too slow: twice what is expected.
	tooSlow = octave
	// The limit is lowered to where they are just not, and raised while calls are
	// faster than this: one and a half times. In between it is right.
	aim        = octave * 4 / 5
	fastEnough = octave * 6 / 10
	// majority is how many of the calls are most.
	majority = 0.6
	// suspicion is how many windows in a row have to be too slow before the limit
	// is touched: a pause of the garbage collector is over by then.
	suspicion = 2
	// proof is which part of the promised gain a trial must bring. Other load on
	// the machine makes measurements rough.
	proof = 0.4
	// reproof is how long a proof holds. Then the limit is halved for a moment to
	// see whether overload is still what makes calls slow.
	reproof = 15 * time.Second
	// A trial without a result ends after three times as long as it takes to
	// replace all calls in flight, in these bounds: nobody is refused for longer on
	// a mere suspicion.
	shortTrial = 10 * time.Second
	longTrial  = time.Minute
	// After a trial that failed nothing is judged for a while, twice as long each
	// time, and it is learned what is usual now. It may be overload still, which a
	// restless machine has hidden, so not too much is learned at once: twice as long
	// every 3 s.
	shortDeaf  = 10 * time.Second
	longDeaf   = 2 * time.Minute
	relearning = 3 * time.Second
	// parking is how slowly a change of what is parked is believed.
	parking = 2 * time.Second
	// doubling is how quickly the limit goes back while nobody is refused.
	doubling = 500 * time.Millisecond
	// learning is how long the usual latency takes to double at the most. Overload
	// doubles it in less than a second, and must not become the usual.
	learning = 10 * time.Second
)

func newController(o AdaptiveOptions) controller {
	return controller{least: o.Min, most: o.Max, initial: o.Initial, limit: o.Initial}
}

// step judges a window.
func (c *controller) step(w window) decision {
	known := w.samples >= fewestSamples
	switch {
	case c.trial.on:
		return c.judge(w)
	case w.now < c.deaf:
		return decision{limit: c.limit, raise: octaves(float64(octave) * w.length.Seconds() / relearning.Seconds()), learns: true}
	}
	working := w.working()
	c.park(w, working)
	if known && c.isSlow(w) && working > float64(c.least) {
		if w.draining() {
			return decision{limit: c.limit} // and learn nothing from it
		}
		c.before = w.with(c.before)
		switch c.bad++; {
		case c.guarding && w.now-c.proved < reproof:
			return c.lower(w, working)
		case c.guarding:
			return c.halve(w, working, c.limit)
		case c.bad >= suspicion:
			return c.halve(c.before, c.before.working(), 0)
		}
		return decision{limit: c.limit}
	}
	c.bad, c.before = 0, window{}
	if known && !c.isSlow(w) {
		c.deafness = 0
	}
	switch {
	case w.rejected == 0, known && w.stretch < 0 && working <= float64(c.least):
		return c.relax(w)
	case known && w.stretch < fastEnough:
		return c.grow(w, working)
	case c.guarding && known && w.now-c.proved >= reproof:
		return c.halve(w, working, c.limit)
	case c.guarding && w.now-c.proved >= reproof:
		return c.reset() // hardly a call ends: the limit can't be proved again
	}
	return c.keep(w)
}

// isSlow tells whether calls take too long: if most of them do. Waiting for each
// other makes all slow, while some that are very slow may just be another sort.
// Once there is overload the average is more precise.
func (c *controller) isSlow(w window) bool {
	most := float64(w.slow) > majority*float64(w.samples)
	return most || c.guarding && w.stretch > tooSlow
}

// with returns w together with the one before it.
func (w window) with(before window) window {
	all := w
	all.length += before.length
	all.samples += before.samples
	all.slow += before.slow
	all.stretch = (w.stretch*octaves(w.samples) + before.stretch*octaves(before.samples)) / octaves(max(all.samples, 1))
	all.latency = (w.latency*octaves(w.samples) + before.latency*octaves(before.samples)) / octaves(max(all.samples, 1))
	all.started += before.started
	all.finished += before.finished
	all.rejected += before.rejected
	return all
}

// working estimates how many calls make up the load: throughput times latency,
// after Little. Those that are only parked, such as long polls, hardly weigh in
// a geometric average; so it can be much less than are in flight.
func (w window) working() float64 {
	throughput := float64(w.finished) / w.length.Seconds()
	return min(throughput*w.latency.duration().Seconds(), float64(w.inFlight))
}

// turnover is how long it takes to finish as many calls as are in flight.
func (w window) turnover() time.Duration {
	return time.Duration(float64(w.length) * float64(w.inFlight) / float64(max(w.finished, 1)))
}

// park keeps the number of parked calls up to date.
func (c *controller) park(w window, working float64) {
	unexplained := float64(w.inFlight) - working
	isSteady := float64(w.started) < 1.1*float64(w.finished)
	if c.guarding || w.stretch > fastEnough || !isSteady {
		c.parked = min(c.parked, max(unexplained, 0)) // what more there is could be waiting
		return
	}
	c.parked += (unexplained - c.parked) * min(w.length.Seconds()/parking.Seconds(), 1)
}

// draining tells whether calls end faster than new ones come: a burst that is
// already passing.
func (w window) draining() bool {
	return float64(w.started+w.rejected) < 0.95*float64(w.finished)
}

// keep leaves the limit.
func (c *controller) keep(w window) decision {
	d := decision{limit: c.limit}
	if !c.guarding {
		d.raise = octaves(float64(octave) * w.length.Seconds() / learning.Seconds())
	}
	return d
}

// lower lowers the limit to where calls should not be too slow.
func (c *controller) lower(w window, working float64) decision {
	// Not below half at once: the estimate is rough, and it can be done again.
	factor := min(max(math.Exp2(float64(aim-w.stretch)/float64(octave)), 0.5), 0.9)
	c.set(min(c.limit, c.with(working*factor)))
	c.try(w, working, 0)
	return decision{limit: c.limit, afresh: true}
}

// halve halves the limit on trial. If it proves itself it is proceed, or stays
// half if that is 0. For the trial it may be less than the least.
func (c *controller) halve(w window, working float64, proceed int) decision {
	half := max(1, min(c.limit, c.with(working/2)))
	if proceed == 0 && half < c.least {
		proceed = c.least
	}
	c.limit = half
	c.try(w, working, proceed)
	return decision{limit: c.limit, afresh: true}
}

// with returns the limit that lets so many calls work, beside those parked.
func (c *controller) with(working float64) int { return int(math.Ceil(c.parked + working)) }

// try puts the limit on trial if it is so much lower that it must show.
func (c *controller) try(w window, working float64, proceed int) {
	c.guarding, c.bad, c.before = true, 0, window{}
	left := (float64(c.limit) - c.parked) / working
	if left > 0.75 {
		return
	}
	c.trial = trial{
		on: true, until: w.now + min(max(shortTrial, 3*w.turnover()), longTrial), before: w.stretch, proceed: proceed,
		promise: octaves(-math.Log2(max(left, 0.25)) * float64(octave)),
		enough:  min(max(c.limit, 2*fewestSamples), mostSamples),
	}
}

// judge ends a trial as soon as there are enough calls that began in it. If
// calls wait for each other, fewer of them are faster. If they do not get
// faster, they are slow for another reason, which refusing calls does not mend.
func (c *controller) judge(w window) decision {
	t := &c.trial
	t.samples += w.samples
	t.slow += w.slow
	t.stretch += w.stretch * octaves(w.samples)
	if t.samples < t.enough {
		if w.now < t.until {
			return decision{limit: c.limit}
		}
		return c.reset()
	}
	w.samples, w.slow, w.stretch = t.samples, t.slow, t.stretch/octaves(t.samples)
	tried := *t
	*t = trial{}
	if w.stretch > tried.before-octaves(proof*float64(tried.promise)) {
		c.deafness = min(max(2*c.deafness, shortDeaf), longDeaf)
		c.deaf = w.now + c.deafness
		return c.reset()
	}
	c.proved, c.deafness = w.now, 0
	if tried.proceed > 0 {
		c.set(tried.proceed)
		return decision{limit: c.limit, afresh: true}
	}
	if working := w.working(); c.isSlow(w) && working > float64(c.least) {
		return c.lower(w, working)
	}
	return decision{limit: c.limit}
}

// reset opens the limit again.
func (c *controller) reset() decision {
	c.trial, c.guarding, c.bad, c.before = trial{}, false, 0, window{}
	c.set(c.initial)
	return decision{limit: c.limit, afresh: true}
}

// relax goes back towards the initial limit, as nobody is refused.
func (c *controller) relax(w window) decision {
	if c.limit < c.initial {
		c.set(int(min(float64(c.initial), math.Ceil(float64(c.limit)*math.Exp2(w.length.Seconds()/doubling.Seconds())))))
	}
	if c.limit >= c.initial {
		c.guarding = false
	}
	return c.keep(w)
}

// grow raises the limit a little: there are refusals, and calls are fast. If they
// do not wait for each other at all it may be more.
func (c *controller) grow(w window, working float64) decision {
	share := 0.1
	if w.stretch < 0 {
		share = min(math.Exp2(w.length.Seconds()/doubling.Seconds())-1, 1)
	}
	before := c.limit
	c.set(c.limit + max(1, int(working*share)))
	d := c.keep(w)
	d.afresh = c.limit != before
	return d
}

func (c *controller) set(limit int) { c.limit = min(max(limit, c.least), c.most) }
