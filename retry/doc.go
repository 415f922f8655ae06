// Package retry tries again what failed, without making things worse.
//
//	policy := retry.Policy{Budget: budget} // 3 tries, 25 ms to 1 s, full jitter
//	err := retry.Do(ctx, policy, func(ctx context.Context) error { return save(ctx, order) })
//
// # When it gives up
//
// An error marked with [Permanent] is returned as it is; so is one that
// [Policy.RetryIf] does not want, and one that itself says that the context has
// ended. In all other cases with more than one try allowed the error of [Do] is an
// [*Error], in which errors.Is finds both the last error of the function and the
// reason: [ErrAttempts], [ErrBudget], [ErrTime], or [context.Canceled].
//
// Do never waits longer than the context has left: it gives up at once instead, so
// that the caller still has time to do something else. An error that knows when it
// is worth while to come back says so with [After], or with a method
// RetryAfter() time.Duration of its own, as breaker.OpenError has; Do then waits at
// least so long, and gives up at once if that is longer than [Policy.MaxAfter].
//
// # Budget
//
// Three tries instead of one are three times the load, just when the other side has
// trouble. A [Budget] shared by all calls of one dependency allows one retry for
// ten calls ([DefaultRatio]). A few failures are cured as before; if everything
// fails, the load grows by a tenth and the rest fails at once.
//
//	budget, err := retry.NewBudget(retry.BudgetOptions{})
//
// Retry at one place only: where a Do inside a Do has given up, or a budget inside has
// refused a retry, the outer one does not begin anew, unless its RetryIf says so.
//
// # What may be tried again
//
// A function that failed may have done its work all the same. Try again what can be
// done twice without harm, or what has an idempotency key that the other side heeds.
//
// # Cost
//
// A call that succeeds costs a few nanoseconds and allocates nothing, if there is
// no AttemptTimeout and no TotalTimeout. No goroutine is started. All functions are
// safe for concurrent use.
package retry
