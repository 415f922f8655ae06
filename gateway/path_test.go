package gateway

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want string
		err  error
	}{
		{"/", "/", nil},
		{"/api/users/7", "/api/users/7", nil},
		{"/api/users/", "/api/users/", nil},
		{"/caf%C3%A9", "/café", nil},
		{"/%61pi", "/api", nil},
		{"/100%25", "/100%", nil},
		{"/a%3Fb%23c", "/a?b#c", nil},
		{"/a.b/..c/d../...", "/a.b/..c/d../...", nil},
		{"/.well-known/x", "/.well-known/x", nil},
		{"/a;v=1/b", "/a;v=1/b", nil},
		{"/%252e%252e/x", "/%2e%2e/x", nil}, // decoded once it is only a name
		{"", "", errPathForm},
		{"*", "", errPathForm},
		{"api", "", errPathForm},
		{"%2Fapi", "", errPathForm},
		{"//api", "", errPathEmpty},
		{"/api//users", "", errPathEmpty},
		{"/api//", "", errPathEmpty},
		{"/.", "", errPathDots},
		{"/..", "", errPathDots},
		{"/api/../admin", "", errPathDots},
		{"/api/./x", "", errPathDots},
		{"/api/%2e%2e/admin", "", errPathDots},
		{"/api/%2E%2e/admin", "", errPathDots},
		{"/api/.%2e", "", errPathDots},
		{"/api/..;/admin", "", errPathDots},
		{"/api/..%3bx/admin", "", errPathDots},
		{"/api/.;x", "", errPathDots},
		{"/api%2Fadmin", "", errPathSlash},
		{"/api%2fadmin", "", errPathSlash},
		{"/api/..%2fadmin", "", errPathSlash},
		{`/api\admin`, "", errPathSlash},
		{"/api%5cadmin", "", errPathSlash},
		{"/api/%00", "", errPathForbidden},
		{"/api/%0d%0aX:1", "", errPathForbidden},
		{"/api/%7f", "", errPathForbidden},
		{"/%", "", errPathEscape},
		{"/%4", "", errPathEscape},
		{"/%zz", "", errPathEscape},
		{"/" + strings.Repeat("a", maxPath), "", errPathLong},
	}
	for _, tt := range tests {
		got, err := parsePath(tt.in)
		if err != tt.err || err == nil && got != tt.want {
			t.Errorf("parsePath(%q) = %q, %v; want %q, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestTrimEscaped(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{
		{"/api/users/7", 4, "/users/7"},
		{"/%61p%69/users/%37", 4, "/users/%37"},
		{"/api", 4, "/"},
		{"/api/", 4, "/"},
		{"/caf%C3%A9/x%20y", len("/café"), "/x%20y"},
		{"/x", 0, "/x"},
	} {
		if got := trimEscaped(tt.in, tt.n); got != tt.want {
			t.Errorf("trimEscaped(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}

// What is accepted is what net/url reads, means the same after cleaning, and
// stays the same when a prefix is trimmed before or after decoding.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/api/users", "/a%2e/..", "/%61/b", "/a;b/..;c", "//", "/a/", "/%5c", "/a%25b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		got, err := parsePath(escaped)
		if err != nil {
			return
		}
		if plain, err := url.PathUnescape(escaped); err != nil || plain != got {
			t.Fatalf("parsePath(%q) = %q, net/url says %q, %v", escaped, got, plain, err)
		}
		clean := path.Clean(got)
		if strings.HasSuffix(got, "/") && got != "/" {
			clean += "/"
		}
		if clean != got {
			t.Fatalf("parsePath(%q) = %q, which cleans to %q", escaped, got, clean)
		}
		if strings.Count(got, "/") != strings.Count(escaped, "/") {
			t.Fatalf("parsePath(%q) = %q has other slashes", escaped, got)
		}
		for i := range len(got) {
			if got[i] != '/' || i == 0 {
				continue
			}
			rest, err := url.PathUnescape(trimEscaped(escaped, i))
			if err != nil || rest != got[i:] {
				t.Fatalf("trimEscaped(%q, %d) decodes to %q, %v; want %q", escaped, i, rest, err, got[i:])
			}
		}
	})
}
