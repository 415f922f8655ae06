package gateway

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keelson-go/keelson/problem"
)

// CORS says which web pages of other origins may call the gateway. With no
// Origins there is no CORS here: preflights are requests like any other, and
// what services say about CORS is passed on. Otherwise theirs is replaced.
type CORS struct {
	// Origins are scheme, host and port, like "https://app.example.com"; "*" is any.
	Origins []string
	// Methods a page may use; empty means [DefaultMethods].
	Methods []string
	// Headers a page may send; empty means those it asks for.
	Headers []string
	// Expose lists the answer's headers a page may read; empty means the ids,
	// the rate limit, Retry-After, Location and Link.
	Expose []string
	// Credentials lets pages send cookies. It can't go with the origin "*".
	Credentials bool
	// MaxAge is how long a browser may remember a preflight; 0 means 10 minutes.
	MaxAge time.Duration
}

// cors is the policy that applies CORS.
type cors struct {
	any         bool
	origins     []string
	methods     string
	headers     string
	expose      string
	maxAge      string
	credentials bool
}

func newCORS(c CORS, fault func(field, format string, args ...any)) *cors {
	if len(c.Origins) == 0 {
		return nil
	}
	p := &cors{credentials: c.Credentials}
	for i, o := range c.Origins {
		o = strings.ToLower(o)
		_, host, ok := strings.Cut(o, "://")
		switch {
		case o == "*":
			p.any = true
		case !ok || host == "" || strings.ContainsAny(host, "/*, "):
			fault("cors.origins["+strconv.Itoa(i)+"]", "%q is no origin; give scheme and host without a path, like https://app.example.com", o)
		}
		p.origins = append(p.origins, o)
	}
	if p.any && c.Credentials {
		fault("cors.credentials", "every page of the web could act as the user; name the origins instead of \"*\"")
	}
	for _, name := range slices.Concat(c.Methods, c.Headers, c.Expose) {
		if !isToken(name) {
			fault("cors", "%q is no name of a method or header", name)
		}
	}
	if c.MaxAge < 0 {
		fault("cors.maxAge", "must not be negative")
	}
	methods, expose := c.Methods, c.Expose
	if len(methods) == 0 {
		methods = DefaultMethods()
	}
	if len(expose) == 0 {
		expose = []string{headerRequestID, headerGatewayRequestID, headerServiceName, "RateLimit", "RateLimit-Policy", "Retry-After", "Location", "Link"}
	}
	if c.MaxAge == 0 {
		c.MaxAge = 10 * time.Minute
	}
	p.methods, p.headers, p.expose = strings.Join(methods, ", "), strings.Join(c.Headers, ", "), strings.Join(expose, ", ")
	p.maxAge = strconv.Itoa(int(c.MaxAge / time.Second))
	return p
}

// Name implements [Policy].
func (p *cors) Name() string { return "cors" }

// Check answers preflights (Fetch standard, section 3.3) and marks what pages
// may read.
func (p *cors) Check(_ context.Context, r *Request, resp Header) error {
	// Caches must not give one origin's answer to another.
	if !p.any {
		resp.Add("Vary", "Origin")
	}
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != ""
	if origin == "" {
		return nil
	}
	if !p.any && !slices.ContainsFunc(p.origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
		if preflight {
			return problem.New(http.StatusForbidden, problem.CodeForbidden, "Pages of this origin may not call this gateway.")
		}
		return nil // the browser keeps the answer from the page
	}
	if p.any {
		resp.Set("Access-Control-Allow-Origin", "*")
	} else {
		resp.Set("Access-Control-Allow-Origin", origin)
	}
	if p.credentials {
		resp.Set("Access-Control-Allow-Credentials", "true")
	}
	if !preflight {
		resp.Set("Access-Control-Expose-Headers", p.expose)
		return nil
	}
	resp.Set("Access-Control-Allow-Methods", p.methods)
	resp.Set("Access-Control-Max-Age", p.maxAge)
	if p.headers != "" {
		resp.Set("Access-Control-Allow-Headers", p.headers)
	} else if asked := r.Header.Get("Access-Control-Request-Headers"); headerList(asked) {
		resp.Set("Access-Control-Allow-Headers", asked)
		resp.Add("Vary", "Access-Control-Request-Headers")
	}
	return &Answer{Status: http.StatusNoContent}
}

// headerList reports whether s is a list of header names that may be echoed.
func headerList(s string) bool {
	if s == "" || len(s) > 2<<10 {
		return false
	}
	for name := range strings.SplitSeq(s, ",") {
		if !isToken(strings.Trim(name, " \t")) {
			return false
		}
	}
	return true
}
