package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// bootID tells one run of the kernel from the next: start times count from
// the boot, so that without it they could agree by chance after a reboot.
var bootID = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
})

func inspect(pid int) (status, error) {
	boot, err := bootID()
	if err != nil {
		return status{}, err
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return status{}, ErrGone
	}
	if err != nil {
		return status{}, err
	}
	s, err := parseStat(b)
	if err != nil {
		return status{}, err
	}
	s.start = boot + "/" + s.start
	return s, nil
}

// parseStat reads a line of /proc/<pid>/stat (proc_pid_stat(5)): the state,
// the group and, in clock ticks since the boot, the start time.
func parseStat(b []byte) (status, error) {
	// The second field is the program's name in brackets. It may itself
	// hold brackets, blanks and line ends, so the last bracket ends it.
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return status{}, errors.New("malformed stat: no program name")
	}
	const state, pgrp, start = 3, 5, 22 // numbered as in proc_pid_stat(5)
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) <= start-state {
		return status{}, fmt.Errorf("malformed stat: %d fields after the name", len(fields))
	}
	pgid, err := strconv.Atoi(fields[pgrp-state])
	if err != nil {
		return status{}, fmt.Errorf("malformed stat: group: %w", err)
	}
	if _, err := strconv.ParseUint(fields[start-state], 10, 64); err != nil {
		return status{}, fmt.Errorf("malformed stat: start time: %w", err)
	}
	s := fields[0]
	return status{start: fields[start-state], zombie: s == "Z" || s == "X" || s == "x", pgid: pgid}, nil
}

// groupRuns looks through /proc, because kill(2) takes zombies for processes
// and an init that doesn't wait for orphans leaves them lying about.
func groupRuns(pgid int) bool {
	dir, err := os.Open("/proc")
	if err != nil {
		return true
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return true
	}
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		b, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // gone meanwhile
		}
		if s, err := parseStat(b); err == nil && s.pgid == pgid && !s.zombie {
			return true
		}
	}
	return false
}
