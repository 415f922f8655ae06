package ports_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/keelson-go/keelson/internal/ports"
)

func TestFindsThisProcess(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if free, err := ports.Free(t.Context(), addr); err != nil || free {
		t.Errorf("Free(%s) = %v, %v while somebody listens there", addr, free, err)
	}
	holder, ok := ports.Find(addr)
	if runtime.GOOS == "linux" && (!ok || holder.PID != os.Getpid() || holder.Command == "") {
		t.Errorf("Find(%s) = %v, %v; want this process, %d", addr, holder, ok, os.Getpid())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if free, err := ports.Free(t.Context(), addr); err != nil || !free {
		t.Errorf("Free(%s) = %v, %v after it was given back", addr, free, err)
	}
	if holder, ok := ports.Find(addr); ok {
		t.Errorf("Find(%s) = %v after it was given back", addr, holder)
	}
}

// Somebody who listens on another address of the same port is in nobody's way.
func TestOtherAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for addr, want := range map[string]bool{"127.0.0.1:" + port: false, "127.0.0.2:" + port: true, "0.0.0.0:" + port: true} {
		if h, ok := ports.Find(addr); ok != want && runtime.GOOS == "linux" {
			t.Errorf("Find(%s) = %v, %v", addr, h, ok)
		}
	}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000"} {
		if holder, ok := ports.Find(addr); ok {
			t.Errorf("Find(%q) = %v", addr, holder)
		}
	}
	if _, err := ports.Free(t.Context(), "no host:1"); err == nil {
		t.Error("Free of a bad address gave no error")
	}
}

func ExampleHolder() {
	fmt.Println(ports.Holder{PID: 42, Command: "nginx"})
	// Output: nginx (pid 42)
}
