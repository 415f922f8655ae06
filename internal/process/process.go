//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrGone says that there is no such process (any more). A zombie, which has
// ended but was not waited for yet, counts as gone.
var ErrGone = errors.New("no such process")

// ID names one process for good. The zero value names none.
type ID struct {
	// PID is the process id, at least 1.
	PID int `json:"pid"`
	// Start is when the kernel started the process, in a form of the
	// kernel's own that is only good for comparing.
	Start string `json:"start,omitempty"`
}

// Self returns the ID of this process.
func Self() (ID, error) { return Identify(os.Getpid()) }

// Identify returns the ID of the process that has pid now. It fails with
// [ErrGone] if there is none, and with [errors.ErrUnsupported] on a system
// that does not tell when a process was started.
func Identify(pid int) (ID, error) {
	if pid < 1 {
		return ID{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	s, err := inspect(pid)
	if err != nil {
		return ID{}, fmt.Errorf("process %d: %w", pid, err)
	}
	if s.zombie {
		return ID{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	return ID{PID: pid, Start: s.start}, nil
}

// Alive reports whether the very process id names is still running. It is
// false whenever that can't be told for sure.
func (id ID) Alive() bool {
	now, err := Identify(id.PID)
	return err == nil && id.Start != "" && now == id
}

// LeadsGroup reports whether the very process id names is running and leads
// a process group of its own, so that the group may be signalled through its
// process id.
func (id ID) LeadsGroup() bool {
	pgid, err := unix.Getpgid(id.PID)
	return err == nil && pgid == id.PID && id.Alive()
}

// SignalGroup sends sig to every process of the group pgid. A group that has
// no process left is no error. It refuses a pgid below 2: those numbers mean
// something else to kill(2), every process of the user among them.
func SignalGroup(pgid int, sig syscall.Signal) error {
	if pgid < 2 {
		return fmt.Errorf("signal process group %d: not a group's id", pgid)
	}
	if err := unix.Kill(-pgid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process group %d: %w", pgid, err)
	}
	return nil
}

// GroupAlive reports whether the group pgid has a process that is running.
// Where the system lets it tell, zombies do not count.
func GroupAlive(pgid int) bool {
	if pgid < 2 {
		return false
	}
	// EPERM: there are processes, all of them somebody else's by now.
	if err := unix.Kill(-pgid, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return false
	}
	return groupRuns(pgid)
}

// status is what a system tells about a process.
type status struct {
	start  string
	zombie bool
	pgid   int
}
