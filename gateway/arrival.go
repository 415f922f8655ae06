package gateway

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/telemetry"
)

var errAuthority = errors.New("the host is not a valid one")

// arrive fills in what is known of a request before any policy. The error is a
// *problem.Problem of status 400.
func (r *Request) arrive(t *table) error {
	r.table = t
	r.Peer = r.Peer.Unmap().WithZone("")
	r.Trusted = t.trusted(r.Peer)
	r.identify()
	r.Scheme = "http"
	if r.TLS {
		r.Scheme = "https"
	}
	r.Client = r.Peer
	if !validAuthority(r.Authority) {
		return badRequest(errAuthority)
	}
	r.Host = hostOf(r.Authority)
	if r.Trusted {
		if s := r.Header.Get("X-Forwarded-Proto"); s == "http" || s == "https" {
			r.Scheme = s
		}
		var err error
		r.Client, err = clientAddr(r.Peer, r.Header.Values("X-Forwarded-For"), r.Header.Values("Forwarded"), t.trusted)
		if err != nil {
			return badRequest(err)
		}
	}
	var err error
	if r.Path, err = parsePath(r.Target); err != nil {
		return badRequest(err)
	}
	if left, ok := deadline.Caller(r.Header.Values); ok {
		r.Deadline = time.Now().Add(left)
	}
	return nil
}

// identify gives the request its ids and its trace.
func (r *Request) identify() {
	r.GatewayRequestID = newRequestID()
	r.RequestID = r.GatewayRequestID
	if id := r.Header.Get(headerRequestID); saneID(id) {
		r.RequestID = id
	}
	if r.Trusted {
		if parent := r.Header.Values(telemetry.HeaderTraceparent); len(parent) == 1 {
			if trace, ok := telemetry.ParseTraceparent(parent[0]); ok {
				trace.State, _ = telemetry.ParseTracestate(strings.Join(r.Header.Values(telemetry.HeaderTracestate), ","))
				r.Trace = trace.Child()
				return
			}
		}
	}
	r.Trace = telemetry.NewTrace()
}

func badRequest(reason error) error {
	text := reason.Error()
	return problem.New(http.StatusBadRequest, problem.CodeBadRequest, strings.ToUpper(text[:1])+text[1:]+".")
}

func newRequestID() string {
	var b [16]byte
	for i, n := 0, rand.Uint64(); i < 8; i, n = i+1, n>>8 {
		b[i] = byte(n)
	}
	for i, n := 8, rand.Uint64(); i < 16; i, n = i+1, n>>8 {
		b[i] = byte(n)
	}
	var text [32]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}

// saneID reports whether a client's request id may be used: it goes into logs
// and headers of others.
func saneID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_.:/+=@~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// validAuthority accepts what a host and a port can be made of, and the empty
// one of HTTP/1.0.
func validAuthority(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_.:[]", c) >= 0:
		default:
			return false
		}
	}
	return len(s) <= 255+len(":65535")
}

// hostOf returns the host of an authority, in lower case, without port,
// brackets and a last dot.
func hostOf(authority string) string {
	host := authority
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host[1:], "]")
	} else {
		host, _, _ = strings.Cut(host, ":")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// canonical returns a header's name in the form http.Header keys have.
func canonical(name string) string {
	switch name { // the two that are on every response, and would cost an allocation
	case ratelimit.HeaderLimit:
		return "Ratelimit"
	case ratelimit.HeaderPolicy:
		return "Ratelimit-Policy"
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}
