// Package client calls services by name.
//
// A [Transport] is an http.RoundTripper, so any http.Client can use it:
//
//	c := &http.Client{Transport: client.New(reg)}
//	resp, err := c.Get("http://user-service/users/7")
//
// A host without a dot and without a port is the name of a service. Its
// instances come from a snapshot in memory, one is picked by the load this
// process has put on each, and the request goes there. Any other host is called
// as it is written.
//
// # Which instance
//
// [WithPicker] sets how one is picked, [WithZone] keeps requests in the caller's zone
// while that can take them, and [ContextWithKey] keeps those that belong together on one
// instance:
//
//	t := client.New(reg,
//		client.WithZone("north"),
//		client.WithPicker(func() balance.Picker { return balance.ConsistentHash(balance.DefaultBound) }))
//	req = req.WithContext(client.ContextWithKey(req.Context(), userID))
//
// # Another instance
//
// A request goes to another instance when that can't do harm:
//
//   - nothing was sent, because the connection could not be opened;
//   - the connection broke before anything was answered, the method is
//     idempotent (RFC 9110, section 9.2.2) or the request has an
//     Idempotency-Key, and its body can be sent again.
//
// It never does after the first byte of an answer, nor when the caller has gone.
//
// The context's trace, request id and deadline go along as traceparent,
// X-Request-Id and Request-Timeout, unless the request has them already.
package client
