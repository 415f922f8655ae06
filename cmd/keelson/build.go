package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/registry"
)

// program is what a Go package is built to, for all services that run it.
type program struct {
	pkg  string // as the manifest has it
	dir  string // where the go command is run
	path string

	first    sync.Mutex // held while somebody builds it for the first time
	building sync.Mutex // held during a build
	mu       sync.Mutex
	version  int // counts what was installed at path; 0 means nothing was yet
}

// newProgram returns a package's program in the folder bin. It has a name people
// recognise, and a hash, since other packages may have that name too.
func newProgram(pkg, dir, bin string) *program {
	sum := sha256.Sum256([]byte(pkg))
	return &program{pkg: pkg, dir: dir, path: filepath.Join(bin, fmt.Sprintf("%s-%x", registry.SanitizeID(filepath.Base(pkg)), sum[:4]))}
}

// installed returns how many different programs were installed so far.
func (p *program) installed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version
}

// build builds the package beside its program, and puts the result in its place
// if it is another one. The file is renamed, never written to: processes may be
// started from it at any moment. It reports whether there is a new program. A
// failure of the go command is a [*buildError].
func (p *program) build(ctx context.Context) (changed bool, err error) {
	p.building.Lock()
	defer p.building.Unlock()
	next := p.path + ".next"
	if err := os.RemoveAll(next); err != nil {
		return false, err
	}
	// The go command looks at what is there, and links only if it must; then it
	// replaces this name, and leaves the program as it is. Without a link it
	// takes a little longer.
	_ = os.MkdirAll(filepath.Dir(p.path), 0o700)
	_ = os.Link(p.path, next)
	defer func() { _ = os.Remove(next) }() // it was renamed, or is no loss
	if err := p.compile(ctx, next); err != nil {
		return false, err
	}
	same, err := sameFiles(p.path, next)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if same && p.version > 0 {
		return false, nil
	}
	if !same {
		if err := os.Rename(next, p.path); err != nil {
			return false, fmt.Errorf("install %s: %w", p.pkg, err)
		}
	}
	p.version++
	return true, nil
}

func (p *program) compile(ctx context.Context, to string) error {
	// A go command that is cancelled leaves what it has made so far, and that can
	// be as large as the program. So can one that was killed with us.
	tmp := p.path + ".tmp"
	_ = os.RemoveAll(tmp) // a compiler of that one may be writing still
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // the next build tries again
	said, err := goCommand(ctx, p.dir, []string{"GOTMPDIR=" + tmp}, nil, "build", "-buildvcs=false", "-o", to, p.pkg)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("build %s: the go command is not installed, or not in PATH", p.pkg)
	}
	if err != nil && ctx.Err() == nil {
		// It says nothing where it was killed, for want of memory perhaps.
		return &buildError{p.pkg, cmp.Or(strings.TrimSpace(said), "the go command has ended: "+err.Error())}
	}
	return ctx.Err()
}

type buildError struct{ pkg, output string }

func (e *buildError) Error() string { return e.pkg + " does not build" }

// goCommand runs the go command in a folder, with env besides our environment,
// and returns what it says. What it prints goes to stdout, or is part of what it
// says if that is nil. When it returns, its compilers have gone too.
func goCommand(ctx context.Context, dir string, env []string, stdout io.Writer, args ...string) (said string, err error) {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the packages are the user's own
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	var talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &talk, &talk
	if stdout != nil {
		cmd.Stdout = stdout
	}
	// A Ctrl-C in the terminal is for us alone; the compilers go when we say so.
	cmd.SysProcAttr = buildAttributes()
	cmd.Cancel = func() error { return process.SignalGroup(cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		endCompilers(cmd.Process.Pid)
	}
	return talk.String(), err
}

// endCompilers ends what a cancelled go command has left of its group, and waits
// until it has gone, but not for ever.
func endCompilers(group int) {
	_ = process.SignalGroup(group, syscall.SIGKILL) // it may have gone already
	over := time.After(2 * time.Second)
	for process.GroupAlive(group) {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-over:
			return
		}
	}
}

// sameFiles reports whether two files are one or have the same content; one that
// is missing is no other's like.
func sameFiles(a, b string) (bool, error) {
	first, err := os.Stat(a)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	second, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	if os.SameFile(first, second) || first.Size() != second.Size() {
		return os.SameFile(first, second), nil
	}
	sum, err := sumOf(a)
	if err != nil {
		return false, err
	}
	other, err := sumOf(b)
	return sum == other, err
}

func sumOf(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
