package registry

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keelson-go/keelson/health"
)

// ErrInvalid matches every [FieldError].
var ErrInvalid = errors.New("registry: invalid instance")

// FieldError is a field of an instance that can't be accepted. It matches
// [ErrInvalid].
type FieldError struct {
	Field   string // the JSON name, such as "address"
	Problem string // what is wrong with it
	Fix     string // what to give instead
}

// Error names the field, what is wrong and the fix.
func (e *FieldError) Error() string {
	return fmt.Sprintf("registry: %s %s: %s", e.Field, e.Problem, e.Fix)
}

// Is reports whether target is [ErrInvalid].
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

// ValidName reports whether s can be a service's name.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !idRune(r) }) < 0
}

func idRune(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' }

// SanitizeID lower-cases s and replaces every character that may not stand in
// an instance's id by '-'.
func SanitizeID(s string) string {
	return strings.Map(func(r rune) rune {
		if r = unicode.ToLower(r); idRune(r) {
			return r
		}
		return '-'
	}, s)
}

// Normalize checks i and fills in what can be derived: the absolute URLs, the
// port, the id, and [health.Healthy] where no status is given. The error is a
// [*FieldError]; i is then unchanged.
func (i *Instance) Normalize() error {
	n := *i
	if !ValidName(n.Name) {
		return &FieldError{"name", "is not a service name",
			"use 1 to 63 lower-case letters, digits and '-', beginning with a letter or digit"}
	}
	base, err := n.baseURL()
	if err != nil {
		return err
	}
	if n.Address = base.String(); len(n.Address) > MaxAddressLength {
		return &FieldError{"address", "is too long", fmt.Sprintf("use at most %d characters", MaxAddressLength)}
	}
	n.Port, _ = strconv.Atoi(base.Port())
	if n.Health, err = healthURL(n.Health, base); err != nil {
		return err
	}
	if n.ID == "" {
		n.ID = n.Name + "-" + base.Hostname() + "-" + base.Port()
	}
	if n.ID = SanitizeID(n.ID); len(n.ID) > MaxIDLength {
		return &FieldError{"id", "is too long", fmt.Sprintf("give one of at most %d characters", MaxIDLength)}
	}
	if n.Status == "" {
		n.Status = health.Healthy
	}
	if !knownStatus(n.Status) || n.Announced != "" && !knownStatus(n.Announced) {
		return &FieldError{"status", "is unknown", "use starting, healthy, degraded, unhealthy or draining"}
	}
	if err := n.checkText(); err != nil {
		return err
	}
	n.Tags = uniqueTags(n.Tags)
	if n.Metadata == nil {
		n.Metadata = map[string]string{}
	}
	*i = n
	return nil
}

func knownStatus(s Status) bool {
	switch s {
	case health.Starting, health.Healthy, health.Degraded, health.Unhealthy, health.Draining:
		return true
	}
	return false
}

// uniqueTags returns a fresh, never nil slice: lists are arrays in JSON.
func uniqueTags(tags []string) []string {
	unique := make([]string, 0, len(tags))
	for _, t := range tags {
		if !slices.Contains(unique, t) {
			unique = append(unique, t)
		}
	}
	return unique
}

// baseURL reads the address, which may be an absolute URL or a bare host that
// the port field completes.
func (i *Instance) baseURL() (*url.URL, error) {
	const fix = "give an absolute URL such as http://10.0.0.7:3001, or a host together with port"
	bad := func(problem string) error { return &FieldError{"address", problem, fix} }
	if i.Port < 0 || i.Port > 65535 {
		return nil, &FieldError{"port", "is out of range", "use 1 to 65535"}
	}
	if i.Address == "" {
		return nil, bad("is missing")
	}
	if len(i.Address) > MaxAddressLength {
		return nil, bad("is too long")
	}
	if !strings.Contains(i.Address, "://") {
		return hostURL(i.Address, i.Port)
	}
	u, err := url.Parse(i.Address)
	switch {
	case err != nil:
		return nil, bad("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, bad("has a scheme other than http and https")
	case u.User != nil:
		return nil, bad("carries a user or password")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, bad("has more than scheme, host and port")
	case !validHost(u.Hostname()):
		return nil, bad("has no valid host")
	}
	port := u.Port()
	if port == "" {
		if port = map[string]string{"http": "80", "https": "443"}[u.Scheme]; i.Port != 0 {
			port = strconv.Itoa(i.Port)
		}
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return nil, bad("has a port out of range")
	}
	if i.Port != 0 && i.Port != n {
		return nil, &FieldError{"port", "differs from the port in address", "give it once"}
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), strconv.Itoa(n))}, nil
}

func hostURL(host string, port int) (*url.URL, error) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, err := strconv.Atoi(p)
		if err != nil {
			return nil, &FieldError{"address", "has a port that is no number", "give a host name, an IP address or an absolute URL"}
		}
		if port != 0 && n != port {
			return nil, &FieldError{"port", "differs from the port in address", "give it once"}
		}
		host, port = h, n
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if !validHost(host) {
		return nil, &FieldError{"address", "is not a host", "give a host name, an IP address or an absolute URL"}
	}
	if port < 1 || port > 65535 {
		return nil, &FieldError{"port", "is missing or out of range", "use 1 to 65535, or give address as an absolute URL"}
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(port))}, nil
}

// validHost accepts IP addresses (with a zone) and DNS names; '_' too, which
// container networks use.
func validHost(h string) bool {
	if ip, err := netip.ParseAddr(h); err == nil {
		return strings.IndexFunc(ip.Zone(), notHostRune) < 0
	}
	return len(h) <= 253 && strings.Trim(h, ".") != "" && strings.IndexFunc(h, notHostRune) < 0
}

func notHostRune(r rune) bool {
	return !idRune(r) && (r < 'A' || r > 'Z') && r != '.' && r != '_'
}

// checkTarget refuses literal addresses that are no single instance's, or that
// are different ones to different callers: whoever registers for others must not
// lead the registry's nodes astray. A name is another matter: what it resolves
// to is known only at the time of a call.
func (i *Instance) checkTarget() error {
	const fix = "give the address at which the other services reach it"
	u, err := url.Parse(i.Address)
	if err != nil { // Normalize has made it
		return &FieldError{"address", "is not a URL", fix}
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		if endsInNumber(u.Hostname()) {
			return &FieldError{"address", "has a number for a host that is no plain IP address",
				"write an IPv4 address as four decimal numbers without leading zeros"}
		}
		return nil
	}
	if ip.Zone() != "" {
		return &FieldError{"address", "has a zone, which means something else on each machine", fix}
	}
	for _, ip := range [...]netip.Addr{ip, embeddedIPv4(ip)} {
		switch {
		case ip.IsUnspecified(), thisNetwork.Contains(ip):
			return &FieldError{"address", "is the unspecified address, at which only a listener can be", fix}
		case ip.IsLinkLocalUnicast():
			return &FieldError{"address", "is a link-local address, where machines keep services of their own", fix}
		case slices.Contains(metadataServices, ip):
			return &FieldError{"address", "is where a cloud tells its machines their secrets", fix}
		case ip.IsMulticast(), reserved.Contains(ip):
			return &FieldError{"address", "is a multicast, broadcast or reserved address", fix}
		}
	}
	return nil
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4") // the broadcast address too

	// embedding are the IPv6 addresses that stand for an IPv4 one, with where in
	// them its four bytes are.
	embedding = map[netip.Prefix]int{
		netip.MustParsePrefix("::/96"):        12, // IPv4-compatible (RFC 4291)
		netip.MustParsePrefix("64:ff9b::/96"): 12, // translated (RFC 6052)
		netip.MustParsePrefix("2002::/16"):    2,  // 6to4 (RFC 3056)
	}
)

// embeddedIPv4 returns the IPv4 address that an IPv6 one stands for, or ip itself.
func embeddedIPv4(ip netip.Addr) netip.Addr {
	if ip = ip.Unmap(); ip.IsLoopback() {
		return ip
	}
	for prefix, at := range embedding {
		if prefix.Contains(ip) {
			b := ip.As16()
			return netip.AddrFrom4([4]byte(b[at : at+4]))
		}
	}
	return ip
}

// endsInNumber reports whether a host looks like an IPv4 address to some: its
// last label is a decimal or hexadecimal number (https://url.spec.whatwg.org/#ends-in-a-number-checker).
// C libraries take 2852039166, 0x7f.1 and 010.0.0.1 for addresses, Go doesn't.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := strings.ToLower(host[strings.LastIndexByte(host, '.')+1:])
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// healthURL resolves the health URL against the address. It must be on the
// same host: a registration may not make registry nodes call anybody else.
func healthURL(s string, base *url.URL) (string, error) {
	if s == "" {
		return "", nil
	}
	bad := func(problem string) error {
		return &FieldError{"health", problem, "give a path such as /health, or a URL on the host of address"}
	}
	if len(s) > MaxAddressLength {
		return "", bad("is too long")
	}
	ref, err := url.Parse(s)
	if err != nil {
		return "", bad("is not a URL")
	}
	u := base.ResolveReference(ref)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", bad("has a scheme other than http and https")
	case u.User != nil:
		return "", bad("carries a user or password")
	case !strings.EqualFold(u.Hostname(), base.Hostname()):
		return "", bad("is on another host than address")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return "", bad("has a port out of range")
		}
	}
	u.Fragment, u.RawFragment = "", ""
	if s = u.String(); len(s) > MaxAddressLength {
		return "", bad("is too long")
	}
	return s, nil
}

func (i *Instance) checkText() error {
	text := func(field, s string, limit int) error {
		if len(s) > limit {
			return &FieldError{field, "is too long", fmt.Sprintf("use at most %d bytes", limit)}
		}
		if !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0 {
			return &FieldError{field, "has control characters", "use printable UTF-8 text"}
		}
		return nil
	}
	if len(i.Tags) > MaxTags {
		return &FieldError{"tags", "are too many", fmt.Sprintf("use at most %d", MaxTags)}
	}
	if len(i.Metadata) > MaxMetadata {
		return &FieldError{"metadata", "has too many entries", fmt.Sprintf("use at most %d", MaxMetadata)}
	}
	errs := []error{text("version", i.Version, MaxTextLength), text("zone", i.Zone, MaxTextLength)}
	for _, t := range i.Tags {
		if t == "" {
			return &FieldError{"tags", "has an empty tag", "leave it out"}
		}
		errs = append(errs, text("tags", t, MaxTextLength))
	}
	for _, k := range slices.Sorted(maps.Keys(i.Metadata)) {
		errs = append(errs, text("metadata", k, MaxTextLength), text("metadata", i.Metadata[k], MaxMetadataValue))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
