package workspace

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockedError says that another process has the folder. PID is 0 and Command ""
// if it has not written them yet.
type LockedError struct {
	Project string // the folder that .keelson is in
	PID     int
	Command string // as given to Open, such as "keelson up"
}

// Error names the holder and the project.
func (e *LockedError) Error() string {
	command := cmp.Or(e.Command, "keelson up")
	if e.PID == 0 {
		return fmt.Sprintf("another `%s` runs in %s", command, e.Project)
	}
	return fmt.Sprintf("another `%s` (pid %d) runs in %s", command, e.PID, e.Project)
}

// take locks a file and writes into it who has it. The kernel gives the lock back
// however we end.
func take(path, command string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the working folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		locked := &LockedError{Project: filepath.Dir(filepath.Dir(path))}
		holder, _ := os.ReadFile(path) // only to name it
		pid, name, _ := strings.Cut(strings.TrimSpace(string(holder)), " ")
		locked.PID, _ = strconv.Atoi(pid)
		locked.Command = name
		return nil, errors.Join(locked, f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d %s\n", os.Getpid(), command)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the working folder: %w", err), f.Close())
	}
	return f, nil
}
