//go:build linux

package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// pids returns all process ids there are.
func pids() []int {
	paths, _ := filepath.Glob("/proc/[0-9]*")
	all := make([]int, 0, len(paths))
	for _, path := range paths {
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// parent returns the parent's id, or 0.
func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// note remembers who descends from the process now.
func (r *run) note() {
	parents := map[int]int{}
	for _, pid := range pids() {
		parents[pid] = parent(pid)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid := range parents {
		for at := parents[pid]; at > 1; at = parents[at] {
			if at != r.pid() {
				continue
			}
			if id, err := process.Identify(pid); err == nil {
				r.family[id] = true
			}
			break
		}
	}
}

// survivors are descendants that still run.
func (r *run) survivors() []process.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var left []process.ID
	for id := range r.family {
		if id.Alive() {
			left = append(left, id)
		}
	}
	return left
}

// gone waits until nothing is left of the process's descendants.
func (r *run) gone(within time.Duration) {
	r.p.t.Helper()
	began := time.Now()
	r.p.await("no descendant survives", within, func() error {
		if left := r.survivors(); len(left) > 0 {
			return fmt.Errorf("still there: %s", describe(left))
		}
		return nil
	})
	r.p.t.Logf("all %d descendants had gone after %v", len(r.family), time.Since(began).Round(time.Millisecond))
}

func describe(ids []process.ID) string {
	var all []string
	for _, id := range ids {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id.PID))
		all = append(all, fmt.Sprintf("%d (%s)", id.PID, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))))
	}
	return strings.Join(all, ", ")
}

// marked are all processes with the project's mark in their environment.
func (p *project) marked() []process.ID {
	var found []process.ID
	for _, pid := range pids() {
		id, err := process.Identify(pid)
		if err != nil {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(append(env, 0), []byte(p.mark+"\x00")) {
			found = append(found, id)
		}
	}
	return found
}

// sweep kills what the test has left running, and fails it if anything but what
// it had started itself takes that as a reason to live on.
func (p *project) sweep() {
	for _, r := range p.runs {
		select {
		case <-r.done:
			continue
		default:
		}
		r.note()
		_ = syscall.Kill(r.pid(), syscall.SIGCONT)
		_ = syscall.Kill(r.pid(), syscall.SIGKILL)
		<-r.done
	}
	left := func() []process.ID {
		all := p.marked()
		for _, r := range p.runs {
			all = append(all, r.survivors()...)
		}
		return all
	}
	for range 500 {
		if len(left()) == 0 {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	p.t.Errorf("processes outlive the test: %s", describe(left()))
	for _, id := range left() {
		_ = syscall.Kill(id.PID, syscall.SIGKILL)
	}
}

// rss returns the resident memory in MiB.
func (p *project) rss(pid int) float64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return float64(kib) / 1024
}
