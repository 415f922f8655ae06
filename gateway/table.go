package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/ratelimit"
)

// AccessLog says which requests are logged.
type AccessLog int

// What can be logged. A request's query and headers never are.
const (
	LogAll    AccessLog = iota // every request
	LogErrors                  // those answered with 400 and above, or cut
	LogNone
)

// Config is what a gateway does; it can be changed at any time by
// [Gateway.Reload]. It must not be changed after it was handed over.
type Config struct {
	// Routes may be empty: then all is 404.
	Routes []Route
	// Authenticator verifies tokens. It may only be nil if every route is public.
	Authenticator auth.Authenticator
	// RateLimit limits each client over all routes; nil means no limit.
	RateLimit *ratelimit.Limit
	// TrustedProxies are those whose forwarding headers are believed.
	TrustedProxies []netip.Prefix
	// CORS is off by default.
	CORS CORS
	// Policies run after authorisation, in this order.
	Policies []Policy
	// ExposeServices switches on /services, which needs no token.
	ExposeServices bool
	// AccessLog says which requests are logged; the default is all.
	AccessLog AccessLog
}

// ConfigError is a field of a [Config] that can't be accepted. New and Reload
// return all there are, joined.
type ConfigError struct {
	Field   string // such as "routes[2].stripPrefix"
	Problem string // what is wrong with it, and what to give instead
}

// Error names the field, what is wrong and what to do.
func (e *ConfigError) Error() string { return fmt.Sprintf("gateway: %s: %s", e.Field, e.Problem) }

// table is a Config made ready for requests. It is immutable, but for the
// counters of its limits.
type table struct {
	chain    []Policy
	proxies  []netip.Prefix
	cors     bool
	log      AccessLog
	limiters map[string]*ratelimit.Local // by what they count, for the next table
}

func (t *table) trusted(a netip.Addr) bool { return contains(t.proxies, a) }

// newTable checks cfg. Limits that were in old go on counting.
func newTable(cfg Config, own []string, old *table) (*table, error) {
	t := &table{proxies: slices.Clone(cfg.TrustedProxies), log: cfg.AccessLog, limiters: map[string]*ratelimit.Local{}}
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &ConfigError{field, fmt.Sprintf(format, args...)})
	}
	for i, p := range cfg.TrustedProxies {
		if !p.IsValid() {
			fault(fmt.Sprintf("trustedProxies[%d]", i), "is no address range; give one like 10.0.0.0/8")
		}
	}
	if cfg.AccessLog < LogAll || cfg.AccessLog > LogNone {
		fault("accessLog", "%d is unknown", cfg.AccessLog)
	}
	routes := t.compileRoutes(cfg, own, fault)
	clients := t.clientLimit(cfg.RateLimit, old, fault)
	cors := newCORS(cfg.CORS, fault)
	for i, p := range cfg.Policies {
		if p == nil {
			fault(fmt.Sprintf("policies[%d]", i), "is nil")
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	for _, r := range routes {
		if err := t.routeLimit(r, old); err != nil {
			return nil, err
		}
	}
	if cors != nil {
		t.cors = true
		t.chain = append(t.chain, cors)
	}
	t.chain = append(t.chain, &endpoints{own}, &routing{newMatcher(routes)}, addresses{}, &limits{clients},
		&authentication{cfg.Authenticator}, authorisation{})
	t.chain = append(t.chain, cfg.Policies...)
	return t, nil
}

func (t *table) compileRoutes(cfg Config, own []string, fault func(field, format string, args ...any)) []*route {
	routes := make([]*route, 0, len(cfg.Routes))
	seen := map[string]int{}
	for i, in := range cfg.Routes {
		at := func(field, format string, args ...any) {
			fault(fmt.Sprintf("routes[%d].%s", i, field), format, args...)
		}
		r := compile(in, i, at)
		if slices.Contains(own, r.Path) {
			at("path", "%s is the gateway's own; choose another", r.Path)
		}
		if !r.Public && cfg.Authenticator == nil {
			at("public", "the route needs a token, and there is no authenticator to verify it; configure one, or make the route public")
		}
		for _, m := range r.Methods {
			key := fmt.Sprintf("%s %t %q %t %q %s", r.host, r.wildHost, r.literal, r.prefix, r.headers, m)
			if first, ok := seen[key]; ok {
				at("path", "%s %q is routes[%d] already; it could never match", m, r.Path, first)
				break
			}
			seen[key] = i
		}
		routes = append(routes, r)
	}
	return routes
}

func (t *table) clientLimit(l *ratelimit.Limit, old *table, fault func(field, format string, args ...any)) *ratelimit.Local {
	if l == nil {
		return nil
	}
	limiter, err := t.limiter("gateway", *l, old)
	if err != nil {
		fault("rateLimit", "%v", err)
	}
	return limiter
}

func (t *table) routeLimit(r *route, old *table) error {
	l := r.RateLimit
	if l == nil {
		return nil
	}
	var opts []ratelimit.Option
	if l.By == ByRoute {
		opts = append(opts, ratelimit.MaxKeys(64)) // there is one key
	}
	var err error
	if r.limit, err = t.limiter(fmt.Sprintf("%s %s", l.By, r.key()), l.Limit, old, opts...); err != nil {
		return fmt.Errorf("gateway: limit of route %s: %w", r.Path, err)
	}
	return nil
}

// limiter returns old's limiter if it counts the same by the same limit, else a new one.
func (t *table) limiter(counts string, l ratelimit.Limit, old *table, opts ...ratelimit.Option) (*ratelimit.Local, error) {
	key := fmt.Sprintf("%s %+v", counts, l)
	limiter := (*ratelimit.Local)(nil)
	if old != nil {
		limiter = old.limiters[key]
	}
	if limiter == nil {
		var err error
		if limiter, err = ratelimit.NewLocal(l, opts...); err != nil {
			return nil, err
		}
	}
	t.limiters[key] = limiter
	return limiter, nil
}
