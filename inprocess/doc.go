// Package inprocess calls an http.Handler of this process as if it were behind a
// connection, without one: no socket, no bytes written and parsed again.
//
//	s := inprocess.NewServer(handler)
//	c := &http.Client{Transport: s}
//	resp, err := c.Get("http://user-service/users/7")
//
// # What is the same
//
// Both sides see what they would over HTTP/1.1 on loopback, so that code doesn't
// know which way it runs; one table of tests holds that for both ways:
//
//   - nothing is shared: headers are copied, and the context of the handler has no
//     values of the caller's. It ends when the caller gives up, closes the answer
//     early, or when the handler returns;
//   - bodies are streams both ways and push back: who writes waits once 64 KiB are
//     unread. Short answers are whole, with a Content-Length, and longer ones come
//     as they are written. Flush, 1xx answers, trailers and the deadlines of
//     http.ResponseController work;
//   - header names and values, methods and hosts that could not be sent are refused;
//   - a handler that panics breaks the answer off, and the caller gets an error.
//
// # What is not
//
//   - What changes protocols (an Upgrade, such as that of a WebSocket, a CONNECT), and
//     gRPC, which is for HTTP/2, need a connection: RoundTrip answers
//     [http.ErrSkipAltProtocol] and has touched nothing, so that the caller takes a
//     socket for it. Hijack is not supported.
//   - A handler may read the request while it writes the answer, as over HTTP/2;
//     over HTTP/1 that takes EnableFullDuplex.
//   - RemoteAddr is 127.0.0.1:0, the port that no connection has.
//   - There are no limits on the size of headers.
//   - Content is never compressed or decompressed on the way, and Expect is
//     passed on and means only that the body is not read before the handler asks.
//
// # Who owns what
//
// Each call runs the handler in a goroutine of its own, which the [Server] knows:
// [Server.Shutdown] refuses new calls, as a closed port does, and waits for those
// under way; [Server.Close] cuts them off.
package inprocess
