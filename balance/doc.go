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
//   - [WeightedRoundRobin] ("weighted-round-robin") gives each endpoint turns in
//     proportion to its weight. O(1).
//   - [Random] ("random") takes any endpoint with equal chance. O(1).
//   - [LeastConnections] ("least-connections") takes an endpoint with the fewest
//     calls in flight for its weight. O(n) at worst.
//   - [ConsistentHash] ("consistent-hash") sends calls with the same key to the same
//     endpoint, unless that has more than its part of all calls in flight. O(1).
//
// Two pickers choose where another one picks: [PreferZone] keeps calls in the caller's
// zone while it can take them, and [Subsetting] keeps a client to a few endpoints of a
// very large service. They can be combined:
//
//	balance.PreferZone("north", func() balance.Picker {
//		return balance.Subsetting(balance.P2C(), instanceID, 20)
//	})
//
// Pick never allocates, starts no goroutine and never reads the clock. What a picker
// has to work out about a set it does at the first pick from it, and keeps it: round
// robin in O(log n), the other ones in O(n). Only then does a pick wait for anything:
// for another one that is working out the same for [ConsistentHash], for a millisecond or
// two with 10,000 endpoints.
//
// # Weights
//
// An endpoint of [Endpoint.Weight] 2 takes twice as many calls as one of weight 1: by
// P2C, weighted round robin, least connections and consistent hashing. Round robin and
// random mean what their names say and do not mind weights. P2C draws its two endpoints in
// proportion to their weights and divides the calls in flight by the weight, relative to
// the set's mean, so equally fast endpoints are equally busy for their size. An endpoint
// of weight 0 is in no set and takes no new calls; those it has go on.
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
// # Newcomers
//
// An endpoint that is new in a set beside others that are not takes a tenth of its share
// at first, and all of it after ten seconds: see [Endpoint.SlowStart]. When all are about
// equally new, as in a process that has just started, none is. Keys of [ConsistentHash]
// come to it one by one.
//
// An endpoint that comes back after it had failed can be [Set.Probing]: then it gets one
// call at a time. Package outlier does that.
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
