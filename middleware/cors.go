package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/problem"
)

// CORSOptions says which web pages of other origins may call, and how. The zero
// value allows none.
type CORSOptions struct {
	// Origins are exact, like "https://shop.example" or "http://localhost:5173",
	// or the single "*" for any. Empty: nothing is allowed, and requests pass
	// untouched.
	Origins []string
	// Methods a page may use; empty means GET, HEAD, POST, PUT, PATCH, DELETE.
	Methods []string
	// Headers a page may send; empty means Authorization, Content-Type,
	// Idempotency-Key, Request-Timeout, X-Request-Id, traceparent and tracestate.
	// The single "*" means all.
	Headers []string
	// Exposed are the response headers a page may read beyond the few that are
	// always readable.
	Exposed []string
	// Credentials lets pages send cookies and HTTP authentication. It can't go
	// together with the origin "*".
	Credentials bool
	// MaxAge is how long a browser may remember a preflight's answer, in whole
	// seconds; 0 means 10 minutes. Browsers have limits of their own (2 hours in
	// Chromium, 24 in Firefox).
	MaxAge time.Duration
}

const (
	maxRequestedHeaders = 64
	headerOrigin        = "Origin"
)

type cors struct {
	origins     map[string]bool
	anyOrigin   bool
	methods     []string
	headers     map[string]bool
	anyHeader   bool
	credentials bool

	allowMethods, allowHeaders, exposed, maxAge string
}

// CORS answers preflight requests, before any routing, and marks responses for
// pages of allowed origins (the Fetch standard's CORS protocol). A preflight for
// something not allowed gets a 403 problem that says why; a browser refuses it
// in any case. Other requests always go on to the handler: CORS protects users'
// browsers, not servers.
//
// The error tells which option is wrong and how to put it right.
func CORS(opts CORSOptions) (Middleware, error) {
	c, err := newCORS(opts)
	if err != nil {
		return nil, fmt.Errorf("configure CORS: %w", err)
	}
	return func(next http.Handler) http.Handler {
		if len(opts.Origins) == 0 {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodOptions && r.Header.Get(headerOrigin) != "" && r.Header.Get("Access-Control-Request-Method") != "" {
				c.preflight(w, r)
				return
			}
			if c.mark(w.Header(), r) && c.exposed != "" {
				w.Header().Set("Access-Control-Expose-Headers", c.exposed)
			}
			next.ServeHTTP(w, r)
		})
	}, nil
}

func newCORS(opts CORSOptions) (*cors, error) {
	c := &cors{
		origins:     map[string]bool{},
		anyOrigin:   slices.Contains(opts.Origins, "*"),
		methods:     opts.Methods,
		headers:     map[string]bool{},
		credentials: opts.Credentials,
		exposed:     strings.Join(opts.Exposed, ", "),
	}
	if c.anyOrigin && len(opts.Origins) > 1 {
		return nil, errors.New(`Origins has "*" among others: leave "*" alone or remove it`)
	}
	if c.anyOrigin && opts.Credentials {
		return nil, errors.New(`Credentials can't be allowed to every origin: list the origins in place of "*"`)
	}
	for _, o := range opts.Origins {
		if o == "*" {
			continue
		}
		if err := checkOrigin(o); err != nil {
			return nil, err
		}
		c.origins[o] = true
	}
	if len(c.methods) == 0 {
		c.methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	}
	for _, m := range c.methods {
		if !isToken(m) || m == "*" {
			return nil, fmt.Errorf("Methods has %q: write methods by name, like PUT", m)
		}
	}
	headers := opts.Headers
	if len(headers) == 0 {
		headers = []string{"Authorization", "Content-Type", "Idempotency-Key", deadline.Header, HeaderRequestID, "Traceparent", "Tracestate"}
	}
	c.anyHeader = len(headers) == 1 && headers[0] == "*"
	for _, h := range headers {
		if !c.anyHeader && (!isToken(h) || h == "*") {
			return nil, fmt.Errorf(`Headers has %q: write header names, or the single "*"`, h)
		}
		c.headers[strings.ToLower(h)] = true
	}
	for _, h := range opts.Exposed {
		if !isToken(h) || h == "*" && opts.Credentials {
			return nil, fmt.Errorf("Exposed has %q: write header names", h)
		}
	}
	maxAge := opts.MaxAge
	if maxAge == 0 {
		maxAge = 10 * time.Minute
	}
	if maxAge < time.Second || maxAge%time.Second != 0 {
		return nil, fmt.Errorf("MaxAge is %v: write whole seconds, 1 s or more", maxAge)
	}
	c.allowMethods = strings.Join(c.methods, ", ")
	c.allowHeaders = strings.Join(headers, ", ")
	c.maxAge = strconv.FormatInt(int64(maxAge/time.Second), 10)
	return c, nil
}

// checkOrigin holds an origin to the form browsers send; another would never match.
func checkOrigin(o string) error {
	u, err := url.Parse(o)
	switch {
	case err != nil || u.Scheme == "" || u.Hostname() == "":
		return fmt.Errorf("Origins has %q: write scheme://host or scheme://host:port", o)
	case o != u.Scheme+"://"+u.Host:
		return fmt.Errorf("Origins has %q: an origin is %s://%s, without path, query or user", o, u.Scheme, u.Host)
	case o != strings.ToLower(o):
		return fmt.Errorf("Origins has %q: browsers send it in lower case", o)
	case strings.Contains(o, "*"):
		return fmt.Errorf(`Origins has %q: patterns are not supported; list each origin, or "*" for all`, o)
	case u.Port() != "" && !validPort(u.Port()):
		return fmt.Errorf("Origins has %q: a port is 1 to 65535", o)
	case u.Scheme == "http" && u.Port() == "80", u.Scheme == "https" && u.Port() == "443", strings.HasSuffix(u.Host, ":"):
		return fmt.Errorf("Origins has %q: browsers leave the scheme's own port out", o)
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// mark puts on a response what its page may do with it.
func (c *cors) mark(h http.Header, r *http.Request) (allowed bool) {
	if c.anyOrigin {
		h.Set("Access-Control-Allow-Origin", "*")
	} else {
		// Without an Origin too: a cache must not give that answer to a page.
		h.Add("Vary", headerOrigin)
		origins := r.Header[headerOrigin]
		if len(origins) != 1 || !c.origins[origins[0]] {
			return false
		}
		h.Set("Access-Control-Allow-Origin", origins[0])
		if c.credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	}
	return true
}

func (c *cors) preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	refuse := func(detail string) {
		answer(r.Context(), w, r, problem.New(http.StatusForbidden, problem.CodeForbidden, detail))
	}
	h.Add("Vary", "Access-Control-Request-Method")
	h.Add("Vary", "Access-Control-Request-Headers")
	if !c.mark(h, r) {
		refuse("Pages of this origin may not call here.")
		return
	}
	if !slices.Contains(c.methods, r.Header.Get("Access-Control-Request-Method")) {
		refuse("Pages of other origins may not use this method; they may use " + c.allowMethods + ".")
		return
	}
	requested, ok := requestedHeaders(r.Header)
	if !ok {
		refuse("Access-Control-Request-Headers is not a list of at most 64 header names.")
		return
	}
	allowHeaders := c.allowHeaders
	if c.anyHeader {
		// By name, since a browser does not take "*" for Authorization, nor for
		// anything if it sends credentials.
		allowHeaders = strings.Join(requested, ", ")
	} else {
		for _, name := range requested {
			if !c.headers[name] {
				refuse("Pages of other origins may not send all of these headers; they may send " + c.allowHeaders + ".")
				return
			}
		}
	}
	h.Set("Access-Control-Allow-Methods", c.allowMethods)
	if allowHeaders != "" {
		h.Set("Access-Control-Allow-Headers", allowHeaders)
	}
	h.Set("Access-Control-Max-Age", c.maxAge)
	w.WriteHeader(http.StatusNoContent)
}

// requestedHeaders reads the names a page wants to send, in lower case.
func requestedHeaders(h http.Header) ([]string, bool) {
	var names []string
	for _, line := range h["Access-Control-Request-Headers"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.ToLower(strings.Trim(name, " \t"))
			if name == "" {
				continue
			}
			if !isToken(name) || len(names) == maxRequestedHeaders {
				return nil, false
			}
			names = append(names, name)
		}
	}
	return names, true
}

// isToken: RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
