//go:build unix

package ports_test

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"

	"github.com/keelson-go/keelson/internal/ports"
)

func TestHold(t *testing.T) {
	t.Parallel()
	h, err := ports.Hold(0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(h.Port()))
	for _, other := range []string{addr, net.JoinHostPort("", strconv.Itoa(h.Port()))} {
		if l, err := net.Listen("tcp", other); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("another one listens on %s: %v, %v", other, l, err)
		}
	}
	if _, err := ports.Hold(h.Port()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("held twice: %v", err)
	}
	if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection while it is held: %v, %v", c, err)
	}

	h.Release()
	h.Release()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	defer l.Close()
	if _, err := ports.Hold(h.Port()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("one that is in use: %v", err)
	}
}
