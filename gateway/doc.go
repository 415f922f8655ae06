// Package gateway is the one door to a fleet of services: an http.Handler that
// matches a request to a route, decides whether it may pass, and proxies it to
// an instance of the route's service.
//
// A request goes through these steps, and the first one that refuses it
// answers, with problem details (package problem):
//
//  1. Request id, client address, trace; a path or host that two programs could
//     read in two ways is refused with 400.
//  2. CORS: a preflight is answered here.
//  3. The gateway's own /health and, if switched on, /services. They need no
//     token and are not limited.
//  4. Routing: 404 where no route matches, with a token or without; 405 with
//     Allow where only the method does not.
//  5. The route's address rules (403).
//  6. Rate limits by client and by route (429), before anything costly is done.
//  7. Authentication (401 with WWW-Authenticate), authorisation (403), and limits
//     by subject (429).
//  8. Policies of the user's own.
//  9. The proxy. No instance in rotation is 503 no_healthy_instance, one that
//     refuses or breaks the connection 502 upstream_failed, one that is too slow
//     504 upstream_timeout. Where package client holds calls back it is 503 as well:
//     circuit_open after too many failures, overloaded with too many under way; both
//     with Retry-After. If the upstream dies in the middle of a body, the client's
//     connection is cut: a truncated answer never looks complete.
//
// # Which route
//
// Of the routes that match, the most specific wins: an exact host before a
// wildcard host before none; then the longest literal path, an exact path before
// a prefix; then the one with more headers; then the one declared first. The
// method is looked at last, among the routes of the winning host and path alone,
// so that a request never falls through to a wider route because of its method.
//
// # Paths
//
// Routes match on the decoded path; the upstream gets the client's own escaping,
// less StripPrefix. A path is refused with 400, never repaired, if it has an
// empty segment ("//"), a "." or ".." segment, a slash or a backslash written as
// %2F or %5C, a plain backslash or a control character, however it is written.
// So no spelling of a path gets past the prefix its route was chosen by. Case and
// path parameters (";x") count as they stand: before a service that ignores them,
// don't guard /admin beside a wider route that is more open, for /ADMIN and
// /admin;x are the wider route's.
//
// # What the upstream sees
//
// X-Auth-Subject and X-Auth-Scopes tell the verified identity; a client's own
// are removed, in every spelling a service might read as the same name. The
// Authorization header is passed on as it came: a service may want to verify the
// token itself, and one that calls others on the user's behalf needs it. A
// gateway that hides it turns every service into one that trusts its network.
// A service that must not see tokens belongs behind another gateway policy,
// which may delete the header.
//
// X-Request-Id is the client's, if it is a sane one, and X-Gateway-Request-Id
// always the gateway's own. X-Service-Name names the service.
//
// X-Forwarded-For, -Host, -Proto and Forwarded (RFC 7239) are made anew, unless
// the peer is one of TrustedProxies; then its are continued. The same goes for
// traceparent, tracestate and baggage. The client's address is the right-most
// one that is not a trusted proxy's. If X-Forwarded-For and Forwarded disagree on
// it, one of them was written by the client and the request is refused with 400.
//
// Request-Timeout tells how many milliseconds the answer may take to begin (see
// package deadline): what is left of the client's own time or the route's Timeout,
// whichever is less, and a little kept back. A request with a body has only the
// client's. For gRPC and gRPC-Web, grpc-timeout is shortened likewise. A request that
// has no more than 1 ms left after the steps 1 to 8 is not passed on: 504
// deadline_exceeded.
//
// X-Request-Priority is the route's Priority, unless a trusted proxy has set one. A
// client's own is removed.
//
// The body and the query are passed on byte for byte and streamed both ways.
// Host is the address of the instance, unless the route has PreserveHost.
//
// # Another data plane
//
// Everything but the proxying itself is written against [Request] and [Header],
// not against net/http: [Gateway.Admit] runs the steps 1 to 8 for any data plane,
// and [Request.Forwards] and [Request.UpstreamHeader] tell it what to send.
package gateway
