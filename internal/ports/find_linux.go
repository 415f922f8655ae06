package ports

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listening is the state LISTEN in /proc/net/tcp.
const listening = "0A"

func find(port uint16) (Holder, bool) {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		content, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without IPv6 has no tcp6
		}
		for _, inode := range inodes(string(content), port) {
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

// inodes returns the sockets that listen on port, from the text of
// /proc/net/tcp (proc(5)).
func inodes(table string, port uint16) []string {
	suffix := fmt.Sprintf(":%04X", port)
	var found []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], suffix) {
			found = append(found, f[9])
		}
	}
	return found
}
