package embedded

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const lockName = "keelson.lock"

// LockedError means that another process, or another Server of this one, uses
// the directory.
type LockedError struct {
	Dir   string
	PID   int       // 0 if it could not be told
	Since time.Time // when it started there; zero if it could not be told
}

// Error implements error.
func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	if !e.Since.IsZero() {
		who += " since " + e.Since.Format(time.RFC3339)
	}
	return fmt.Sprintf("engine directory %s is in use by %s: stop that one, or use another directory", e.Dir, who)
}

// openDir makes the directory ready and locks it until the file is closed.
func openDir(dir string) (lock *os.File, err error) {
	if isNotDirectory(dir) {
		return nil, &ConfigError{"Dir", dir + " is a file: give the path of a directory, it may be missing"}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make engine directory %s: %w", dir, err)
	}
	path := filepath.Join(dir, lockName)
	// os.OpenFile sets O_CLOEXEC: a child must not keep our lock alive.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("engine directory %s can't be written to: %w", dir, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		return nil, holder(dir, f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock engine directory %s: %w", dir, err)
	}
	text := fmt.Sprintf("pid %d\nstarted %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// holder reads who wrote the lock file. It may be halfway through writing.
func holder(dir string, f io.Reader) *LockedError {
	e := &LockedError{Dir: dir}
	b, _ := io.ReadAll(io.LimitReader(f, 256))
	pid, started := 0, ""
	if n, _ := fmt.Sscanf(string(b), "pid %d\nstarted %s\n", &pid, &started); n >= 1 && pid > 0 {
		e.PID = pid
		e.Since, _ = time.Parse(time.RFC3339, started)
	}
	return e
}

func diskFree(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // not an int64 on macOS
}

// diskUsed is what our message files take already. What can't be read counts
// nothing: it is an estimate for a limit.
func diskUsed(dir string) (total int64) {
	for path := range files(streamsDir(dir)) {
		if info, err := os.Lstat(path); err == nil {
			total += info.Size()
		}
	}
	return total
}

// files below root, without what can't be read.
func files(root string) iter.Seq[string] {
	return func(yield func(string) bool) {
		entries, err := os.ReadDir(root)
		if err != nil {
			return
		}
		for _, e := range entries {
			path := filepath.Join(root, e.Name())
			if e.IsDir() {
				for below := range files(path) {
					if !yield(below) {
						return
					}
				}
			} else if !yield(path) {
				return
			}
		}
	}
}
