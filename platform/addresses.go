package platform

import (
	"net/netip"
	"net/url"
	"strings"
)

// elsewhere reports whether the engine at url, or one of several with commas
// between, is on another machine.
func elsewhere(engine string) bool {
	for one := range strings.SplitSeq(engine, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || engine == "" {
			continue
		}
		ip, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
			return true
		}
	}
	return false
}
