// Package concurrency limits how many calls are under way at once, so that what
// is too much is refused at once instead of making everything slow.
//
//	limiter, err := concurrency.New()
//	token, err := limiter.Acquire(ctx, concurrency.PriorityFrom(ctx))
//	if err != nil {
//		return err // errors.Is(err, concurrency.ErrLimit): too many
//	}
//	err = work(ctx)
//	token.Success()
//
// A limit is [Fixed], where the right number is known, or [Adaptive], the default.
// Of either a tenth is left for [Critical] calls, and a quarter is closed to [Low]
// ones. Who is refused has lost microseconds; with a [Queue] calls may wait a
// little first.
//
// # The adaptive limit
//
// In the beginning it is wide open, and as long as there is no overload it stays
// so: a burst, a cold start, slow routes beside fast ones or long polls beside other
// calls are not refused. Where long polls are nearly all there is, end their counting
// (Token.Ignore; middleware.BeginStream): their clients' patience looks like a slow
// service. It looks for overload in windows of a tenth of a second and
// more, and takes it for that only if all of this is so in two of them in a row:
//
//   - Most calls are too slow: slower than twice what nine in ten of their kind
//     ([Token.Of]) stay below in quiet times, and a delay that is accepted
//     ([AdaptiveOptions]).
//   - More of them are under way than [AdaptiveOptions] Min, by throughput times
//     latency; calls that hang about for long count little.
//   - They are not getting fewer by themselves.
//
// Then the limit is lowered to half of what is under way, on trial. If calls wait
// for each other, in a queue or for a CPU, half as many take half as long. If they
// do, the limit stays, and is adjusted to where latency is between one and a half
// and two times what is expected. That leaves a queue just long enough to keep
// everything busy. If they do not get faster, they are slow for another reason,
// such as a service they call: then the limit is lifted, and for ten seconds or
// more nothing is refused and it is learned anew what is usual. Every 15 s the
// proof is repeated; if hardly a call ends by then the limit is lifted, too.
//
// When nobody is refused any more the limit doubles every half second until it is
// where it was in the beginning.
//
// The idea to compare latency with what is usual is that of TCP Vegas and of
// Netflix's concurrency-limits (Gradient2); that a limit has to prove itself is to
// have no healthy service shed load for longer than a trial because its latency
// changed.
package concurrency
