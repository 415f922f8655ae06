// Package resilience joins retries, a concurrency limit and a circuit breaker to
// one chain, for whatever is called that is not a Keelson service: a database,
// somebody's SDK. (Calls to services have all of it already, in package client.)
//
//	chain := resilience.Chain{Breaker: b, Limiter: l, Retry: &policy, Timeout: 2 * time.Second}
//	row, err := resilience.DoValue(ctx, &chain, func(ctx context.Context) (Row, error) {
//		return find(ctx, id)
//	})
//
// # Order
//
// The [Chain.Timeout] is around everything; in it are the tries of [Chain.Retry];
// each try asks the [Chain.Limiter] and then the [Chain.Breaker] for leave, unless
// that is open, which is known before:
//
//   - A place of the limiter is not held during the wait between two tries, and the
//     limiter sees what each try takes, not how patient the policy is.
//   - The breaker sees each try, so that it opens as soon as it can know, and lets
//     not one retry more through. Its probe is one try.
//   - What an open breaker refuses is refused at once, even if all places are taken
//     by calls that hang. What a half-open one refuses takes a place for that moment,
//     and is no sample for the limiter.
//   - An AttemptTimeout of the Retry includes the wait in the limiter's queue: give
//     the queue less. A try that never began for that is not made again.
//
// What the limiter or the breaker refused is not tried again, whatever
// [retry.Policy.RetryIf] says: nothing was called, and it would be refused again. Who
// wants to wait for a place gives the limiter a [concurrency.Queue].
//
// # Errors
//
// errors.Is finds [breaker.ErrOpen], [concurrency.ErrLimit], [retry.ErrAttempts],
// [retry.ErrBudget], [retry.ErrTime], the context's error, and with each of them,
// if there was a try, what that returned. If a retry was refused, the error is a
// [*retry.Error] whose Reason is the refusal.
//
// # What is told to the limiter
//
// A try that ends, well or not, is a sample; one that runs out of time, or whose
// error is itself a [concurrency.ErrLimit], is a sign of overload; one that the
// caller cancelled was abandoned; one that panicked says nothing. The call's
// priority is that of its context ([concurrency.PriorityFrom]).
//
// No goroutine is started. Without a Timeout, nor one in the Retry or the Breaker, a
// call that succeeds allocates nothing.
package resilience
