// Package balance chooses which endpoint of a service gets the next request.
//
// A [Set] is an immutable snapshot of endpoints; a [Picker] takes one of them.
// The caller reports each call to the endpoint it used, so that the load-aware
// pickers know how busy and how slow it is:
//
//	e := picker.Pick(set)
//	if e == nil {
//		return errNoInstance
//	}
//	e.Begin()
//	start := time.Now()
//	err := call(e.Address)
//	e.End(time.Since(start), err != nil)
//
// # Strategies
//
//   - [P2C] ("p2c-ewma", the default) takes two endpoints at random and keeps
//     the cheaper one, where cost is the moving latency times the number of
//     calls in flight plus one. O(1).
//   - [RoundRobin] ("round-robin") takes each endpoint in its turn. O(1).
//   - [Random] ("random") takes any endpoint with equal chance. O(1).
//   - [LeastConnections] ("least-connections") takes an endpoint with the fewest
//     calls in flight. O(n) at worst.
//
// Pick never allocates (round robin allocates once when the set has changed),
// never blocks, starts no goroutine and never reads the clock.
//
// # Latency
//
// An [Endpoint] keeps a peak-sensitive moving average of its latency, as
// Finagle's and linkerd's peak EWMA do: a slower call raises it at once, faster
// calls bring it down with a half-life of seven seconds (a time constant of
// ten). A failed call at least doubles it, so an endpoint that fails fast does
// not look fast.
//
// The figure of an endpoint that nobody calls fades with the same half-life, so
// that a slow one is tried again. Reading the clock would cost more than all the
// rest of Pick, so Pick uses a coarse one that each End on any endpoint of the
// process moves on. It stands still only while no call ends anywhere, when there
// is nothing to learn either. Fading begins at the last Begin or End: an endpoint
// that swallows calls and never answers is probed once in a long while, not
// flooded as its old latency fades.
package balance
