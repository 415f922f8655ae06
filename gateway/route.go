package gateway

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/registry"
)

// Defaults of a [Route].
const (
	DefaultTimeout = 30 * time.Second
	DefaultMaxBody = 32 << 20 // bytes
)

// DefaultMethods returns the methods of a route that names none.
func DefaultMethods() []string { return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} }

// Route sends the requests it matches to a service. Path and one of Service and
// Backends are required.
type Route struct {
	// Path is an exact path, or a prefix ending in "/*": "/api/users/*" matches
	// /api/users, /api/users/ and everything below, not /api/usersX.
	Path string
	// Host matches one host ("api.example.com") or all below one
	// ("*.example.com"), without port, in any case; empty matches every host.
	Host string
	// Methods that are allowed; empty means [DefaultMethods]. GET allows HEAD.
	Methods []string
	// Headers that the request must have, each exactly once with exactly this value.
	Headers map[string]string

	// Service is the name requests go to, as it is registered.
	Service string
	// Backends share out the requests by weight, in place of Service.
	Backends []Backend
	// StripPrefix is taken off the path before it is passed on: with "/api",
	// /api/users/7 reaches the service as /users/7. In the answer it is put back
	// in front of the absolute paths of Location and Link.
	StripPrefix string
	// PreserveHost passes the client's Host on; else it is the instance's address.
	PreserveHost bool

	// Public routes need no token.
	Public bool
	// Scopes the identity must have, all of them.
	Scopes []string
	// Allow lists the client addresses that may use the route; empty means all.
	Allow []netip.Prefix
	// Deny lists those that may not. It goes before Allow. A client whose address
	// is not known is refused by either list.
	Deny []netip.Prefix
	// RateLimit is one more limit beside [Config.RateLimit].
	RateLimit *RouteLimit

	// Timeout is how long the upstream may take until the first byte of its
	// answer, counted from the last byte of the request; 0 means
	// [DefaultTimeout], a negative one none. A gRPC call is bounded by its
	// grpc-timeout alone. Once an answer has begun it may stream for ever. The
	// service is told how long that is, by Request-Timeout, unless the request has a
	// body, whose end nobody knows.
	Timeout time.Duration
	// Priority is what the service is told of the route's requests, for when it has
	// too many: X-Request-Priority. What a trusted proxy says goes before it. The zero
	// value is concurrency.Normal, which is not sent.
	Priority concurrency.Priority
	// MaxBody is the longest request body, in bytes; 0 means [DefaultMaxBody]
	// (and no limit for gRPC, whose streams have no end), a negative one none.
	MaxBody int64
}

// Backend is one of several services a route goes to.
type Backend struct {
	Service string
	Weight  int // its share, 0 to 1e6; 0 gets no requests
}

// LimitBy says what a [RouteLimit] counts.
type LimitBy string

// What a limit can count. By client, an IPv6 client is its /64 network.
const (
	ByClient  LimitBy = "client"  // each client address
	BySubject LimitBy = "subject" // each authenticated subject
	ByRoute   LimitBy = "route"   // all requests of the route together
)

// RouteLimit is a rate limit of one route.
type RouteLimit struct {
	ratelimit.Limit
	By LimitBy // empty means ByClient
}

// route is a Route made ready for requests.
type route struct {
	Route
	literal  string // the decoded path, without "/*"
	prefix   bool   // it ended in "/*"
	host     string // lower case, without "*"
	wildHost bool
	headers  []headerMatch
	weight   int // the sum of the backends'
	limit    *ratelimit.Local
	order    int // in the configuration
}

type headerMatch struct{ name, value string }

func (r *route) allows(method string) bool {
	return slices.Contains(r.Methods, method) || method == "HEAD" && slices.Contains(r.Methods, "GET")
}

func (r *route) matchesHeaders(h Header) bool {
	for _, m := range r.headers {
		if v := h.Values(m.name); len(v) != 1 || v[0] != m.value {
			return false
		}
	}
	return true
}

// pick chooses the service one request goes to.
func (r *route) pick() string {
	if len(r.Backends) == 0 {
		return r.Service
	}
	n := rand.IntN(r.weight)
	for _, b := range r.Backends {
		if n -= b.Weight; n < 0 {
			return b.Service
		}
	}
	panic("gateway: weights do not sum up")
}

// key tells what a route matches, so that the same one is known again after a reload.
func (r *route) key() string {
	return fmt.Sprintf("%t %s %s %q %q", r.wildHost, r.host, r.Path, r.Methods, r.headers)
}

// compile checks a route and makes it ready. Every fault is reported to fault.
func compile(in Route, order int, fault func(field, format string, args ...any)) *route {
	r := &route{Route: in, order: order}
	r.compilePath(fault)
	r.compileMatches(fault)
	r.compileTarget(fault)
	r.compileAccess(fault)
	if r.Priority < concurrency.Low || r.Priority > concurrency.Critical {
		fault("priority", "%d is unknown; give concurrency.Low, Normal or Critical", int8(r.Priority))
	}
	switch {
	case r.Timeout == 0:
		r.Timeout = DefaultTimeout
	case r.Timeout < 0:
		r.Timeout = 0
	}
	return r
}

func (r *route) compilePath(fault func(field, format string, args ...any)) {
	path, prefix := strings.CutSuffix(r.Path, "/*")
	r.prefix = prefix
	if strings.ContainsAny(path, "*{}?#") {
		fault("path", "%q has one of *{}?#; give an exact path, or a prefix ending in \"/*\"", r.Path)
		return
	}
	if path != "" || !prefix {
		var err error
		if r.literal, err = parsePath(path); err != nil {
			fault("path", "%q can't match: %v", r.Path, err)
			return
		}
	}
	if prefix && strings.HasSuffix(r.literal, "/") {
		fault("path", "%q can't match: the path has an empty segment", r.Path)
	}
	if r.StripPrefix == "" {
		return
	}
	strip, err := parsePath(r.StripPrefix)
	if err != nil || strings.HasSuffix(strip, "/") {
		fault("stripPrefix", "%q must begin with '/' and not end with it, like \"/api\"", r.StripPrefix)
		return
	}
	if r.literal != strip && !strings.HasPrefix(r.literal, strip+"/") {
		fault("stripPrefix", "%q is not a leading part of the path %q", r.StripPrefix, r.Path)
		return
	}
	r.StripPrefix = strip
}

func (r *route) compileMatches(fault func(field, format string, args ...any)) {
	r.host = strings.ToLower(r.Host)
	r.host, r.wildHost = strings.CutPrefix(r.host, "*")
	if r.wildHost && !strings.HasPrefix(r.host, ".") || r.Host != "" && !validAuthority(strings.TrimPrefix(r.host, ".")) || hostOf(r.host) != r.host {
		fault("host", "%q is no host; give a name without port, or \"*.\" and a name", r.Host)
	}
	methods := make([]string, 0, len(r.Methods))
	for _, m := range r.Methods {
		m = strings.ToUpper(m)
		switch {
		case !isToken(m):
			fault("methods", "%q is no method", m)
		case m == "CONNECT" || m == "TRACE":
			fault("methods", "%s can't be proxied; leave it out", m)
		}
		methods = append(methods, m)
	}
	if len(methods) == 0 {
		methods = DefaultMethods()
	}
	r.Methods = slices.Compact(slices.Sorted(slices.Values(methods)))
	for name, value := range r.Headers {
		name = canonical(name)
		if !isToken(name) || name == "Host" {
			fault("headers", "%q can't be matched; give a header's name (for the host there is the field host)", name)
		}
		r.headers = append(r.headers, headerMatch{name, value})
	}
	slices.SortFunc(r.headers, func(a, b headerMatch) int { return strings.Compare(a.name, b.name) })
}

func (r *route) compileTarget(fault func(field, format string, args ...any)) {
	if (r.Service == "") == (len(r.Backends) == 0) {
		fault("service", "give either service or backends")
		return
	}
	if r.Service != "" && !registry.ValidName(r.Service) {
		fault("service", "%q is no service's name; use lower-case letters, digits and '-'", r.Service)
	}
	r.Backends = slices.Clone(r.Backends)
	for i, b := range r.Backends {
		if !registry.ValidName(b.Service) {
			fault(fmt.Sprintf("backends[%d].service", i), "%q is no service's name; use lower-case letters, digits and '-'", b.Service)
		}
		if b.Weight < 0 || b.Weight > 1e6 {
			fault(fmt.Sprintf("backends[%d].weight", i), "%d is not from 0 to 1000000", b.Weight)
		}
		r.weight += b.Weight
	}
	if len(r.Backends) > 0 && r.weight <= 0 {
		fault("backends", "all weights are 0; give one of them at least 1")
	}
}

func (r *route) compileAccess(fault func(field, format string, args ...any)) {
	if r.Public && len(r.Scopes) > 0 {
		fault("scopes", "a public route has no identity to check; leave out scopes or public")
	}
	for _, s := range r.Scopes {
		if s == "" || strings.ContainsAny(s, " \"\\") {
			fault("scopes", "%q is no scope", s)
		}
	}
	for _, p := range slices.Concat(r.Allow, r.Deny) {
		if !p.IsValid() {
			fault("allow/deny", "an address range is not valid; give one like 10.0.0.0/8")
		}
	}
	l := r.RateLimit
	if l == nil {
		return
	}
	limit := *l
	r.RateLimit = &limit
	if limit.By == "" {
		r.RateLimit.By = ByClient
	}
	if limit.Name == "" {
		// It goes out beside the gateway's own limit, whose name is "default".
		r.RateLimit.Name = "route"
	}
	switch r.RateLimit.By {
	case ByClient, ByRoute:
	case BySubject:
		if r.Public {
			fault("rateLimit.by", "a public route has no subject; use client or route")
		}
	default:
		fault("rateLimit.by", "%q is unknown; use client, subject or route", limit.By)
	}
	if err := r.RateLimit.Validate(); err != nil {
		fault("rateLimit", "%v", err)
	}
}
