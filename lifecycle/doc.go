// Package lifecycle runs the components of a process: it starts them in order,
// and stops them in reverse order, one after another, each with its time.
//
// A component is a function that serves until its context ends. A [Group] starts
// the next one when the last one is ready, so each may rely on those before it,
// from its first moment to its last. The group stops when the context given to
// [Group.Run] ends or when a component returns by itself. [Group.OnStop] puts
// steps of the shutdown (leave the rotation, wait, flush) at their place in the
// order.
//
// Run waits for everything it started, and tells every error, each with its
// component's name. Only when the time to stop is over, or by force, does it
// leave something behind, and then it names it.
//
// [Signals] turns SIGINT and SIGTERM into the context's end, and a second one
// into force.
package lifecycle
