// Package deadline carries the time a caller is going to wait from hop to hop, so
// that nobody works on what nobody waits for any more.
//
// Inside a process the time is a context's deadline. Between processes it is a
// header that says how many milliseconds are left, [Header]. A duration needs no
// clocks that agree; what the way took is lost to it, so each hop keeps a little
// back ([PassOn]), and each hop sees less than the one before.
//
//	left, ok := deadline.Caller(r.Header.Values)  // arriving: what the caller says
//	ctx, cancel := context.WithTimeout(ctx, left)
//	err := deadline.Check(ctx)                    // before work begins
//	deadline.Inject(ctx, out.Header.Set)          // leaving: what the next hop is told
//
// A message (an event, a job, a saga's command) may wait for long, and nobody knows
// how long when it is sent. So it carries the time itself, [Attribute], with
// [ToMessage] and [FromMessage]. Clocks that differ make that time early or late by
// their difference: between machines, give messages deadlines of seconds at least.
//
// All functions may be called by several goroutines at once.
package deadline
