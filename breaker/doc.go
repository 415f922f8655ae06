// Package breaker stops calls to something that keeps failing, and finds out by a
// few careful calls when it works again.
//
//	b, err := breaker.New("payment-service")
//	...
//	err = b.Do(ctx, func(ctx context.Context) error { return pay(ctx, order) })
//	if errors.Is(err, breaker.ErrOpen) {
//		// not called at all
//	}
//
// [Do] is the same for a function that also returns a value, and [Breaker.Allow] is
// for callers that have no function to give.
//
// # States
//
// Closed: every call is admitted. The breaker opens after five failures in a row
// ([ConsecutiveFailures]), or when too many of the last calls failed or were slow
// ([SlidingWindow]).
//
// Open: every call is refused with an [*OpenError], for 30 s ([OpenTime], which can
// grow and have jitter). The first call after that time is a probe.
//
// Half-open: one call at a time ([Probes]) is admitted to see how things are, the
// others are refused. A success closes the breaker ([ProbeSuccesses]), a failure
// opens it again.
//
// # What counts
//
// A call that returns an error is a failure, unless [IsFailure] says otherwise. So
// is one that panics or leaves by [runtime.Goexit] (which both go on up), and one
// that runs out of time, be it the breaker's [Timeout] or the caller's deadline:
// if it were not, a dependency that hangs would never open the breaker.
//
// A call whose caller cancels its context is neither success nor failure: it says
// nothing about the other side. If it was a probe, its place is free again.
//
// The result of a call that began before the last change of state changes nothing;
// it is counted in [Metrics] only. A slow failure from before the trip neither
// makes the open time longer nor does it end a new closed state.
//
// A probe that does not end blocks its place for 30 s ([ProbeLease]); then the next
// call gets it. So half-open cannot wedge, even if a permit is lost.
//
// # Cost
//
// A call through a closed breaker costs three atomic loads and one atomic addition
// and allocates nothing; it does not read the clock unless a time window or slow
// calls are asked for. [Timeout] allocates, for the context it gives to the call.
// All methods are safe for concurrent use. No goroutine is started and nothing
// needs to be closed.
package breaker
