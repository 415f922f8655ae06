//go:build unix

package ports

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Held is a port of 127.0.0.1 that nobody else gets until it is released. Nothing
// listens on it meanwhile: who connects is refused. It is safe for concurrent use.
type Held struct {
	port int
	once sync.Once
	fd   int
}

// Hold takes the port, or a free one if port is 0. The error wraps
// syscall.EADDRINUSE if the port is taken, or was used so recently that only who
// is to serve there gets it.
func Hold(port int) (*Held, error) {
	fd, err := boundSocket(port)
	if err != nil {
		return nil, fmt.Errorf("ports: hold port %d: %w", port, err)
	}
	h := &Held{port: port, fd: fd}
	address, err := syscall.Getsockname(fd)
	if inet, ok := address.(*syscall.SockaddrInet4); ok {
		h.port = inet.Port
		return h, nil
	}
	h.Release()
	return nil, fmt.Errorf("ports: hold port %d: %w", port, os.NewSyscallError("getsockname", err))
}

// boundSocket returns a socket that no child process inherits. It is not made
// with SO_REUSEADDR: others that are could then be given the same port.
func boundSocket(port int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = syscall.Close(fd) // the bind's error says what matters
		return 0, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// Port returns the port's number.
func (h *Held) Port() int { return h.port }

// Release gives the port back; more calls do nothing.
func (h *Held) Release() {
	h.once.Do(func() { _ = syscall.Close(h.fd) }) // it has nothing to lose
}
