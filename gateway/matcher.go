package gateway

import (
	"cmp"
	"slices"
	"strings"
)

// matcher finds the route of a request. It is immutable and does no I/O. The
// package comment says which route wins.
type matcher struct {
	hosts map[string]*paths
	wild  []wildHost // the longest suffix first
	any   *paths
}

type wildHost struct {
	suffix string // ".example.com"
	paths  *paths
}

// paths are the routes of one host. Routes that share a path are in a group,
// ordered by how specific their headers are.
type paths struct {
	exact   map[string][]*route
	prefix  map[string][]*route // without "/*"
	longest int                 // prefix, in bytes
}

func newMatcher(routes []*route) *matcher {
	m := &matcher{hosts: map[string]*paths{}, any: newPaths()}
	wild := map[string]*paths{}
	for _, r := range routes {
		p := m.any
		switch {
		case r.wildHost:
			p = tableOf(wild, r.host)
		case r.host != "":
			p = tableOf(m.hosts, r.host)
		}
		p.add(r)
	}
	for suffix, p := range wild {
		m.wild = append(m.wild, wildHost{suffix, p})
	}
	slices.SortFunc(m.wild, func(a, b wildHost) int { return cmp.Compare(len(b.suffix), len(a.suffix)) })
	return m
}

func newPaths() *paths { return &paths{exact: map[string][]*route{}, prefix: map[string][]*route{}} }

func tableOf(tables map[string]*paths, host string) *paths {
	if tables[host] == nil {
		tables[host] = newPaths()
	}
	return tables[host]
}

func (p *paths) add(r *route) {
	groups := p.exact
	if r.prefix {
		groups = p.prefix
		p.longest = max(p.longest, len(r.literal))
	}
	groups[r.literal] = append(groups[r.literal], r)
	slices.SortStableFunc(groups[r.literal], func(a, b *route) int {
		return cmp.Or(cmp.Compare(len(b.headers), len(a.headers)), cmp.Compare(a.order, b.order))
	})
}

// match returns the route, or the methods that would have matched, or neither.
func (m *matcher) match(host, method, path string, h Header) (*route, []string) {
	if p := m.hosts[host]; p != nil {
		if r, allow := p.match(method, path, h); r != nil || allow != nil {
			return r, allow
		}
	}
	for _, w := range m.wild {
		if len(host) > len(w.suffix) && strings.HasSuffix(host, w.suffix) {
			if r, allow := w.paths.match(method, path, h); r != nil || allow != nil {
				return r, allow
			}
		}
	}
	return m.any.match(method, path, h)
}

func (p *paths) match(method, path string, h Header) (*route, []string) {
	if r, allow := choose(p.exact[path], method, h); r != nil || allow != nil {
		return r, allow
	}
	// From the whole path up, one segment less each time. Prefixes longer than
	// any there is are not looked up, so a path of many segments costs little.
	for end := len(path); end >= 0; end = strings.LastIndexByte(path[:end], '/') {
		if end > p.longest {
			continue
		}
		if r, allow := choose(p.prefix[path[:end]], method, h); r != nil || allow != nil {
			return r, allow
		}
	}
	return nil, nil
}

// choose takes the first of a group whose headers and method match, or collects
// the methods of those whose headers do.
func choose(group []*route, method string, h Header) (*route, []string) {
	var allow []string
	for _, r := range group {
		if !r.matchesHeaders(h) {
			continue
		}
		if r.allows(method) {
			return r, nil
		}
		allow = append(allow, r.Methods...)
		if r.allows("HEAD") {
			allow = append(allow, "HEAD")
		}
	}
	slices.Sort(allow)
	return nil, slices.Compact(allow)
}
