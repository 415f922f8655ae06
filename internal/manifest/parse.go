package manifest

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// defaultMethods are what a route allows that names none.
var defaultMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
}

// Parse reads a manifest from b; name stands for it in messages. A refusal is of type [Errors].
func Parse(name string, b []byte) (*Manifest, error) {
	d := &decoder{file: name}
	p := &parser{decoder: d, m: &Manifest{
		Path: name,
		Gateway: Gateway{
			Listen:    "127.0.0.1:3000",
			RateLimit: RateLimit{Limit: 100, Window: time.Minute, By: ByClient},
		},
		Admin:    Admin{Listen: "127.0.0.1:3100"},
		Engine:   Engine{Durability: Fast},
		Services: map[string]Service{},
	}, ports: map[int]port{}, listeners: map[string]bool{}, routes: map[string]int{}}
	if root := d.document(b); root != nil {
		p.manifest(root)
	}
	if len(d.errs) > 0 {
		return nil, Errors(inFileOrder(d.errs))
	}
	p.m.warnings = inFileOrder(d.warnings)
	return p.m, nil
}

// parser reads the parts of a manifest. What concerns several of them is kept here until all are read.
type parser struct {
	*decoder
	m         *Manifest
	ports     map[int]port
	listeners map[string]bool // paths of the listen addresses that the file gives
	routes    map[string]int  // line of each route by what it matches
	names     []string        // services in the order of the file
	graph     []dependency
}

// port is the value that takes a port.
type port struct {
	path string
	node *yaml.Node
}

func (p *parser) manifest(n *yaml.Node) {
	versioned := false
	p.object(n, "",
		field{"version", func(n *yaml.Node, path string) {
			versioned = true
			v, ok := p.number(n, path, 0, 1_000_000)
			if ok && v != 1 {
				p.fail(n, path, "write version: 1, or use the keelson this file is for", "version %d is not known", v)
			}
			p.m.Version = v
		}},
		field{"gateway", p.gateway},
		field{"admin", func(n *yaml.Node, path string) {
			p.object(n, path, field{"listen", p.listen(&p.m.Admin.Listen, false)})
		}},
		field{"engine", p.engine},
		field{"services", p.services},
	)
	if !versioned && n.Kind == yaml.MappingNode {
		p.fail(n, "", "write as the first line: version: 1", "the version is missing")
	}
	p.takeDefault("gateway.listen", p.m.Gateway.Listen)
	p.takeDefault("admin.listen", p.m.Admin.Listen)
	for _, check := range p.later {
		check()
	}
	p.m.order = p.sortServices()
}

func (p *parser) gateway(n *yaml.Node, path string) {
	g := &p.m.Gateway
	p.object(n, path,
		field{"listen", p.listen(&g.Listen, false)},
		field{"auth", func(n *yaml.Node, path string) {
			p.object(n, path, field{"jwt", p.jwt})
		}},
		field{"cors", func(n *yaml.Node, path string) {
			p.object(n, path, field{"origins", func(n *yaml.Node, path string) {
				p.texts(n, path, func(s string, n *yaml.Node, path string) {
					if why := badOrigin(s); why != "" {
						p.fail(n, path, "write https://shop.example, or * for all", "%s %s", quote(s), why)
						return
					}
					g.CORS.Origins = append(g.CORS.Origins, strings.ToLower(s)) // as browsers send them
				})
			}})
		}},
		field{"rateLimit", func(n *yaml.Node, path string) {
			p.object(n, path, p.rateLimit(&g.RateLimit, 0)...)
		}},
		field{"trustedProxies", p.prefixes(&g.TrustedProxies)},
		field{"routes", func(n *yaml.Node, path string) { p.list(n, path, p.route) }},
	)
}

func (p *parser) jwt(n *yaml.Node, path string) {
	j := &p.m.Gateway.Auth.JWT
	p.object(n, path,
		field{"keys", func(n *yaml.Node, path string) {
			p.texts(n, path, func(s string, n *yaml.Node, path string) {
				if s == "" {
					p.fail(n, path, "write the path of a PEM or JWK file", "the path is empty")
				}
				j.Keys = append(j.Keys, s)
			})
		}},
		field{"jwks", p.address(&j.JWKS, badJWKS, "write an https address without user and password")},
		field{"issuer", p.string(&j.Issuer)},
		field{"audience", p.string(&j.Audience)},
	)
	p.later = append(p.later, func() {
		if j.Enabled() && j.Issuer == "" {
			p.fail(n, path, `set it to the "iss" of the tokens to accept`, "the issuer is missing")
		}
		if j.Enabled() && j.Audience == "" {
			p.fail(n, path, `set it to the "aud" of the tokens to accept`, "the audience is missing")
		}
		if !j.Enabled() && (j.Issuer != "" || j.Audience != "") {
			p.fail(n, path, "give keys or jwks", "there is no key to verify the issuer's tokens with")
		}
	})
}

func (p *parser) rateLimit(r *RateLimit, low int) []field {
	return []field{
		{"limit", func(n *yaml.Node, path string) { set(&r.Limit)(p.number(n, path, low, 1_000_000_000)) }},
		{"window", func(n *yaml.Node, path string) { set(&r.Window)(p.duration(n, path)) }},
	}
}

func (p *parser) route(n *yaml.Node, path string) {
	r := Route{Priority: Normal}
	var strip, methods, backends, public *yaml.Node
	failed := len(p.errs)
	p.object(n, path,
		field{"path", p.checked(&r.Path, badPath, "write it like /api/users/* or /health")},
		field{"host", func(n *yaml.Node, path string) {
			p.checked(&r.Host, badHost, "write a host name without port, such as shop.example")(n, path)
			r.Host = strings.ToLower(r.Host)
		}},
		field{"service", func(n *yaml.Node, path string) {
			p.checked(&r.Service, badName, nameFix)(n, path)
			p.refer(r.Service, n, path)
		}},
		field{"backends", func(n *yaml.Node, path string) { backends = n; p.backends(&r, n, path) }},
		field{"stripPrefix", func(n *yaml.Node, path string) { strip = n; p.string(&r.StripPrefix)(n, path) }},
		field{"methods", func(n *yaml.Node, path string) { methods = n; p.methods(&r, n, path) }},
		field{"headers", func(n *yaml.Node, path string) { p.headers(&r, n, path) }},
		field{"scopes", func(n *yaml.Node, path string) {
			p.texts(n, path, func(s string, n *yaml.Node, path string) {
				if !isVisible(s) {
					p.fail(n, path, "write one word for each", "%s is not a scope", quote(s))
				}
				r.Scopes = append(r.Scopes, s)
			})
		}},
		field{"public", func(n *yaml.Node, path string) { public = n; set(&r.Public)(p.boolean(n, path)) }},
		field{"timeout", func(n *yaml.Node, path string) { set(&r.Timeout)(p.duration(n, path)) }},
		field{"priority", func(n *yaml.Node, path string) {
			s := string(r.Priority)
			p.oneOf(&s, string(Low), string(Normal), string(Critical))(n, path)
			r.Priority = Priority(s)
		}},
		field{"rateLimit", func(n *yaml.Node, path string) { p.routeLimit(&r, n, path) }},
		field{"allow", p.prefixes(&r.Allow)},
		field{"deny", p.prefixes(&r.Deny)},
	)
	if len(p.errs) > failed {
		return // what is missing below may be what could not be read
	}
	switch {
	case r.Path == "":
		p.fail(n, path, "add path: /api/…/*", "the route has no path")
	case r.Service == "" && len(r.Backends) == 0:
		p.fail(n, path, "add service: <name>", "the route has no service")
	case r.Service != "" && backends != nil:
		p.fail(backends, path+".backends", "keep one of them", "the route has both service and backends")
	case strip != nil && badPrefix(r.StripPrefix, r.Path):
		p.fail(strip, path+".stripPrefix", "write the beginning of the path up to a /, such as /api",
			"%s is not a prefix of the path %s", quote(r.StripPrefix), quote(r.Path))
	case r.Public && len(r.Scopes) > 0:
		p.fail(public, path+".public", "remove public or scopes", "a public route needs no token, so it cannot ask for scopes")
	case r.Public && r.RateLimit.By == BySubject:
		p.fail(public, path+".public", "limit by client or route", "a public route has no subject to limit by")
	}
	if len(p.errs) > failed {
		return
	}
	if r.Service != "" {
		r.Backends = []Backend{{Service: r.Service, Weight: 1}}
	}
	if len(r.Methods) == 0 {
		r.Methods = slices.Clone(defaultMethods)
		methods = n
	}
	p.unique(&r, n, methods, path)
	p.m.Gateway.Routes = append(p.m.Gateway.Routes, r)
}

// unique refuses a route that never gets a request, because an earlier one matches the same.
func (p *parser) unique(r *Route, n, methods *yaml.Node, path string) {
	match := []string{r.Host, r.Path}
	for _, name := range sortedKeys(r.Headers) {
		match = append(match, name, r.Headers[name])
	}
	for _, method := range r.Methods {
		key := fmt.Sprintf("%q %s", match, method)
		if line, taken := p.routes[key]; taken {
			p.fail(methods, path, "remove one of them, or change its path, host or methods",
				"%s %s is routed already in line %d", method, quote(r.Host+r.Path), line)
			return
		}
		p.routes[key] = n.Line
	}
}

func (p *parser) methods(r *Route, n *yaml.Node, path string) {
	p.texts(n, path, func(s string, n *yaml.Node, path string) {
		switch {
		case !isToken(s) || s != strings.ToUpper(s):
			p.fail(n, path, "write it like GET", "%s is not an HTTP method", quote(s))
		case s == http.MethodConnect || s == http.MethodTrace:
			p.fail(n, path, "remove it", "a gateway does not pass on %s", s)
		case slices.Contains(r.Methods, s):
			p.fail(n, path, "remove one of them", "%s stands twice", s)
		}
		r.Methods = append(r.Methods, s)
	})
}

func (p *parser) headers(r *Route, n *yaml.Node, path string) {
	r.Headers = map[string]string{}
	p.mapping(n, path, func(key, value *yaml.Node) {
		v, ok := p.text(value, join(path, key.Value))
		if !ok {
			return
		}
		name := textproto.CanonicalMIMEHeaderKey(key.Value)
		_, twice := r.Headers[name]
		switch {
		case !isToken(key.Value):
			p.fail(key, path, "write it like X-Version", "%s is not a header's name", quote(key.Value))
		case twice:
			p.fail(key, path, "keep one of them; upper and lower case are the same", "header %s stands twice", quote(name))
		case strings.ContainsFunc(v, isControl):
			p.fail(value, join(path, key.Value), "write one line", "a header's value cannot have control characters")
		default:
			r.Headers[name] = v
		}
	})
}

func (p *parser) routeLimit(r *Route, n *yaml.Node, path string) {
	r.RateLimit = RateLimit{Window: time.Minute, By: ByClient}
	limited := false
	fields := append(p.rateLimit(&r.RateLimit, 1), field{"by", func(n *yaml.Node, path string) {
		s := ""
		p.oneOf(&s, string(ByClient), string(BySubject), string(ByRoute))(n, path)
		if s != "" {
			r.RateLimit.By = By(s)
		}
	}})
	read := fields[0].read
	fields[0].read = func(n *yaml.Node, path string) { limited = true; read(n, path) }
	p.object(n, path, fields...)
	if !limited {
		p.fail(n, path, "add limit: 100", "the limit is missing")
	}
}

func (p *parser) backends(r *Route, n *yaml.Node, path string) {
	sum, failed := 0, len(p.errs)
	p.list(n, path, func(n *yaml.Node, path string) {
		b := Backend{Weight: 1}
		p.object(n, path,
			field{"service", func(n *yaml.Node, path string) {
				p.checked(&b.Service, badName, nameFix)(n, path)
				if slices.ContainsFunc(r.Backends, func(o Backend) bool { return o.Service == b.Service }) {
					p.fail(n, path, "add up their weights", "%s is a backend already", quote(b.Service))
				}
				p.refer(b.Service, n, path)
			}},
			field{"weight", func(n *yaml.Node, path string) { set(&b.Weight)(p.number(n, path, 0, 1000)) }},
		)
		if b.Service == "" && len(p.errs) == failed {
			p.fail(n, path, "add service: <name>", "the backend has no service")
		}
		r.Backends = append(r.Backends, b)
		sum += b.Weight
	})
	if sum == 0 && len(p.errs) == failed {
		p.fail(n, path, "give a weight above 0 to one of them", "no backend would get a request")
	}
}

func (p *parser) engine(n *yaml.Node, path string) {
	e := &p.m.Engine
	p.object(n, path,
		field{"listen", p.listen(&e.Listen, true)},
		field{"url", p.address(&e.URL, badEngineURL, "write it like nats://127.0.0.1:4222")},
		field{"credentials", p.string(&e.Credentials)},
		field{"durability", func(n *yaml.Node, path string) {
			s := string(e.Durability)
			p.oneOf(&s, string(Fast), string(Always))(n, path)
			e.Durability = Durability(s)
		}},
	)
	if e.Listen != "" && e.URL != "" {
		p.fail(n, path, "keep listen for the embedded engine, or url for an external one", "there is both listen and url")
	}
}

// prefixes reads a list of addresses and CIDR ranges.
func (p *parser) prefixes(to *[]netip.Prefix) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		p.texts(n, path, func(s string, n *yaml.Node, path string) {
			prefix, err := parsePrefix(s)
			if err != nil {
				p.fail(n, path, "write an address or a range, such as 10.0.0.7 or 10.0.0.0/8", "%s is neither", quote(s))
				return
			}
			*to = append(*to, prefix)
		})
	}
}

// string reads text into to.
func (p *parser) string(to *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) { set(to)(p.text(n, path)) }
}

// checked reads text into to, unless bad says what is wrong with it. Empty text counts as absent.
func (p *parser) checked(to *string, bad func(string) string, fix string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := p.text(n, path)
		if !ok || s == "" {
			return
		}
		if why := bad(s); why != "" {
			p.fail(n, path, fix, "%s %s", quote(s), why)
			return
		}
		*to = s
	}
}

// address is checked for values that may hold a password, which are not repeated.
func (p *parser) address(to *string, bad func(string) string, fix string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := p.text(n, path)
		if !ok || s == "" {
			return
		}
		if why := bad(s); why != "" {
			p.fail(n, path, fix, "this %s", why)
			return
		}
		*to = s
	}
}

// oneOf reads one of a few words.
func (p *parser) oneOf(to *string, words ...string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := p.text(n, path)
		if ok && !slices.Contains(words, s) {
			p.fail(n, path, didYouMean(s, words), "%s is not known", quote(s))
			return
		}
		set(to)(s, ok)
	}
}

// set returns a function that sets to if ok.
func set[T any](to *T) func(T, bool) {
	return func(v T, ok bool) {
		if ok {
			*to = v
		}
	}
}
