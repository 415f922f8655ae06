package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// errNotCheckable says that a check would have gone where none may.
var errNotCheckable = errors.New("registry: no instance can be at this address")

// metadataServices are where clouds tell a machine its secrets, as far as these
// are not link-local.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure's wire server
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
}

// CheckableAddress reports whether a registry node may connect to ip to check an
// instance that others registered. It may not where a machine has services of its
// own, as those that give out a cloud's credentials, nor where no single instance
// can be: link-local, multicast, broadcast, unspecified and reserved addresses,
// and IPv6 ones that stand for such an IPv4 address. Loopback and private
// addresses are fine.
func CheckableAddress(ip netip.Addr) bool {
	return ip.IsValid() && checkable(ip) && checkable(embeddedIPv4(ip))
}

func checkable(ip netip.Addr) bool {
	ip = ip.WithZone("")
	return !ip.IsUnspecified() && !thisNetwork.Contains(ip) &&
		!ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !reserved.Contains(ip) &&
		!slices.Contains(metadataServices, ip)
}

// DialCheckable is a net.Dialer.ControlContext that refuses to connect to any
// address but a [CheckableAddress]. It sees addresses after they were resolved, so
// that no name can lead elsewhere.
func DialCheckable(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !CheckableAddress(ap.Addr()) {
		return fmt.Errorf("%w: %s", errNotCheckable, address)
	}
	return nil
}
