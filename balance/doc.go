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
// that a slow one is tried again. Fading begins at the last Begin or End.
//
// # Silence
//
// An endpoint that takes calls and ends none of them teaches the average nothing.
// So, from the first Begin after the last End on, the time since that Begin counts
// as the latency as soon as it is the longer of the two, up to ten seconds, until
// any call to the endpoint ends. This keeps a frozen endpoint from taking one
// caller after the other.
//
// A silent endpoint may also be a sound one whose only call is a stream. It is
// therefore tried again, after about a minute; if that call does not end either,
// after twice the time the endpoint has been silent by then, and so on. One
// call that ends clears it, so streams cost an endpoint hardly anything as long as
// other calls to it end. An endpoint used again after a rest starts without any
// silence.
//
// # Clock
//
// Reading the clock would cost more than all the rest of Pick, so Pick uses a coarse
// one that each Begin and End on any endpoint of the process moves on. It stands
// still only while no call begins or ends anywhere, and then the next Begin puts it
// right before anything is measured by it: only the first Pick after a rest sees
// latencies as they were when the rest began. When every endpoint is stuck, new
// calls still move it on and go where the fewest are in flight.
package balance
