//go:build unix

package supervise

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrKilled says that processes were still running after SIGTERM and the grace
// period, and were ended by SIGKILL. [StopError] names them.
var ErrKilled = errors.New("had to be killed")

// Exit is how a process ended.
type Exit struct {
	// Code is the exit status, or -1 if a signal ended the process or it
	// never ran.
	Code int
	// Signal ended the process, if it is not 0.
	Signal syscall.Signal
}

// String returns "exit status 1" or "killed by signal: terminated".
func (e Exit) String() string {
	switch {
	case e.Signal != 0:
		return "killed by signal: " + e.Signal.String()
	case e.Code < 0:
		return "did not run"
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

func exitOf(s *os.ProcessState) Exit {
	if s == nil {
		return Exit{Code: -1}
	}
	e := Exit{Code: s.ExitCode()}
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		e.Signal = w.Signal()
	}
	return e
}

// StartError says why a child never became healthy. All the others were
// stopped because of it.
type StartError struct {
	// Name and Instance are the child's.
	Name, Instance string
	// Ended reports whether the process ended by itself; Exit is then how.
	Ended bool
	Exit  Exit
	// After is the start deadline, if that is what was missed.
	After time.Duration
	// Err is the build's error, that of starting the process, or what the
	// last health check said; nil if there was none.
	Err error
	// Lines are the last lines the child wrote, 20 at most.
	Lines []string
}

// Error says what happened, in one line; it does not repeat the child's Lines.
func (e *StartError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s) did not start", e.Name, e.Instance)
	switch {
	case e.Ended:
		fmt.Fprintf(&b, ": it ended before it was healthy, with %s", e.Exit)
	case e.After > 0:
		fmt.Fprintf(&b, ": not healthy after %s", e.After)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *StartError) Unwrap() error { return e.Err }

// StopError names the children whose groups did not end in time. It wraps
// [ErrKilled].
type StopError struct {
	// Instances are the instance ids of those children.
	Instances []string
	// Grace is the time each was given; 0 if Kill cut it short.
	Grace time.Duration
}

// Error names the children.
func (e *StopError) Error() string {
	return fmt.Sprintf("%s: %v (grace period %s)", strings.Join(e.Instances, ", "), ErrKilled, e.Grace)
}

// Unwrap returns [ErrKilled].
func (e *StopError) Unwrap() error { return ErrKilled }
