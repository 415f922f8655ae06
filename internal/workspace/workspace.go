package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
)

// reapGrace is how long processes that an earlier run left have to stop.
const reapGrace = 5 * time.Second

// ErrNotPrivate is wrapped by [Open] when others can write to the folder:
// programs are run from it. The cure is to own it, and chmod 700.
var ErrNotPrivate = errors.New("can be changed by others")

// Workspace is the folder, held by this process. Its methods are safe for
// concurrent use, except Close, which comes last.
type Workspace struct {
	dir      string // .keelson
	data     string // dir, or a temporary folder
	tmp      string // that folder, if there is one
	lock     *os.File
	previous runfile.File // of a run that was killed

	mu     sync.Mutex
	file   runfile.File
	closed bool
}

// Open takes the folder .keelson in project, and makes it if there is none.
// command is what this process calls itself, for those who meet the lock: their
// error is a [*LockedError]. With ephemeral, data goes to a temporary folder that
// Close removes. Close must be called.
func Open(project, command string, ephemeral bool) (_ *Workspace, err error) {
	if project, err = filepath.Abs(project); err != nil {
		return nil, err
	}
	w := &Workspace{dir: filepath.Join(project, runfile.Folder)}
	w.data = w.dir
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the working folder: %w", err)
	}
	if err := private(w.dir); err != nil {
		return nil, err
	}
	if w.lock, err = take(w.Path("lock"), command); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.giveBack())
		}
	}()
	// The folder has keys and credentials in it: nobody shall commit it.
	if err := os.WriteFile(w.Path(".gitignore"), []byte("*\n"), 0o600); err != nil {
		return nil, err
	}
	if err := w.clearTemporary(); err != nil {
		return nil, err
	}
	if ephemeral {
		if err := w.makeTemporary(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(w.DataDir(), 0o700); err != nil {
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
	entries, err := os.ReadDir(w.dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), runfile.Name+".") {
			err = errors.Join(err, os.Remove(w.Path(entry.Name())))
		}
	}
	return w, err
}

// temporary is the file that says where an ephemeral run has its data, for the
// next one, should this one be killed.
const temporary = "ephemeral"

func (w *Workspace) makeTemporary() (err error) {
	if w.tmp, err = os.MkdirTemp("", "keelson-"); err != nil {
		return err
	}
	w.data = w.tmp
	return os.WriteFile(w.Path(temporary), []byte(w.tmp), 0o600)
}

// clearTemporary removes the data of an ephemeral run, this one's or one that was
// killed.
func (w *Workspace) clearTemporary() error {
	path, err := os.ReadFile(w.Path(temporary))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if dir := string(path); filepath.IsAbs(dir) && strings.HasPrefix(filepath.Base(dir), "keelson-") {
		err = os.RemoveAll(dir)
	}
	return errors.Join(err, os.Remove(w.Path(temporary)))
}

// private refuses a folder that others could put something into.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return fmt.Errorf("%s %w", dir, ErrNotPrivate)
}

// Dir returns the folder's absolute path.
func (w *Workspace) Dir() string { return w.dir }

// Path returns the absolute path of a file in the folder.
func (w *Workspace) Path(name string) string { return filepath.Join(w.dir, name) }

// DevKey returns the path of the development key, which tokens are signed with.
func (w *Workspace) DevKey() string { return w.Path("dev.key") }

// EngineDir returns where the engine keeps its data.
func (w *Workspace) EngineDir() string { return filepath.Join(w.data, "engine") }

// DataDir returns where services keep their databases.
func (w *Workspace) DataDir() string { return filepath.Join(w.data, "data") }

// DatabaseURL returns the URL of a service's own SQLite database in DataDir.
func (w *Workspace) DatabaseURL(service string) string { return DatabaseURL(w.DataDir(), service) }

// DatabaseURL returns the URL of a service's own SQLite database in a folder.
func DatabaseURL(folder, service string) string {
	return (&url.URL{Scheme: "sqlite", Path: filepath.Join(folder, service+".db")}).String()
}

// Reap ends what a run that was killed left behind, and returns how many
// processes those were. They get 5 s to stop by themselves.
func (w *Workspace) Reap(ctx context.Context) (ended int, err error) {
	var left []process.ID
	for _, c := range w.previous.Children {
		left = append(left, c.ID)
	}
	gone, err := supervise.Reap(ctx, reapGrace, left...)
	return len(gone), err
}

// EngineListen is where the engine shall listen (host:port; port 0 takes a free
// one), and with which credentials ("" makes new ones). A run that was killed is
// followed on the same port with the same ones if possible. listen, if given,
// decides the address.
func (w *Workspace) EngineListen(ctx context.Context, listen string) (addr, credentials string) {
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

// Note changes the run file. After Close it does nothing.
func (w *Workspace) Note(change func(*runfile.File)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed { // a stop that was cut short leaves callbacks behind
		return nil
	}
	change(&w.file)
	return runfile.Write(w.Path(runfile.Name), w.file)
}

// NoteStop notes in the run file that everything stops, once ctx has ended, for
// who would ask for it again: without the note, a second `keelson down` cuts the
// stop short. The function it returns ends that; it must be called.
func (w *Workspace) NoteStop(ctx context.Context) (end func()) {
	over := make(chan struct{})
	var noting sync.WaitGroup
	noting.Go(func() {
		select {
		case <-ctx.Done():
			_ = w.Note(func(r *runfile.File) { r.Stopping = true }) // only to be told; the stop goes on
		case <-over:
		}
	})
	return func() {
		close(over)
		noting.Wait()
	}
}

// Close removes the run file and an ephemeral run's data, and gives the lock back.
func (w *Workspace) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return errors.Join(runfile.Remove(w.Path(runfile.Name), w.file.ID), w.giveBack())
}

func (w *Workspace) giveBack() (err error) {
	if w.tmp != "" {
		err = w.clearTemporary()
	}
	return errors.Join(err, w.lock.Close())
}
