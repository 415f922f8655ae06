package workspace_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/workspace"
)

func open(t *testing.T, project string, ephemeral bool) *workspace.Workspace {
	t.Helper()
	w, err := workspace.Open(project, "shop all", ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func shut(t *testing.T, w *workspace.Workspace) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOthersCanChangeIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := filepath.Join(dir, runfile.Folder)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := workspace.Open(dir, "shop all", false); !errors.Is(err, workspace.ErrNotPrivate) || !strings.Contains(err.Error(), folder) {
		t.Errorf("a folder that all may write: %v", err)
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	shut(t, open(t, dir, false))
}

// A folder's name is no pattern.
func TestLeftoversInAnOddlyNamedFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"shop[", "shop[1]", "sh*p"} {
		dir := filepath.Join(t.TempDir(), name)
		folder := filepath.Join(dir, runfile.Folder)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		left := filepath.Join(folder, runfile.Name+".123")
		if err := os.WriteFile(left, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		shut(t, open(t, dir, false))
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: what a killed process has left is still there: %v", name, err)
		}
	}
}

func TestItIsForOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, dir, false)
	_, err := workspace.Open(dir, "keelson up", false)
	locked, ok := errors.AsType[*workspace.LockedError](err)
	if !ok || locked.PID != os.Getpid() || locked.Command != "shop all" || locked.Project != dir {
		t.Fatalf("a second one: %v", err)
	}
	if want := fmt.Sprintf("another `shop all` (pid %d) runs in %s", os.Getpid(), dir); locked.Error() != want {
		t.Errorf("%q, want %q", locked, want)
	}
	shut(t, first)
	shut(t, open(t, dir, false))
}

// One whose holder has written nothing yet, or only its pid.
func TestLockedErrorOfLittle(t *testing.T) {
	t.Parallel()
	if got := (&workspace.LockedError{Project: "/p"}).Error(); got != "another `keelson up` runs in /p" {
		t.Error(got)
	}
	if got := (&workspace.LockedError{Project: "/p", PID: 7}).Error(); got != "another `keelson up` (pid 7) runs in /p" {
		t.Error(got)
	}
}

func TestEphemeral(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, ephemeral := range []bool{false, true} {
		w := open(t, dir, ephemeral)
		path, ok := strings.CutPrefix(w.DatabaseURL("users"), "sqlite://")
		if !ok {
			t.Fatalf("the database is %s", w.DatabaseURL("users"))
		}
		for _, p := range []string{path, w.EngineDir()} {
			if inside := strings.HasPrefix(p, w.Dir()); inside == ephemeral {
				t.Errorf("ephemeral %t: %s", ephemeral, p)
			}
		}
		if err := os.WriteFile(path, []byte("rows"), 0o600); err != nil {
			t.Fatal(err)
		}
		shut(t, w)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) != ephemeral {
			t.Errorf("ephemeral %t: %s at the end: %v", ephemeral, path, err)
		}
		if w.DevKey() != filepath.Join(dir, runfile.Folder, "dev.key") {
			t.Errorf("the key is %s", w.DevKey())
		}
	}
	ignored, err := os.ReadFile(filepath.Join(dir, runfile.Folder, ".gitignore"))
	if err != nil || string(ignored) != "*\n" {
		t.Errorf(".gitignore: %q, %v", ignored, err)
	}
}

// The data of an ephemeral run that was killed goes with the next run.
func TestKilledEphemeralRun(t *testing.T) {
	t.Parallel()
	dir, tmp := t.TempDir(), t.TempDir()
	killed := filepath.Join(tmp, "keelson-1")
	other := filepath.Join(tmp, "thesis") // somebody has written nonsense into the file
	for path, gone := range map[string]bool{killed: true, other: false, "keelson-relative": false} {
		full := path
		if !filepath.IsAbs(path) {
			full = filepath.Join(tmp, path)
		}
		if err := os.MkdirAll(filepath.Join(full, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		note := filepath.Join(dir, runfile.Folder, "ephemeral")
		if err := os.MkdirAll(filepath.Dir(note), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(note, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
		shut(t, open(t, dir, false))
		if _, err := os.Stat(full); errors.Is(err, fs.ErrNotExist) != gone {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := os.Stat(note); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the note of %s is left: %v", path, err)
		}
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, dir, true)
	if err := w.Note(func(f *runfile.File) { f.Gateway = "http://127.0.0.1:3000" }); err != nil {
		t.Fatal(err)
	}
	f, err := runfile.Read(runfile.Path(dir))
	if err != nil || !f.Alive() || f.Gateway != "http://127.0.0.1:3000" || time.Since(f.StartedAt) > time.Minute {
		t.Errorf("%+v, %v", f, err)
	}
	shut(t, w)
	if err := w.Note(func(f *runfile.File) { f.Gateway = "late" }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(runfile.Path(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run file at the end: %v", err)
	}
}

// leave writes the run file of a run that was killed.
func leave(t *testing.T, project string, change func(*runfile.File)) {
	t.Helper()
	f := runfile.File{ID: process.ID{PID: 1 << 22}, StartedAt: time.Now().Add(-time.Hour)}
	change(&f)
	if err := os.MkdirAll(filepath.Join(project, runfile.Folder), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := runfile.Write(runfile.Path(project), f); err != nil {
		t.Fatal(err)
	}
}

// A run that was killed is followed on the same port with the same credentials.
func TestEngineListen(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	check := func(before runfile.Engine, listen, wantAddr, wantCredentials string) {
		t.Helper()
		dir := t.TempDir()
		leave(t, dir, func(f *runfile.File) { f.Engine = before })
		w := open(t, dir, true)
		defer shut(t, w)
		if a, c := w.EngineListen(t.Context(), listen); a != wantAddr || c != wantCredentials {
			t.Errorf("EngineListen(%q) after %s = %q, %q; want %q, %q", listen, before, a, c, wantAddr, wantCredentials)
		}
	}
	ours := runfile.Engine{URL: "nats://" + addr, Credentials: "keelson:secret", Embedded: true}
	check(runfile.Engine{}, "", "127.0.0.1:0", "")
	check(runfile.Engine{}, "127.0.0.1:4222", "127.0.0.1:4222", "")
	check(runfile.Engine{URL: "nats://" + addr, Credentials: "somebody:elses"}, "", "127.0.0.1:0", "")
	check(ours, "", "127.0.0.1:0", "keelson:secret") // the port is taken
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	check(ours, "", addr, "keelson:secret")
	check(ours, "127.0.0.1:4222", "127.0.0.1:4222", "keelson:secret")
}

func TestReap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	left := exec.CommandContext(ctx, "sleep", "1000")
	left.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- left.Wait() }()
	id, err := process.Identify(left.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	leave(t, dir, func(f *runfile.File) {
		f.Children = []runfile.Child{
			{Name: "users", Instance: "users-1", ID: id, StartedAt: time.Now()},
			{Name: "users", Instance: "users-2", ID: process.ID{PID: 1 << 22}, StartedAt: time.Now()},
		}
	})
	// Written by a process that was killed in the middle of it.
	partial := runfile.Path(dir) + ".123"
	if err := os.WriteFile(partial, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := open(t, dir, true)
	defer shut(t, w)
	ended, err := w.Reap(ctx)
	if ended != 1 || err != nil {
		t.Errorf("%d processes ended, %v", ended, err)
	}
	if err := <-gone; err == nil {
		t.Error("the process ended by itself")
	}
	if _, err := os.Stat(partial); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was half written: %v", err)
	}
}
