package gateway

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// maxHops is how many proxies a request may have come through.
const maxHops = 32

var (
	errForwarded         = errors.New("the Forwarded header is malformed")
	errTooManyHops       = errors.New("the forwarding headers name too many proxies")
	errForwardedConflict = errors.New("X-Forwarded-For and Forwarded name different clients")
)

// clientAddr returns the address a request is from: the right-most hop that is
// not trusted. It is invalid if a trusted proxy did not say it. xff and
// forwarded are the values of the two headers; they are only to be given if peer
// is trusted.
//
// A proxy usually writes one of the two and passes on the other as the client
// sent it. As nobody can tell which, both must lead to the same client.
func clientAddr(peer netip.Addr, xff, forwarded []string, trusted func(netip.Addr) bool) (netip.Addr, error) {
	nodes, err := parseForwarded(forwarded)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(nodes) == 0 {
		return clientFromXFF(peer, xff, trusted)
	}
	client := peer
	for _, node := range slices.Backward(nodes) {
		if !trusted(client) {
			break
		}
		client = parseNode(node)
	}
	if strings.Trim(strings.Join(xff, ""), " \t,") == "" {
		return client, nil
	}
	other, err := clientFromXFF(peer, xff, trusted)
	if err == nil && other != client {
		err = errForwardedConflict
	}
	return client, err
}

// clientFromXFF walks X-Forwarded-For from the right, and no further than it must.
func clientFromXFF(peer netip.Addr, values []string, trusted func(netip.Addr) bool) (netip.Addr, error) {
	client, hops := peer, 0
	for _, rest := range slices.Backward(values) {
		for more := true; more; {
			if !trusted(client) {
				return client, nil
			}
			var element string
			if i := strings.LastIndexByte(rest, ','); i >= 0 {
				rest, element = rest[:i], rest[i+1:]
			} else {
				element, more = rest, false
			}
			if element = strings.Trim(element, " \t"); element == "" {
				continue // an empty list element means nothing (RFC 9110, section 5.6.1)
			}
			if hops++; hops > maxHops {
				return netip.Addr{}, errTooManyHops
			}
			client = parseNode(element)
		}
	}
	return client, nil
}

// parseNode reads a node (RFC 7239, section 6), or an address as it is written
// in X-Forwarded-For: with or without a port, IPv6 with or without brackets. The
// result is invalid for "unknown", for a hidden name like "_proxy1", and for
// whatever else is not an address.
func parseNode(s string) netip.Addr {
	host := s
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 || !validNodePort(s[end+1:]) {
			return netip.Addr{}
		}
		if host = s[1:end]; !strings.Contains(host, ":") {
			return netip.Addr{}
		}
	case strings.Count(s, ":") == 1:
		i := strings.IndexByte(s, ':')
		if host = s[:i]; !validNodePort(s[i:]) {
			return netip.Addr{}
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// validNodePort reports whether s is nothing, a port, or a hidden port (":_x").
func validNodePort(s string) bool {
	if s == "" {
		return true
	}
	if len(s) < 2 || s[0] != ':' {
		return false
	}
	if s[1] == '_' {
		return isToken(s[1:])
	}
	return len(s) <= 6 && strings.Trim(s[1:], "0123456789") == ""
}

// parseForwarded reads the "for" of every element of Forwarded (RFC 7239,
// section 4), "" where an element has none.
func parseForwarded(values []string) ([]string, error) {
	var nodes []string
	for _, s := range values {
		for {
			node, pairs := "", 0
			for {
				s = strings.TrimLeft(s, " \t")
				if s == "" || s[0] == ',' {
					break
				}
				if s[0] == ';' {
					s = s[1:] // an empty pair
					continue
				}
				name, value, rest, ok := forwardedPair(s)
				if !ok {
					return nil, errForwarded
				}
				if pairs++; strings.EqualFold(name, "for") {
					if node != "" {
						return nil, errForwarded // at most once (section 4)
					}
					node = value
				}
				s = strings.TrimLeft(rest, " \t")
				if s != "" && s[0] != ';' && s[0] != ',' {
					return nil, errForwarded
				}
			}
			if pairs > 0 {
				if len(nodes) == maxHops {
					return nil, errTooManyHops
				}
				nodes = append(nodes, node)
			}
			if s == "" {
				break
			}
			s = s[1:]
		}
	}
	return nodes, nil
}

// forwardedPair reads token "=" ( token / quoted-string ).
func forwardedPair(s string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(s, "=")
	if !ok || !isToken(name) || rest == "" {
		return "", "", "", false
	}
	if rest[0] != '"' {
		end := strings.IndexAny(rest, ";, \t")
		if end < 0 {
			end = len(rest)
		}
		// More than a token is let through: many senders forget the quotes around
		// "192.0.2.1:80" and "[2001:db8::1]".
		return name, rest[:end], rest[end:], end > 0 && !strings.ContainsAny(rest[:end], `"\=`)
	}
	var b []byte
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; c {
		case '"':
			return name, string(b), rest[i+1:], true
		case '\\':
			if i++; i == len(rest) {
				return "", "", "", false
			}
			b = append(b, rest[i])
		default:
			b = append(b, c)
		}
	}
	return "", "", "", false
}

// appendForwarded appends one element of Forwarded: where the connection came
// from, the host asked for, and how.
func appendForwarded(b []byte, peer netip.Addr, host, proto string) []byte {
	b = append(b, "for="...)
	switch {
	case !peer.IsValid():
		b = append(b, "unknown"...)
	case peer.Is6():
		b = append(b, `"[`...)
		b = peer.AppendTo(b)
		b = append(b, `]"`...)
	default:
		b = peer.AppendTo(b)
	}
	if host != "" {
		b = append(b, `;host="`...)
		b = append(b, host...) // validAuthority: no quotes, no backslashes
		b = append(b, '"')
	}
	b = append(b, ";proto="...)
	return append(b, proto...)
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
