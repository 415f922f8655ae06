package platform

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"syscall"

	"github.com/keelson-go/keelson/registry"
)

// onlyInstances keeps the gateway from addresses at which no instance can be,
// whatever a registered name leads to: above all from a cloud's metadata.
func onlyInstances(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !registry.CheckableAddress(ap.Addr()) {
		return fmt.Errorf("platform: %s is no address of an instance", address)
	}
	return nil
}

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
