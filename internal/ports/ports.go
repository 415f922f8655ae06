// Package ports finds out who holds a TCP port, so that "address in use" can
// name the program to stop.
package ports

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Holder is a process that listens on a port.
type Holder struct {
	PID     int
	Command string // the program's name, as far as it can be read
}

// String returns "nginx (pid 42)".
func (h Holder) String() string {
	if h.Command == "" {
		return fmt.Sprintf("pid %d", h.PID)
	}
	return fmt.Sprintf("%s (pid %d)", h.Command, h.PID)
}

// Free reports whether addr (host:port) can be listened on now. Somebody may
// take it right after; it is for telling early, not for making sure.
func Free(ctx context.Context, addr string) (bool, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ports: try %s: %w", addr, err)
	}
	return true, l.Close()
}

// Find returns the process that stands in the way of listening on addr (an IP
// address and a port), if this system tells: Linux does, for the caller's own
// processes, and for all if the caller is root.
func Find(addr string) (Holder, bool) {
	tcp, err := netip.ParseAddrPort(addr)
	if err != nil {
		return Holder{}, false
	}
	return find(tcp)
}
