package gateway

import (
	"strings"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/telemetry"
)

// Names of the headers the gateway sets.
const (
	headerRequestID        = "X-Request-Id"
	headerGatewayRequestID = "X-Gateway-Request-Id"
	headerServiceName      = "X-Service-Name"
	headerAuthSubject      = "X-Auth-Subject"
	headerAuthScopes       = "X-Auth-Scopes"
	headerBaggage          = "Baggage"
)

// fate says what becomes of a client's header of a name.
type fate int

const (
	drop   fate = iota + 1 // never passed on
	vouch                  // passed on from a trusted proxy
	remake                 // UpstreamHeader sets it, from the client's where that is trusted
)

// Header names that are not simply passed on, in lower case. What begins with
// "x-forwarded-" is vouched for too, and what begins with "x-envoy-": a sidecar obeys it.
var fates = map[string]fate{
	"x-auth-subject":       remake,
	"x-auth-scopes":        remake,
	"x-request-id":         remake,
	"x-gateway-request-id": remake,
	"x-service-name":       remake,
	"forwarded":            remake,
	"x-forwarded-for":      remake,
	"x-forwarded-host":     remake,
	"x-forwarded-proto":    remake,
	"x-forwarded-prefix":   remake,
	"traceparent":          remake,
	"tracestate":           remake,
	"request-timeout":      remake,
	"grpc-timeout":         remake,
	"x-request-priority":   remake,

	// These name another path or method than the one that was matched.
	"x-original-url":         drop,
	"x-rewrite-url":          drop,
	"x-http-method-override": drop,
	"x-http-method":          drop,
	"x-method-override":      drop,

	// CGI makes it HTTP_PROXY, which HTTP clients obey.
	"proxy": drop,

	"baggage":                        vouch,
	"x-forwarded":                    vouch,
	"x-real-ip":                      vouch,
	"x-client-ip":                    vouch,
	"x-cluster-client-ip":            vouch,
	"x-original-forwarded-for":       vouch,
	"true-client-ip":                 vouch,
	"cf-connecting-ip":               vouch,
	"fastly-client-ip":               vouch,
	"x-envoy-external-address":       vouch,
	"x-envoy-expected-rq-timeout-ms": vouch,
}

// Forwards reports whether the client's header of this name goes to the upstream
// as it is. Headers that concern one connection only are the data plane's to
// remove.
func (r *Request) Forwards(name string) bool {
	if name == "" {
		return false
	}
	// All names in the table begin with one of few letters; most headers don't.
	switch name[0] | 0x20 {
	case 'x', 'f', 't', 'r', 'g', 'b', 'c', 'p':
	default:
		return true
	}
	var buf [32]byte // longer than every name in the table
	lower := buf[:min(len(name), len(buf))]
	// Servers that hand headers on as variables (CGI, WSGI, PHP) make '_' of
	// every character that is no letter and no digit, so all of them are one.
	exact := true
	for i := range lower {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		default:
			c, exact = '-', false
		}
		lower[i] = c
	}
	f := fates[string(lower)]
	if f == 0 && (strings.HasPrefix(string(lower), "x-forwarded-") || strings.HasPrefix(string(lower), "x-envoy-")) {
		f = vouch
	}
	return f == 0 || f == vouch && r.Trusted && exact
}

// UpstreamHeader gives the headers the gateway itself sends to the upstream, in
// canonical form, each once.
func (r *Request) UpstreamHeader(set func(name, value string)) {
	set(headerRequestID, r.RequestID)
	set(headerGatewayRequestID, r.GatewayRequestID)
	set(headerServiceName, r.Service)
	if id := r.Identity; id != nil {
		set(headerAuthSubject, id.Subject)
		if len(id.Scopes) > 0 {
			set(headerAuthScopes, strings.Join(id.Scopes, " "))
		}
	}
	r.forward(set)
	set(telemetry.HeaderTraceparent, r.Trace.String())
	if r.Trace.State != "" {
		set(telemetry.HeaderTracestate, r.Trace.State)
	}
	if r.Priority != concurrency.Normal {
		set(concurrency.Header, r.Priority.String())
	}
	if left, ok := r.timeLeft(); ok {
		set(deadline.Header, deadline.Value(left))
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") { // or gRPC-Web
			set(deadline.HeaderGRPC, deadline.ValueGRPC(left)) // the only one their servers read
		}
	}
}

// timeLeft returns how long the client or the gateway itself is going to wait for
// the answer to begin, whichever is less, and whether that is known. The route's
// Timeout counts from the last byte of the request, so if there is a body it is not;
// and it is not for gRPC, which always has one. Who asks for a stream of events is not
// told either: the handler's own limits would be cut to it (a context's child has no
// deadline later than its parent's).
func (r *Request) timeLeft() (left time.Duration, ok bool) {
	if !r.Deadline.IsZero() {
		left, ok = time.Until(r.Deadline), true
	}
	if t := r.Route.Timeout; t > 0 && !r.HasBody && !r.wantsStream() && (!ok || t < left) {
		left, ok = t, true
	}
	return left, ok
}

// wantsStream reports whether the client asks for server-sent events.
func (r *Request) wantsStream() bool {
	return strings.HasPrefix(r.Header.Get("Accept"), "text/event-stream")
}

// priority returns what the service is told of the request's. A stranger's word does
// not count: all would be critical.
func (r *Request) priority() concurrency.Priority {
	if said := r.Header.Values(concurrency.Header); r.Trusted && len(said) == 1 {
		if p, err := concurrency.ParsePriority(said[0]); err == nil {
			return p
		}
	}
	return r.Route.Priority
}

// spent reports whether the client's time leaves nothing to tell the service. It would
// refuse the request, and that would count as a failure of the service.
func (r *Request) spent() bool {
	return !r.Deadline.IsZero() && deadline.PassOn(time.Until(r.Deadline)) <= 0
}

// over reports whether the client has given up by now.
func (r *Request) over() bool { return !r.Deadline.IsZero() && time.Until(r.Deadline) <= 0 }

// forward sets the headers that tell where the request came from.
func (r *Request) forward(set func(name, value string)) {
	peer := "unknown"
	if r.Peer.IsValid() {
		peer = r.Peer.String()
	}
	host, prefix := r.Authority, r.Route.StripPrefix
	var forwarded []byte
	if r.Trusted {
		if prior := r.Header.Values("X-Forwarded-For"); len(prior) > 0 {
			peer = strings.Join(prior, ", ") + ", " + peer
		}
		for _, prior := range r.Header.Values("Forwarded") {
			forwarded = append(append(forwarded, prior...), ", "...)
		}
		if prior := r.Header.Get("X-Forwarded-Host"); prior != "" && validAuthority(prior) {
			host = prior
		}
		if prior := r.Header.Get("X-Forwarded-Prefix"); strings.HasPrefix(prior, "/") && checkPath(prior) == nil {
			prefix = strings.TrimSuffix(prior, "/") + prefix
		}
	}
	proto := "http"
	if r.TLS {
		proto = "https"
	}
	var buf [128]byte
	if forwarded == nil {
		forwarded = buf[:0]
	}
	set("X-Forwarded-For", peer)
	set("X-Forwarded-Proto", r.Scheme)
	if host != "" {
		set("X-Forwarded-Host", host)
	}
	if prefix != "" {
		set("X-Forwarded-Prefix", prefix)
	}
	set("Forwarded", string(appendForwarded(forwarded, r.Peer, r.Authority, proto)))
}

// UpstreamTarget returns the path to ask the upstream for, percent-encoded as
// the client sent it, less the route's StripPrefix.
func (r *Request) UpstreamTarget() string {
	return trimEscaped(r.Target, len(r.Route.StripPrefix))
}
