package gateway

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func inProxies(a netip.Addr) bool { return contains(proxies, a) }

func TestClientAddr(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name           string
		peer           string
		xff, forwarded []string
		want           string // "" is unknown
		err            error
	}{
		{name: "no headers", peer: "10.0.0.1", want: "10.0.0.1"},
		{name: "one hop", peer: "10.0.0.1", xff: []string{"203.0.113.9"}, want: "203.0.113.9"},
		{name: "spoofed left part", peer: "10.0.0.1", xff: []string{"1.2.3.4, 203.0.113.9"}, want: "203.0.113.9"},
		{name: "spoofed first line", peer: "10.0.0.1", xff: []string{"1.2.3.4", "203.0.113.9"}, want: "203.0.113.9"},
		{name: "two proxies", peer: "10.0.0.1", xff: []string{"1.2.3.4, 203.0.113.9, 10.0.0.2"}, want: "203.0.113.9"},
		{name: "all trusted", peer: "10.0.0.1", xff: []string{"10.0.0.3, 10.0.0.2"}, want: "10.0.0.3"},
		{name: "ports", peer: "10.0.0.1", xff: []string{"203.0.113.9:4711"}, want: "203.0.113.9"},
		{name: "IPv6", peer: "fd00::1", xff: []string{"2001:db8::7"}, want: "2001:db8::7"},
		{name: "IPv6 with port", peer: "fd00::1", xff: []string{"[2001:db8::7]:80"}, want: "2001:db8::7"},
		{name: "mapped", peer: "10.0.0.1", xff: []string{"::ffff:203.0.113.9"}, want: "203.0.113.9"},
		{name: "zone", peer: "10.0.0.1", xff: []string{"fe80::1%eth0"}, want: ""},
		{name: "unknown", peer: "10.0.0.1", xff: []string{"203.0.113.9, unknown"}, want: ""},
		{name: "garbage", peer: "10.0.0.1", xff: []string{"203.0.113.9, <script>"}, want: ""},
		{name: "garbage that does not matter", peer: "10.0.0.1", xff: []string{"<script>, 203.0.113.9"}, want: "203.0.113.9"},
		{name: "empty elements", peer: "10.0.0.1", xff: []string{" , 203.0.113.9 ,, "}, want: "203.0.113.9"},
		{name: "too many", peer: "10.0.0.1", xff: []string{strings.Repeat("10.0.0.2,", 40)}, err: errTooManyHops},
		{name: "forwarded", peer: "10.0.0.1", forwarded: []string{`for=1.2.3.4, For=203.0.113.9;proto=https;by=10.0.0.1`}, want: "203.0.113.9"},
		{name: "forwarded IPv6", peer: "10.0.0.1", forwarded: []string{`for="[2001:db8::7]:4711"`}, want: "2001:db8::7"},
		{name: "forwarded, quotes forgotten", peer: "10.0.0.1", forwarded: []string{`for=203.0.113.9:80`}, want: "203.0.113.9"},
		{name: "forwarded, quoted pair", peer: "10.0.0.1", forwarded: []string{`for="203.0.113\.9"`}, want: "203.0.113.9"},
		{name: "forwarded, comma in quotes", peer: "10.0.0.1", forwarded: []string{`for=203.0.113.9;host="a,for=1.2.3.4"`}, want: "203.0.113.9"},
		{name: "forwarded hidden", peer: "10.0.0.1", forwarded: []string{`for=203.0.113.9, for=_gateway`}, want: ""},
		{name: "forwarded without for", peer: "10.0.0.1", forwarded: []string{`for=203.0.113.9, proto=http`}, want: ""},
		{name: "forwarded open quote", peer: "10.0.0.1", forwarded: []string{`for="203.0.113.9`}, err: errForwarded},
		{name: "forwarded twice for", peer: "10.0.0.1", forwarded: []string{`for=203.0.113.9;for=1.2.3.4`}, err: errForwarded},
		{name: "forwarded no pair", peer: "10.0.0.1", forwarded: []string{`203.0.113.9`}, err: errForwarded},
		{name: "forwarded too many", peer: "10.0.0.1", forwarded: []string{strings.Repeat("for=10.0.0.2,", 40)}, err: errTooManyHops},
		{name: "both agree", peer: "10.0.0.1", xff: []string{"203.0.113.9"}, forwarded: []string{"for=203.0.113.9"}, want: "203.0.113.9"},
		{name: "both disagree", peer: "10.0.0.1", xff: []string{"203.0.113.9"}, forwarded: []string{"for=10.9.9.9"}, err: errForwardedConflict},
	}
	for _, tt := range tests {
		got, err := clientAddr(netip.MustParseAddr(tt.peer), tt.xff, tt.forwarded, inProxies)
		if err != tt.err {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
			continue
		}
		want := netip.Addr{}
		if tt.want != "" {
			want = netip.MustParseAddr(tt.want)
		}
		if err == nil && got != want {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

// Whatever a client sends to a trusted proxy that appends its address, the
// client stays that address, or the request is refused.
func FuzzForwarded(f *testing.F) {
	f.Add("1.2.3.4", "for=1.2.3.4")
	f.Add(`"`, `for="`)
	f.Add("unknown,,", `for="[::1]:_x";a=b;;,`)
	f.Fuzz(func(t *testing.T, xff, forwarded string) {
		client, proxy := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("10.0.0.1")
		got, err := clientAddr(proxy, []string{xff + ", 203.0.113.9"}, nil, inProxies)
		if err != nil || got != client {
			t.Fatalf("X-Forwarded-For %q: %v, %v", xff, got, err)
		}
		got, err = clientAddr(proxy, []string{xff, "203.0.113.9:1"}, nil, inProxies)
		if err != nil || got != client {
			t.Fatalf("X-Forwarded-For %q on its own line: %v, %v", xff, got, err)
		}
		got, err = clientAddr(proxy, nil, []string{forwarded, "for=203.0.113.9"}, inProxies)
		if err == nil && got != client {
			t.Fatalf("Forwarded %q: %v", forwarded, got)
		}
		// The other header is the client's own.
		got, err = clientAddr(proxy, []string{"203.0.113.9"}, []string{forwarded}, inProxies)
		if err == nil && got != client {
			t.Fatalf("Forwarded %q beside X-Forwarded-For: %v", forwarded, got)
		}
		if nodes, err := parseForwarded([]string{forwarded}); err == nil && len(nodes) > maxHops {
			t.Fatalf("%d hops", len(nodes))
		}
	})
}

func TestAppendForwardedIsRead(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"203.0.113.9", "2001:db8::7"} {
		peer := netip.MustParseAddr(addr)
		line := string(appendForwarded(nil, peer, "example.com:80", "https"))
		nodes, err := parseForwarded([]string{line})
		if err != nil || len(nodes) != 1 || parseNode(nodes[0]) != peer {
			t.Errorf("%s reads as %q, %v", line, nodes, err)
		}
	}
	if got := string(appendForwarded(nil, netip.Addr{}, "", "http")); got != "for=unknown;proto=http" {
		t.Error(got)
	}
}

func TestForwards(t *testing.T) {
	t.Parallel()
	never := []string{
		"X-Auth-Subject", "x-auth-subject", "X_auth_subject", "X-Auth_subject", "X.Auth.Subject", "X-Auth-Scopes", "X_AUTH_SCOPES",
		"X-Request-Id", "X-Gateway-Request-Id", "X-Service-Name", "Forwarded", "X-Forwarded-For", "X_forwarded_for",
		"X-Forwarded-Host", "X-Forwarded-Proto", "Traceparent", "Tracestate", "Request-Timeout", "Grpc-Timeout", "X-Request-Priority", "X_request_priority", "X-Original-Url", "X-Rewrite-Url",
	}
	vouched := []string{"X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Baggage", "X-Forwarded-Port", "X-Forwarded-Client-Cert",
		"X-Forwarded-Something-That-Is-Longer-Than-The-Table"}
	always := []string{"Authorization", "Cookie", "Accept", "Content-Type", "X-Custom", "X_custom", "Idempotency-Key", "Range", "Te", "User-Agent", "Cache-Control", "X-Api-Key"}
	for _, trusted := range []bool{false, true} {
		r := &Request{Trusted: trusted}
		check := func(names []string, want bool) {
			for _, name := range names {
				if got := r.Forwards(name); got != want {
					t.Errorf("trusted %t: Forwards(%q) = %t", trusted, name, got)
				}
			}
		}
		check(never, false)
		check(vouched, trusted)
		check([]string{"X_real_ip", "X_Forwarded_Port"}, false)
		check(always, true)
	}
}

func TestRestorePrefix(t *testing.T) {
	t.Parallel()
	h := http.Header{
		"Location": {"/users/8"},
		"Link":     {`</users?after=8>; rel="next", <https://x.org/y>; rel="a<b", <?q=1>; rel=self`, `</api/users>; title="</x>"`},
	}
	restorePrefix(h, "/api")
	want := []string{`</api/users?after=8>; rel="next", <https://x.org/y>; rel="a<b", <?q=1>; rel=self`, `</api/users>; title="</x>"`}
	if h.Get("Location") != "/api/users/8" || !slices.Equal(h["Link"], want) {
		t.Errorf("%q", h)
	}
	for _, same := range []string{"//evil.org/x", "https://x.org/", "users/8", "/api/users/8", "/api", ""} {
		h := http.Header{"Location": {same}}
		if restorePrefix(h, "/api"); h.Get("Location") != same {
			t.Errorf("%q became %q", same, h.Get("Location"))
		}
	}
}
