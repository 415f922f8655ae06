// Package health tells whether a process can serve, and why not.
//
// A [Health] holds named checks of what the process depends on. [Health.Run]
// runs them all concurrently, each at its own interval; conditions the process
// learns by itself are reported with [Health.Set]. Together they make one
// [Status]:
//
//	starting   until Started was called and every critical check passed once
//	healthy    everything passes
//	degraded   something not critical fails; still serving
//	unhealthy  something critical fails
//	draining   Drain was called; for good
//
// Three handlers show it: [Health.Live] (never asks a check), [Health.Ready]
// (200 or 503) and [Health.Detail] (the whole as JSON). No request ever runs a
// check: handlers show the last results.
//
// The texts of failed checks are shown to whoever may read those handlers. They
// are cut to one line of 200 characters, but may still name hosts and ports, so
// keep the handlers off the public network.
//
// All methods of a Health may be called concurrently.
package health
