//go:build unix

package runfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keelson-go/keelson/internal/process"
	"golang.org/x/sys/unix"
)

// Folder is the name of the folder beside the manifest that a run's files
// are in, and Name the name of the run file in it.
const (
	Folder = ".keelson"
	Name   = "run.json"
)

// ErrUnsafe says that a run file can't be trusted, or its credentials were
// open to others.
var ErrUnsafe = errors.New("refused as unsafe")

// Path returns the path of the run file of the project in dir.
func Path(dir string) string { return filepath.Join(dir, Folder, Name) }

// Find returns the path of the run file of dir or else of the nearest folder
// above it. If there is none, the error wraps [fs.ErrNotExist].
func Find(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", Name, err)
	}
	for at := start; ; {
		path := Path(at)
		_, err := os.Lstat(path)
		if err == nil {
			return path, nil
		}
		// ENOTDIR: a plain file called .keelson is no concern of ours.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return "", fmt.Errorf("find %s: %w", Name, err)
		}
		above := filepath.Dir(at)
		if above == at {
			return "", fmt.Errorf("no %s in %s or above it: %w", filepath.Join(Folder, Name), start, fs.ErrNotExist)
		}
		at = above
	}
}

// Read reads the run file at path. It refuses with [ErrUnsafe] a file that is
// not a regular one, belongs to another user or can be written by others, and
// one that holds credentials and can be read by others.
func Read(path string) (File, error) {
	f, err := read(path)
	if err != nil {
		return File{}, fmt.Errorf("run file %s: %w", path, err)
	}
	return f, nil
}

func read(path string) (File, error) {
	// No following of links, and no waiting for the other end of a FIFO.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) {
		return File{}, fmt.Errorf("%w: it is a symbolic link; remove it", ErrUnsafe)
	}
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return File{}, err
	}
	if err := trust(info); err != nil {
		return File{}, err
	}
	f, err := Decode(file)
	if err != nil {
		return File{}, fmt.Errorf("%w; if no `keelson up` is running here, remove the file", err)
	}
	if f.Engine.Credentials != "" && info.Mode().Perm()&0o077 != 0 {
		return File{}, fmt.Errorf("%w: it holds credentials and its mode is %04o; restart `keelson up`, or chmod 600 it if nobody else uses this machine",
			ErrUnsafe, info.Mode().Perm())
	}
	return f, nil
}

// trust reports whether nobody but this user can have written the file. What
// is in it gets connected to and signalled.
func trust(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file; remove it", ErrUnsafe)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: it belongs to another user; run as the user who runs `keelson up`", ErrUnsafe)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%w: others may write it (mode %04o); remove it and restart `keelson up`", ErrUnsafe, info.Mode().Perm())
	}
	return nil
}

// Write replaces the run file at path by f, with mode 0600, and makes its
// folder if there is none. A reader sees the old content or the new, never a
// part, whatever happens meanwhile.
func Write(path string, f File) error {
	if err := write(path, f); err != nil {
		return fmt.Errorf("write run file %s: %w", path, err)
	}
	return nil
}

func write(path string, f File) (err error) {
	if f.Children == nil {
		f.Children = []Child{} // a list is a list, also if it is empty
	}
	if err := f.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if len(b) >= MaxSize {
		return fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxSize)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, Name+".*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(append(b, '\n'))
	if err == nil {
		// Without it a power cut can leave the new name on an empty file.
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Remove removes the run file at path if the process owner wrote it. A file
// that is not there any more, or somebody else's by now, is left as it is and
// no error.
func Remove(path string, owner process.ID) error {
	f, err := Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if f.ID != owner {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove run file: %w", err)
	}
	return nil
}
