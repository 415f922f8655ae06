package ports

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listening is the state LISTEN in /proc/net/tcp.
const listening = "0A"

func find(addr netip.AddrPort) (Holder, bool) {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		content, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without IPv6 has no tcp6
		}
		for _, inode := range inodes(string(content), addr) {
			sockets["socket:["+inode+"]"] = true
		}
	}
	if len(sockets) == 0 {
		return Holder{}, false
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return Holder{}, false
	}
	for _, link := range links {
		// Other users' processes, and those that have just ended, can't be read.
		if target, err := os.Readlink(link); err != nil || !sockets[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		n, err := strconv.Atoi(pid)
		if err != nil {
			continue
		}
		name, _ := os.ReadFile("/proc/" + pid + "/comm") // without it the pid must do
		return Holder{PID: n, Command: strings.TrimSpace(string(name))}, true
	}
	return Holder{}, false
}

// inodes returns the sockets that listen on addr, or on all addresses and its
// port, from the text of /proc/net/tcp (proc(5)).
func inodes(table string, addr netip.AddrPort) []string {
	var found []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != listening {
			continue
		}
		local, ok := parseLocal(f[1])
		if ok && local.Port() == addr.Port() &&
			(local.Addr().IsUnspecified() || addr.Addr().IsUnspecified() || local.Addr() == addr.Addr().Unmap()) {
			found = append(found, f[9])
		}
	}
	return found
}

// parseLocal reads an address such as 0100007F:0BB8: 32-bit words in this
// machine's byte order, then the port.
func parseLocal(s string) (netip.AddrPort, bool) {
	ip, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	raw, err2 := hex.DecodeString(ip)
	if !ok || err != nil || err2 != nil {
		return netip.AddrPort{}, false
	}
	for word := raw; len(word) >= 4; word = word[4:] {
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}
