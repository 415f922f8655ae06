package inprocess_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzConform sends one request both ways: what gets through over a connection gets
// through here, and the handler sees the same.
func FuzzConform(f *testing.F) {
	f.Add("GET", "/users/7?a=b", "", "users", "Accept", "a/b", "")
	f.Add("POST", "//a%2fb/../c d?x y", "/raw%2F", "users:80", "x-lower", "  v ", "body")
	f.Add("get", "*", "/%zz", "[::1%25en0]:8", "Connection", "close", "")
	f.Add("", "", "", "a b", "Transfer-Encoding", "chunked", "x")
	requests := make(chan asked, 1)
	handler := func(_ http.ResponseWriter, r *http.Request) { requests <- observe(r) }
	rts := []http.RoundTripper{ways[0].start(f, handler), ways[1].start(f, handler)}
	f.Fuzz(func(t *testing.T, method, path, raw, host, name, value, body string) {
		if !forBoth(method, host, name) {
			return
		}
		var seen [2]asked
		var failed [2]error
		for i, rt := range rts {
			req := &http.Request{Method: method, Host: host, Header: http.Header{name: {value}}, URL: &url.URL{Scheme: "http", Host: "users"}}
			req.URL.Path, req.URL.RawQuery, _ = strings.Cut(path, "?")
			req.URL.RawPath = raw
			if body != "" {
				req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			resp, err := rt.RoundTrip(req.WithContext(ctx))
			cancel()
			if i == 1 && errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("no answer")
			}
			if err == nil && resp.StatusCode == http.StatusOK {
				resp.Body.Close()
				select {
				case seen[i] = <-requests:
				default: // the server has answered by itself
				}
				continue
			}
			if err == nil {
				resp.Body.Close()
				err = http.ErrNotSupported // by the server, with a 4xx
			}
			failed[i] = err
		}
		if (failed[0] == nil) != (failed[1] == nil) {
			t.Fatalf("one of them fails: over a connection %v, here %v", failed[0], failed[1])
		}
		if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
			t.Fatalf("-connection +here\n%s", diff)
		}
	})
}

// forBoth reports whether there is something to compare.
func forBoth(method, host, name string) bool {
	switch canonical := http.CanonicalHeaderKey(name); canonical {
	case "Upgrade", "Expect":
		return false
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "User-Agent":
		if name != canonical { // net/http sends these, with what it says itself
			return false
		}
	}
	for i := range len(host) {
		if host[i] >= 0x80 || host[i] == '%' { // made ASCII, and less its zone, for a connection alone
			return false
		}
	}
	return method != http.MethodConnect
}
