package manifest

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// The bad… functions return what is wrong with a value, as the end of a sentence about it, or "".

var (
	rxName     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	rxVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	rxHost     = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
	rxToken    = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.6.2
)

func isVariable(s string) bool { return rxVariable.MatchString(s) }
func isToken(s string) bool    { return rxToken.MatchString(s) }
func isControl(r rune) bool    { return r < 0x20 || r == 0x7f }

// isVisible reports whether s is an RFC 6749 scope-token.
func isVisible(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r > 0x7e || r == '"' || r == '\\' })
}

func badName(s string) string {
	if !rxName.MatchString(s) {
		return "is not a service's name"
	}
	return ""
}

func badHost(s string) string {
	if len(s) > 253 || !rxHost.MatchString(s) {
		return "is not a host name"
	}
	return ""
}

// parseListen returns the port of host:port, or what is wrong. An empty host means all addresses.
func parseListen(s string) (port int, why string) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return 0, "is not host:port"
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 || text != strconv.Itoa(port) {
		return 0, "has no port from 0 to 65535"
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && badHost(host) != "" {
		return 0, "has no valid host"
	}
	return port, ""
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err == nil && p.Addr().Is4In6() { // clients' addresses are compared in their IPv4 form
			if p.Bits() < 96 {
				return netip.Prefix{}, errNotAddress
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, errNotAddress
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

var errNotAddress = errors.New("not an address")

func badPath(s string) string {
	switch {
	case s[0] != '/':
		return "does not begin with /"
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`?#%{}\`, r) }):
		return `has a space or one of ? # % { } \`
	case strings.Contains(strings.TrimSuffix(s, "/*"), "*"):
		return "has a * elsewhere than as its last segment"
	}
	plain := strings.TrimSuffix(s, "*")
	if clean := path.Clean(plain); plain != clean && plain != clean+"/" {
		return "has an empty segment, . or .."
	}
	return ""
}

// badPrefix reports whether prefix is none of the route's path, up to a slash.
func badPrefix(prefix, routePath string) bool {
	if prefix == "" {
		return false
	}
	whole := strings.TrimSuffix(strings.TrimSuffix(routePath, "*"), "/")
	return prefix[0] != '/' || strings.HasSuffix(prefix, "/") || whole != prefix && !strings.HasPrefix(whole, prefix+"/")
}

func badOrigin(s string) string {
	if s == "*" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || s != u.Scheme+"://"+u.Host {
		return "is not an origin"
	}
	return ""
}

func badJWKS(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "is not an http(s) address"
	}
	if u.User != nil {
		return "has a user or password in it"
	}
	host := u.Hostname()
	ip, err := netip.ParseAddr(host)
	loopback := strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
	if u.Scheme == "http" && !loopback {
		return "is http, so that anybody on the way could swap the keys"
	}
	return ""
}

// badEngineURL checks a server's address or several with commas between them.
func badEngineURL(s string) string {
	for one := range strings.SplitSeq(s, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" {
			return "is not an address"
		}
		if u.Scheme != "nats" && u.Scheme != "tls" {
			return "is not a nats:// or tls:// address"
		}
		if u.User != nil {
			return "has a user or password in it, which belong into credentials"
		}
	}
	return ""
}
