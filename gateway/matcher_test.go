package gateway

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func compileAll(t interface{ Fatalf(string, ...any) }, routes []Route) []*route {
	var out []*route
	for i, r := range routes {
		out = append(out, compile(r, i, func(field, format string, args ...any) {
			t.Fatalf("route %d (%+v): %s: %s", i, r, field, fmt.Sprintf(format, args...))
		}))
	}
	return out
}

func TestMatch(t *testing.T) {
	t.Parallel()
	routes := []Route{
		{Path: "/api/users/*", Service: "users"},
		{Path: "/api/users/me", Service: "me"},
		{Path: "/api/*", Service: "api", Methods: []string{"get", "post"}},
		{Path: "/api/users/*", Service: "canary", Headers: map[string]string{"x-canary": "1"}, Methods: []string{"GET"}},
		{Path: "/api/*", Service: "shop", Host: "Shop.Example.com"},
		{Path: "/*", Service: "wild", Host: "*.example.com"},
		{Path: "/*", Service: "deep", Host: "*.eu.example.com"},
		{Path: "/upload", Service: "upload", Methods: []string{"PUT"}},
		{Path: "/dir/", Service: "dir"},
		{Path: "/caf%C3%A9/*", Service: "cafe"},
	}
	tests := []struct {
		host, method, path string
		header             http.Header
		want               string
		allow              []string
	}{
		{path: "/api/users", want: "users"},
		{path: "/api/users/", want: "users"},
		{path: "/api/users/7/orders", want: "users"},
		{path: "/api/usersX", want: "api"},
		{path: "/api/users/me", want: "me"},
		{path: "/api/users/me/", want: "users"},
		{path: "/api", want: "api"},
		{path: "/apis", want: ""},
		{path: "/", want: ""},
		{path: "/API/users", want: ""},
		{path: "/café/x", want: "cafe"},
		{path: "/dir/", want: "dir"},
		{path: "/dir", want: ""},
		{path: "/api/x", method: "HEAD", want: "api"}, // GET allows it
		{path: "/api/x", method: "DELETE", allow: []string{"GET", "HEAD", "POST"}},
		{path: "/api/users/7", method: "DELETE", want: "users"},
		{path: "/upload", method: "GET", allow: []string{"PUT"}},
		{path: "/upload", method: "HEAD", allow: []string{"PUT"}},
		{path: "/api/users/7", method: "OPTIONS", allow: []string{"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"}},
		{path: "/api/users/7", header: http.Header{"X-Canary": {"1"}}, want: "canary"},
		{path: "/api/users/7", header: http.Header{"X-Canary": {"2"}}, want: "users"},
		{path: "/api/users/7", header: http.Header{"X-Canary": {"1", "1"}}, want: "users"},
		{path: "/api/users/7", method: "POST", header: http.Header{"X-Canary": {"1"}}, want: "users"},
		{host: "shop.example.com", path: "/api/users/7", want: "shop"},
		{host: "shop.example.com", path: "/other", want: "wild"},
		{host: "a.eu.example.com", path: "/api/users/7", want: "deep"},
		{host: "example.com", path: "/api/users/7", want: "users"},
		{host: "notexample.com", path: "/x", want: ""},
	}
	m := newMatcher(compileAll(t, routes))
	for _, tt := range tests {
		got, allow := m.match(tt.host, cmp.Or(tt.method, "GET"), tt.path, tt.header)
		name := ""
		if got != nil {
			name = got.Service
		}
		if name != tt.want || !slices.Equal(allow, tt.allow) {
			t.Errorf("%s %s%s %v: got %q %v, want %q %v", tt.method, tt.host, tt.path, tt.header, name, allow, tt.want, tt.allow)
		}
	}
}

// naive is the package comment's rule, word by word.
func naive(routes []*route, host, method, path string, h Header) (*route, []string) {
	candidates := slices.DeleteFunc(slices.Clone(routes), func(r *route) bool {
		onHost := r.host == "" || !r.wildHost && r.host == host || r.wildHost && strings.HasSuffix(host, r.host) && host != r.host
		onPath := path == r.literal || r.prefix && strings.HasPrefix(path, r.literal+"/")
		if !r.prefix {
			onPath = path == r.literal
		}
		return !onHost || !onPath || !r.matchesHeaders(h)
	})
	rank := func(r *route) []int {
		host := 0
		switch {
		case r.host != "" && !r.wildHost:
			host = 1 << 20
		case r.wildHost:
			host = len(r.host)
		}
		exact := 0
		if !r.prefix {
			exact = 1
		}
		return []int{-host, -exact, -len(r.literal)}
	}
	slices.SortStableFunc(candidates, func(a, b *route) int {
		return cmp.Or(slices.Compare(rank(a), rank(b)), cmp.Compare(len(b.headers), len(a.headers)), cmp.Compare(a.order, b.order))
	})
	var allow []string
	for _, r := range candidates {
		if slices.Compare(rank(r), rank(candidates[0])) != 0 {
			break
		}
		if r.allows(method) {
			return r, nil
		}
		for _, m := range append(DefaultMethods(), "OPTIONS") {
			if r.allows(m) {
				allow = append(allow, m)
			}
		}
	}
	slices.Sort(allow)
	return nil, slices.Compact(allow)
}

func TestMatchEqualsNaive(t *testing.T) {
	t.Parallel()
	segments := rapid.SampledFrom([]string{"a", "b", "ab", "é"})
	literal := rapid.Map(rapid.SliceOfN(segments, 0, 3), func(s []string) string {
		if len(s) == 0 {
			return ""
		}
		return "/" + strings.Join(s, "/")
	})
	hosts := rapid.SampledFrom([]string{"", "x.org", "*.x.org", "*.y.x.org", "y.x.org"})
	methods := rapid.SampledFrom([][]string{nil, {"GET"}, {"POST"}, {"GET", "PUT"}})
	rapid.Check(t, func(t *rapid.T) {
		var routes []Route
		for range rapid.IntRange(0, 12).Draw(t, "routes") {
			path := literal.Draw(t, "path")
			if rapid.Bool().Draw(t, "prefix") {
				path += "/*"
			} else if rapid.Bool().Draw(t, "slash") || path == "" {
				path += "/"
			}
			r := Route{Path: path, Service: "s", Host: hosts.Draw(t, "host"), Methods: methods.Draw(t, "methods"), Headers: map[string]string{}}
			for _, name := range []string{"A", "B"} {
				if rapid.IntRange(0, 2).Draw(t, name) == 0 {
					r.Headers[name] = "1"
				}
			}
			routes = append(routes, r)
		}
		compiled := compileAll(t, routes)
		m := newMatcher(compiled)
		for range 8 {
			path := literal.Draw(t, "request path")
			if path == "" || rapid.Bool().Draw(t, "request slash") {
				path += "/"
			}
			host := rapid.SampledFrom([]string{"", "x.org", "y.x.org", "z.y.x.org", "other"}).Draw(t, "request host")
			method := rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "DELETE"}).Draw(t, "request method")
			h := http.Header{}
			for _, name := range []string{"A", "B"} {
				if rapid.Bool().Draw(t, "has "+name) {
					h.Set(name, "1")
				}
			}
			got, gotAllow := m.match(host, method, path, h)
			want, wantAllow := naive(compiled, host, method, path, h)
			if got != want || !slices.Equal(gotAllow, wantAllow) {
				t.Fatalf("%s %s%s %v: got %+v %v, want %+v %v", method, host, path, h, got, gotAllow, want, wantAllow)
			}
		}
	})
}

func FuzzMatch(f *testing.F) {
	routes := []Route{
		{Path: "/api/users/*", Service: "users"}, {Path: "/api/*", Service: "api"}, {Path: "/a", Service: "a"},
		{Path: "/*", Service: "root", Host: "*.x.org"}, {Path: "/a/", Service: "slash", Methods: []string{"GET"}},
	}
	var compiled []*route
	for i, r := range routes {
		compiled = append(compiled, compile(r, i, func(string, string, ...any) { f.Fatal("bad route") }))
	}
	m := newMatcher(compiled)
	f.Add("", "GET", "/api/users/7")
	f.Add("y.x.org", "POST", "/a/")
	f.Fuzz(func(t *testing.T, host, method, path string) {
		if _, err := parsePath(path); err != nil || checkPath(path) != nil {
			return
		}
		host = hostOf(host)
		got, gotAllow := m.match(host, method, path, http.Header{})
		want, wantAllow := naive(compiled, host, method, path, http.Header{})
		if got != want || !slices.Equal(gotAllow, wantAllow) {
			t.Fatalf("%q %q %q: got %v %v, want %v %v", method, host, path, got, gotAllow, want, wantAllow)
		}
	})
}

func TestDefaultsOfRoute(t *testing.T) {
	t.Parallel()
	r := compileAll(t, []Route{{Path: "/x", Service: "s"}})[0]
	want := []string{"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"}
	if diff := gocmp.Diff(r.Methods, want); diff != "" || r.Timeout != DefaultTimeout {
		t.Error(diff, r.Timeout)
	}
}
