// Package outlier takes instances of a service out of rotation that do worse than the
// others, and lets them back in with care.
//
// A registry knows that an instance is there and that its health check passes. That it
// answers one call in two with an error, or ten times as slowly as the others, is seen
// only by those who call it. A [Detector] watches the calls of this process to one
// service:
//
//	set := detector.InRotation(discover("users"))
//	ep := picker.Pick(set)
//	ep.Begin()
//	start := time.Now()
//	err := call(ep.Address)
//	took := time.Since(start)
//	ep.End(took, err != nil)
//	detector.Report(ep, took, err != nil)
//
// # Who is an outlier
//
// There are three rules, each of which compares an instance with the others of its
// service; see [Config] for the figures.
//
//   - Consecutive failures: it failed five times in a row.
//   - Failure rate: it failed three in ten of its last calls, at least 20.
//   - Slow: its calls took five times as long, typically, as those to the others, and
//     5 ms longer. What counts is the geometric mean, which a few very slow calls do
//     not move.
//
// An instance that fails is ejected only if it does so much more often than the others:
// its row of failures would not come about once in 100,000 times if it failed as often as
// the median of them, or its share of failures is twice theirs, and more than chance
// explains. When a database is away that all of them need, or somebody sends requests that
// break any of them, nobody is ejected, and when it is back, all of them are there.
//
// At most half of the instances are out at the same time, and never the last one. When a
// broken instance is to be ejected and no more may go, a slow one comes back in its place.
//
// # Coming back
//
// An ejection ends after a few seconds, twice as many each time an instance is ejected
// again soon after. Then the instance gets single calls. If it does three of them well,
// its share of the calls grows from a tenth to the whole; at the first that fails, it is
// ejected again. Calls that began before do not matter.
//
// Nothing runs in the background: an ejection that is over is noticed by the next call of
// [Detector.InRotation].
package outlier
