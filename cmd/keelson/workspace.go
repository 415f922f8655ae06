package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
)

// reapGrace is how long processes that an earlier run left have to stop.
const reapGrace = 5 * time.Second

// workspace is the folder .keelson beside the manifest, and this run's place in
// it: one `keelson up` at a time.
type workspace struct {
	dir      string // .keelson
	data     string // dir, or a temporary folder
	tmp      string // to remove at the end, if any
	lock     *os.File
	previous runfile.File // of a run that was killed

	mu     sync.Mutex
	file   runfile.File
	closed bool
}

func openWorkspace(project string, ephemeral bool) (_ *workspace, err error) {
	w := &workspace{dir: filepath.Join(project, runfile.Folder)}
	w.data = w.dir
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the working folder: %w", err)
	}
	if err := private(w.dir); err != nil {
		return nil, err
	}
	if err := w.take(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.giveBack())
		}
	}()
	// The folder has keys and credentials in it: nobody shall commit it.
	if err := os.WriteFile(w.path(".gitignore"), []byte("*\n"), 0o600); err != nil {
		return nil, err
	}
	if ephemeral {
		if w.tmp, err = os.MkdirTemp("", "keelson-"); err != nil {
			return nil, err
		}
		w.data = w.tmp
	}
	if err := os.MkdirAll(filepath.Join(w.data, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	if w.file.ID, err = process.Self(); err != nil {
		return nil, err
	}
	w.file.StartedAt = time.Now().UTC()
	w.previous, err = runfile.Read(runfile.Path(project))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// What a process that was killed while it wrote has left, credentials in it.
	leftovers, err := filepath.Glob(w.path(runfile.Name + ".*"))
	for _, path := range leftovers {
		err = errors.Join(err, os.Remove(path))
	}
	return w, err
}

// private refuses a folder that others could put something into: programs are run
// from it.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return &failure{code: exitFailed, message: dir + " can be changed by others", hint: "make it yours alone: chown it to you, and chmod 700 it"}
}

func (w *workspace) path(name string) string { return filepath.Join(w.dir, name) }

// take locks the folder. The kernel gives the lock back however we end.
func (w *workspace) take() error {
	f, err := os.OpenFile(w.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the working folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := os.ReadFile(f.Name()) // only to name it
		err = &failure{
			code:    exitConflict,
			message: fmt.Sprintf("another `keelson up` (pid %s) runs in %s", strings.TrimSpace(string(holder)), filepath.Dir(w.dir)),
			hint:    "stop it first, or use its gateway: its addresses are in " + filepath.Join(w.dir, runfile.Name),
		}
		return errors.Join(err, f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock the working folder: %w", err), f.Close())
	}
	w.lock = f
	return nil
}

// reap ends what a run that was killed left behind.
func (w *workspace) reap(ctx context.Context, out *printer) error {
	var left []process.ID
	for _, c := range w.previous.Children {
		left = append(left, c.ID)
	}
	ended, err := supervise.Reap(ctx, reapGrace, left...)
	if len(ended) > 0 {
		out.say("ended %d processes that an earlier run had left behind", len(ended))
	}
	return err
}

// engineListen is where the engine listens, and with which credentials. A run
// that was killed is followed on the same port with the same ones if possible,
// so that services started by hand find their way back.
func (w *workspace) engineListen(ctx context.Context, listen string) (addr, credentials string) {
	before := w.previous.Engine
	if before.Embedded {
		credentials = before.Credentials
	}
	if listen != "" {
		return listen, credentials
	}
	if _, addr, _ := strings.Cut(before.URL, "://"); before.Embedded {
		if free, err := ports.Free(ctx, addr); free && err == nil {
			return addr, credentials
		}
	}
	return "127.0.0.1:0", credentials
}

// note changes the run file.
func (w *workspace) note(change func(*runfile.File)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed { // a stop that was cut short leaves callbacks behind
		return nil
	}
	change(&w.file)
	return runfile.Write(w.path(runfile.Name), w.file)
}

// close gives everything back; data of an ephemeral run is removed.
func (w *workspace) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return errors.Join(runfile.Remove(w.path(runfile.Name), w.file.ID), w.giveBack())
}

func (w *workspace) giveBack() (err error) {
	if w.tmp != "" {
		err = errors.Join(err, os.RemoveAll(w.tmp))
	}
	return errors.Join(err, w.lock.Close())
}
