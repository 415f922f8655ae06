// Package client calls services by name, and makes such calls survive.
//
// A [Transport] is an http.RoundTripper, so any http.Client can use it:
//
//	t, err := client.New(reg)
//	...
//	c := t.Client()
//	resp, err := c.Get("http://user-service/users/7")
//
// A host without a dot and without a port is the name of a service. Its
// instances come from a snapshot in memory, one is picked by the load this
// process has put on each, and the request goes there. Any other host is called
// as it is written.
//
// # What happens to a call
//
// In this order, for each service by itself:
//
//  1. Is the context over? Then nothing is begun ([Timeout] or [Canceled]).
//  2. The breaker ([WithBreaker]) refuses the call if half of the last ones failed
//     ([Open]); after a second it lets single calls through to see.
//  3. The limit ([WithLimit]) refuses it if 1024 calls already wait for an answer
//     ([Limited]).
//  4. An instance is picked among those in rotation, and the request is sent. If it
//     fails, it may be sent to another instance; if it takes long, it may be sent to
//     another one as well.
//  5. Everybody is told how it went: the picker about time and failure of each try, the
//     outlier detector ([WithOutlier]) too, which takes sick instances out of rotation;
//     breaker and limit about the whole call.
//
// All of this is on by default, and all that is needed is a deadline: give each request
// a context that ends.
//
// # Which instance
//
// [WithPicker] sets how one is picked, [WithZone] keeps requests in the caller's zone
// while that can take them, and [ContextWithKey] keeps those that belong together on one
// instance:
//
//	t, err := client.New(reg,
//		client.WithZone("north"),
//		client.WithPicker(func() balance.Picker { return balance.ConsistentHash(balance.DefaultBound) }))
//	req = req.WithContext(client.ContextWithKey(req.Context(), userID))
//
// # Retries
//
// A request is sent again, up to three times in all ([WithRetry]), when that can't do
// harm:
//
//   - nothing was sent, because the connection could not be opened; or
//   - the connection broke before an answer, or the answer is 429, 500, 502, 503 or 504
//     (gRPC: UNAVAILABLE or RESOURCE_EXHAUSTED in the head), or the try took longer than
//     [WithAttemptTimeout] allows; and the method is idempotent (RFC 9110, section 9.2.2)
//     or the request has an Idempotency-Key, and its body can be sent again.
//
// It never is after the first byte of an answer went to the caller, nor when the caller
// has gone or has next to no time left. It goes to an instance that was not tried while there is one: at once if
// nothing was sent, else after a jittered backoff. Where there is none, a Retry-After is
// waited for, if that is short and the caller has the time. When tries, time or budget
// are used up, the last answer is returned as it is.
//
// Retries and hedges of all calls share a budget ([WithBudget]): one for ten requests, and
// a few in reserve. So a service in trouble gets a tenth more load from its callers, not
// three times as much. What was never sent costs nothing to send elsewhere, and is not
// counted.
//
// # Hedges
//
// A GET, HEAD or OPTIONS request without a body that waits longer than 95 % of the others
// did ([WithHedging]) is sent to another instance as well, out of the same budget. The
// first answer that is no failure wins, the other try is cancelled. Streams, upgrades and
// requests with a key are not hedged. No goroutine runs unless a hedge really starts; it
// ends with its try.
//
// # What counts as a failure
//
// An answer of 500 or more is one, but not 501 and 505, which are about the request. A
// deadline that ends is one, unless it was shorter than answers usually take. A caller
// that cancels says nothing. An instance that answers 503 with Retry-After, or 429,
// protects itself: it gets fewer calls, but is not taken out of rotation, and the breaker
// stays closed, since refusing everything would turn an overload into an outage. An
// instance whose calls are all won by hedges counts as failing after a second of that.
// An answer that breaks off half-way counts against its instance.
//
// # What goes along
//
// The context's trace, request id, deadline and priority go along as traceparent,
// X-Request-Id, Request-Timeout and X-Request-Priority, unless the request has them
// already. A Request-Timeout of its own that is more than the context has left is lowered.
//
// # Answers
//
// The caller must read an answer's body to its end or close it, as always: until then the
// call is in flight for its instance. No answer is an [*Error], whose [Kind] says why.
package client
