package resilience

import (
	"testing"
	"time"
)

const (
	// patience is how long a caller waits in all.
	patience = time.Second
	// attemptTimeout is how long those that can be told wait for one attempt.
	attemptTimeout = 300 * time.Millisecond
)

// BenchmarkSickFleet sends 20,000 calls, 1,000 a second, to five instances of which
// one fails half of the calls, one hangs and one is ten times slower than the other
// two. extra-load-% is what reached the instances beyond one attempt a call;
// healthy-p99-ms is the same peer's with five sound instances. One iteration is the
// whole of it; run it with -benchtime 1x.
func BenchmarkSickFleet(b *testing.B) {
	const rate = 1_000
	for _, p := range peers {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				sound := fleet(b, healthy, healthy, healthy, healthy, healthy)
				before := load{rt: p.dial(b, addresses(sound)), calls: 4 * rate, rate: rate, deadline: patience}.run(b)
				ups := fleet(b, failing, hung, slow, healthy, healthy)
				o := load{rt: p.dial(b, addresses(ups)), calls: 20 * rate, rate: rate, deadline: patience}.run(b)
				o.report(b)
				b.ReportMetric(before.quantile(0.99), "healthy-p99-ms")
				b.ReportMetric(100*(float64(served(ups))/float64(len(o.calls))-1), "extra-load-%")
				// The first second tells how fast a peer learns.
				b.ReportMetric(o.between(0, time.Second).success(), "first-second-success-%")
			}
		})
	}
}
