package outlier

import (
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// leastSlower is how much longer calls have to take, besides SlowFactor.
	leastSlower = 5 * time.Millisecond

	// probes is how many calls in a row an instance that comes back must do well: one
	// that fails half of its calls passes one time in eight.
	probes = 3

	// chance is how unlikely a row of failures must be for an instance that fails as
	// often as the others. Where one call in ten fails five in a row are enough; where
	// one in five does, it takes eight.
	chance = 1e-5 * (1 + 1e-9) // 0.1 to the fifth, rounded, too

	// spreads is how many standard deviations a share of failures must be above that of
	// the others: as an instance is judged again and again, chance has many tries.
	spreads = 4

	// leastRate is how often any instance may be taken to fail.
	leastRate = 0.01

	// sample bounds how many of the others an instance is compared with.
	sample = 32
)

// judge ejects m if it is an outlier.
func (d *Detector) judge(m *member) {
	d.mu.Lock()
	now := d.now()
	if reason, out := d.outlier(m, now); out {
		d.eject(m, reason, now)
	}
	d.mu.Unlock()
	d.tell()
}

// outlier reports whether m is one, and why. d.mu is held.
func (d *Detector) outlier(m *member, now time.Duration) (Reason, bool) {
	c := &d.config
	if m.state.Load() != serving {
		return 0, false
	}
	r := m.read(now / c.Interval)
	row := rowOf(m.last.Load())
	failing := c.Consecutive > 0 && row >= c.Consecutive
	often := c.FailureRate > 0 && r.calls >= c.MinCalls && r.rate() >= c.FailureRate
	if failing || often {
		others := d.othersFail(m, now)
		if failing && math.Pow(others, float64(row)) <= chance {
			return ConsecutiveFailures, true
		}
		spread := math.Sqrt(others * (1 - others) / float64(r.calls))
		if often && r.rate() >= 2*others && r.rate() >= others+spreads*spread {
			return FailureRate, true
		}
	}
	return Slow, r.calls-r.failures >= c.MinCalls && d.slow(r.typical, now)
}

// othersFail returns how often the other instances fail: the median, the lower one of
// two, but at least leastRate. d.mu is held.
func (d *Detector) othersFail(m *member, now time.Duration) float64 {
	var buffer [sample]float64
	rates := buffer[:0]
	for o := range d.some() {
		if o == m || o.state.Load() != serving {
			continue
		}
		if r := o.read(now / d.config.Interval); r.calls > 0 {
			rates = append(rates, o.badness(r))
		}
	}
	if len(rates) == 0 {
		return leastRate // nothing speaks against them
	}
	slices.Sort(rates)
	return max(rates[(len(rates)-1)/2], leastRate)
}

// some iterates over the members, or a random sample of them. d.mu is held.
func (d *Detector) some() iter.Seq[*member] {
	return func(yield func(*member) bool) {
		all := d.current.Load().members
		n := len(all)
		if n == 0 {
			return
		}
		step := max(n/sample, 1)
		start := rand.IntN(n)
		for k := range min(n, sample) {
			if !yield(all[(start+k*step)%n]) {
				return
			}
		}
	}
}

// slow reports whether calls that typically take so long, as log2 has it, are much
// slower than those to the other instances. d.mu is held.
func (d *Detector) slow(typical uint64, now time.Duration) bool {
	if d.config.SlowFactor < 0 {
		return false
	}
	if now-d.looked >= d.config.Interval/10 || d.looked == 0 {
		d.looked = now
		d.median = d.findMedian(now)
	}
	if d.median == 0 || typical == 0 {
		return false
	}
	took, others := exp2(typical), exp2(d.median)
	return float64(took) >= d.config.SlowFactor*float64(others) && took-others >= leastSlower
}

// findMedian returns the median of the typical latencies of those in rotation, the lower
// one of two; 0 if there are less than two. The one that is asked about may be among
// them: being slow, it does not make the median less. d.mu is held.
func (d *Detector) findMedian(now time.Duration) uint64 {
	var buffer [sample]uint64
	typical := buffer[:0]
	for m := range d.some() {
		r := m.read(now / d.config.Interval)
		// A quarter of MinCalls will do: pickers see to it that a slow instance gets
		// few calls, and where it is the other one of two, the fast one has many.
		if m.state.Load() == serving && (r.calls-r.failures)*4 >= d.config.MinCalls {
			typical = append(typical, r.typical)
		}
	}
	if len(typical) < 2 {
		return 0
	}
	slices.Sort(typical)
	return typical[(len(typical)-1)/2]
}

// eject takes m, which is in rotation, out of it, if one more may go. d.mu is held.
func (d *Detector) eject(m *member, reason Reason, now time.Duration) {
	v := d.current.Load()
	if v.out >= d.config.allowed(len(v.members)) {
		// Slow is better than broken.
		other := v.leastBad()
		if other == nil || other.reason != Slow || reason == Slow {
			return
		}
		d.serve(other, now)
	}
	if now-m.since > max(2*m.lasted, d.config.Interval) {
		m.times = 0 // it was well for long
	}
	d.exclude(m, reason, now)
	d.rotate(v, now)
}

// exclude ejects m, which may have been probing. d.mu is held; the caller rotates.
func (d *Detector) exclude(m *member, reason Reason, now time.Duration) {
	c := &d.config
	m.lasted = c.EjectTime
	for range m.times {
		m.lasted = min(2*m.lasted, c.MaxEjectTime) // no overflow: it stops at MaxEjectTime, which may be great
		if m.lasted == c.MaxEjectTime {
			break
		}
	}
	m.times++
	m.reason, m.since = reason, now
	// Up to a tenth less, at random: many clients that eject an instance at the same
	// moment should not all come back to it at the same moment.
	m.until = now + m.lasted - time.Duration(rand.Int64N(int64(m.lasted)/10+1))
	m.forget()
	m.state.Store(ejected)
	d.ejections[reason]++
	d.changed(Change{Kind: Ejected, ID: m.endpoint.ID, Address: m.endpoint.Address, Reason: reason, Until: d.epoch.Add(m.until)}, now)
}

// probe lets m, whose ejection is over, have one call at a time. d.mu is held; the
// caller rotates.
func (d *Detector) probe(m *member, now time.Duration) {
	m.since, m.proven = now, 0
	m.forget() // a call that ended just as it was ejected may have been counted since
	m.endpoint.Forget()
	m.state.Store(probing)
	d.changed(Change{Kind: Probing, ID: m.endpoint.ID, Address: m.endpoint.Address, Reason: m.reason}, now)
}

// serve lets m, which is ejected or probing, have its share again. d.mu is held; the
// caller rotates.
func (d *Detector) serve(m *member, now time.Duration) {
	m.since = now
	m.warm = now + max(d.config.SlowStart, 0)
	m.forget()
	m.endpoint.SlowStart(d.config.SlowStart)
	m.state.Store(serving)
	d.changed(Change{Kind: Returned, ID: m.endpoint.ID, Address: m.endpoint.Address, Reason: m.reason}, now)
}

// probed takes a call into account that ended while m was not serving.
func (d *Detector) probed(m *member, latency time.Duration, failed bool) {
	if m.state.Load() == ejected {
		return // it began before
	}
	d.mu.Lock()
	now := d.now()
	if m.state.Load() == probing && now-latency >= m.since { // else it says how m was before
		switch {
		case failed:
			d.exclude(m, m.again(), now)
			d.rotate(d.current.Load(), now)
		case m.provenBy(latency) == probes:
			if d.slow(m.logs.Load()/probes, now) {
				d.exclude(m, Slow, now)
			} else {
				d.serve(m, now)
			}
			d.rotate(d.current.Load(), now)
		}
	}
	d.mu.Unlock()
	d.tell()
}

// provenBy counts a call that m did well while probing.
func (m *member) provenBy(latency time.Duration) int {
	m.logs.Add(log2(latency))
	m.proven++
	return m.proven
}

// again is the reason why m is ejected if it fails while probing.
func (m *member) again() Reason {
	if m.reason == Slow {
		return ConsecutiveFailures
	}
	return m.reason
}
