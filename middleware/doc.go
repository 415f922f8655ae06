// Package middleware has what HTTP servers put around their handlers, each piece
// of one purpose and usable alone. All have net/http's shape, so they mix with
// anybody's.
//
// A good order, outermost first:
//
//	Chain(Routes(mux),      // 404 and 405 as problems
//		RequestID(),            // every answer has an id, errors too
//		Trace(),                // and a place in its trace
//		AccessLog(logger, ...), // sees what really went out
//		Metrics(telemetry),
//		Recover(logger),        // inside the last two, which then see its 500
//		cors,                   // answers preflights before routing
//		Timeout(30*time.Second),
//		Shed(limiter),          // what there is no room for, before any work
//		BodyLimit(1<<20),
//	)
//
// # The route
//
// AccessLog and Metrics take the route from [http.Request.Pattern] when the
// handler has returned. ServeMux sets it on the request it is given, and the
// middleware here hands it on to the request outside; one of somebody else's
// that copies the request (as WithContext does) and does not, hides the route of
// what is inside it, unless that is [Routes], which tells it by the
// ResponseWriter as well.
//
// # What went out
//
// All pieces share one recorder around the ResponseWriter. It implements Flusher,
// Hijacker, io.ReaderFrom and io.StringWriter by way of what it wraps, which may
// answer [http.ErrNotSupported], and Unwrap for [http.ResponseController].
// A response is what its final header says: informational ones (1xx) pass
// through, a handler that writes nothing has answered 200, a panic that nobody
// recovers 500. If the client left before the header went out there was no
// response: that is status 499 in the access log, and no status in the metrics,
// since it never was on the wire. A hijacked connection that was not given a
// status counts as 101, and its duration in the metrics ends there: what
// follows is not HTTP.
//
// Writing a response is for one goroutine, as with any ResponseWriter.
package middleware
