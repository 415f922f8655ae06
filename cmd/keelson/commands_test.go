package main

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// troupe plays the processes of a system.
type troupe struct {
	journals map[string]*journal
	mu       sync.Mutex
	restarts []string
	fail     error
}

func newTroupe() *troupe {
	return &troupe{journals: map[string]*journal{"pay": newJournal("pay"), "users": newJournal("users")}}
}

func (tr *troupe) List() []console.Process {
	one := func(service, instance string) console.Process {
		p := console.Process{Service: service, Instance: instance, State: "healthy", PID: 42, Port: 3001}
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if tr.fail != nil {
			p.State = "restarting"
		}
		return p
	}
	return []console.Process{one("pay", "pay-1"), one("users", "users-1"), one("users", "users-2")}
}

func (tr *troupe) Restart(_ context.Context, service string) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.restarts = append(tr.restarts, service)
	return tr.fail
}

func (tr *troupe) Logs(ctx context.Context, service string, tail int, follow bool) (iter.Seq[console.LogLine], error) {
	j := tr.journals[service]
	if j == nil {
		return nil, console.ErrUnknownService
	}
	return j.read(ctx, tail, follow), nil
}

func (tr *troupe) serve(t *testing.T) *httptest.Server {
	t.Helper()
	reg := registry.Open(t.Context(), memregistry.New().Connect())
	t.Cleanup(reg.Close)
	c, err := console.New(console.Config{Listen: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Registry: reg, Processes: tr})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func TestLogs(t *testing.T) {
	t.Parallel()
	tr := newTroupe()
	written(tr.journals["users"], "users-1", "a")
	written(tr.journals["pay"], "pay-1", "b")
	written(tr.journals["users"], "users-2", "c")
	written(tr.journals["users"], "users-1", "<d>")
	url := tr.serve(t).URL
	tests := []struct{ args, want string }{
		{"logs", "users │ a\npay   │ b\nusers#2 │ c\nusers │ <d>\n"},
		{"logs -n 1", "pay   │ b\nusers │ <d>\n"},
		{"logs pay", "b\n"},
		{"logs users -n 2", "users#2 │ c\nusers │ <d>\n"},
		{"logs users --instance users-1 -n 1", "<d>\n"},
		{"logs --instance users-2", "c\n"},
		{"logs -n 0", ""},
	}
	for _, tt := range tests {
		got := keelson(t, nil, append(strings.Fields(tt.args), "--url", url)...)
		if got.code != 0 || got.stdout != tt.want || got.stderr != "" {
			t.Errorf("%s: %+v, want %q", tt.args, got, tt.want)
		}
	}
	got := keelson(t, nil, "logs", "users", "--instance", "users-1", "-o", "json", "-n", "1", "--url", url)
	var line console.LogLine
	if err := json.Unmarshal([]byte(got.stdout), &line); err != nil || line.Text != "<d>" || line.Instance != "users-1" || !strings.Contains(got.stdout, "<d>") {
		t.Errorf("as JSON %+v: %v", got, err)
	}
	got = keelson(t, nil, "logs", "pay", "--timestamps", "--color", "always", "--url", url)
	if !strings.HasPrefix(got.stdout, "\x1b["+dim+"m20") || !strings.HasSuffix(got.stdout, " b\n") {
		t.Errorf("with times %q", got.stdout)
	}
	for _, tt := range []struct {
		args, says string
		code       int
	}{
		{"logs user", "did you mean users?", exitNotFound},
		{"logs --instance users-3", "did you mean users-1 or users-2?", exitNotFound},
		{"logs -n -1", "--lines is -1", exitUsage},
		{"restart", "--all", exitUsage},
		{"restart --all users", "--all", exitUsage},
		{"restart usrs", "did you mean users?", exitNotFound},
		{"restart user-2", "no service \"user-2\" is run here", exitNotFound},
	} {
		got := keelson(t, nil, append(strings.Fields(tt.args), "--url", url)...)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.says) || got.stdout != "" {
			t.Errorf("%s: %+v, want %d and %q", tt.args, got, tt.code, tt.says)
		}
	}
	if tr.restarts != nil {
		t.Errorf("%q were restarted", tr.restarts)
	}
}

// A system that goes and comes back is followed on, with each line once.
func TestLogsAreFollowed(t *testing.T) {
	t.Parallel()
	tr := newTroupe()
	written(tr.journals["users"], "users-1", "old")
	written(tr.journals["users"], "users-1", "last")
	first := tr.serve(t)
	var stdout, stderr buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := &app{stdout: &stdout, stderr: &stderr, env: func(string) string { return "" }}
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, []string{"logs", "-f", "-n", "1", "--url", first.URL}) }()
	shows := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return stdout.String() == want })
	}
	shows("users │ last\n")
	written(tr.journals["pay"], "pay-1", "new")
	shows("users │ last\npay   │ new\n")

	first.CloseClientConnections()
	eventually(t, "the loss to be told", func() bool { return strings.Contains(stderr.String(), "connecting again") })
	written(tr.journals["users"], "users-2", "meanwhile")
	eventually(t, "the way back", func() bool { return strings.Contains(stderr.String(), "connected again") })
	shows("users │ last\npay   │ new\nusers#2 │ meanwhile\n")
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d for Ctrl-C\n%s", code, &stderr)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	tr := newTroupe()
	url := tr.serve(t).URL
	got := keelson(t, nil, "restart", "users", "pay", "users", "--url", url)
	if got.code != 0 || strings.Count(got.stdout, "\n") != 4 || !strings.Contains(got.stderr, "users is in rotation again (2 instances") {
		t.Errorf("%+v", got)
	}
	got = keelson(t, nil, "restart", "--all", "-o", "name", "--url", url)
	if got.code != 0 || got.stdout != "pay-1\nusers-1\nusers-2\n" {
		t.Errorf("%+v", got)
	}
	if got := strings.Join(tr.restarts, " "); got != "users pay pay users" {
		t.Errorf("restarted %s", got)
	}
	written(tr.journals["users"], "users-1", "panic: nil map")
	tr.mu.Lock()
	tr.fail = errors.New("users (users-1) did not start: it ended before it was healthy, with exit status 2")
	tr.mu.Unlock()
	got = keelson(t, nil, "restart", "users", "--url", url)
	if got.code != exitFailed || !strings.Contains(got.stderr, "exit status 2") || !strings.Contains(got.stderr, "its last lines:\n  panic: nil map") || got.stdout != "" {
		t.Errorf("a failure: %+v", got)
	}
	tr.mu.Lock()
	tr.fail = console.ErrRestarting
	tr.mu.Unlock()
	if got := keelson(t, nil, "restart", "users", "--url", url); got.code != exitConflict {
		t.Errorf("one that is under way: %+v", got)
	}
}

// sham is a process that a run file names.
func sham(t *testing.T, script string, stopping bool) process.ID {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it says that it is ready
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-gone })
	id, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	named(t, runfile.File{ID: id, Stopping: stopping})
	return id
}

func named(t *testing.T, f runfile.File) {
	t.Helper()
	f.StartedAt = time.Now()
	if err := os.MkdirAll(runfile.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := runfile.Write(runfile.Path("."), f); err != nil {
		t.Fatal(err)
	}
}

func TestDown(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const (
		polite = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"
		second = "n=0; trap 'n=$((n+1)); [ $n = 1 ] || exit 1' TERM; echo ready; while :; do sleep 0.01; done"
		deaf   = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
	)
	if got := keelson(t, nil, "down"); got.code != 0 || !strings.Contains(got.stderr, "nothing runs in this folder") || got.stdout != "" {
		t.Errorf("without a run file: %+v", got)
	}
	tests := []struct {
		name, script string
		stopping     bool
		args         string
		code         int
		says         string
		gone         bool
	}{
		{"at once", polite, false, "down", 0, "it has stopped after", true},
		{"too long", deaf, false, "down --timeout 100ms", exitTimeout, "is still stopping after", false},
		{"a second signal", second, false, "down --timeout 100ms --force", 0, "a second signal", true},
		{"no second one unasked", second, true, "down --timeout 300ms", exitTimeout, "is stopping already", false},
		{"unasked, it is waited for", "echo ready; sleep 0.5", true, "down", 0, "it has stopped after", true},
	}
	for _, tt := range tests {
		id := sham(t, tt.script, tt.stopping)
		got := keelson(t, nil, strings.Fields(tt.args)...)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.says) || got.stdout != "" || id.Alive() == tt.gone {
			t.Errorf("%s: %+v; alive %t", tt.name, got, id.Alive())
		}
	}

	// A process that only has the number is somebody else's.
	id := sham(t, polite, false)
	named(t, runfile.File{ID: process.ID{PID: id.PID, Start: "another boot/1"}})
	got := keelson(t, nil, "down", "-o", "json")
	var did stopped
	if err := json.Unmarshal([]byte(got.stdout), &did); err != nil || got.code != 0 || did.PID != 0 || !id.Alive() {
		t.Errorf("a number that is another's now: %+v, alive %t", got, id.Alive())
	}
	// From a folder below.
	named(t, runfile.File{ID: id})
	if err := os.Mkdir("below", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "below"))
	if got := keelson(t, nil, "down", "-o", "json"); got.code != 0 || !strings.Contains(got.stdout, `"pid": `) || id.Alive() {
		t.Errorf("from below: %+v", got)
	}
	if got := keelson(t, nil, "down", "--timeout", "0s"); got.code != exitUsage {
		t.Errorf("no time: %+v", got)
	}
}

func TestDownOfWhatDoesNotEnd(t *testing.T) {
	t.Chdir(t.TempDir())
	id := sham(t, "trap '' TERM; echo ready; while :; do sleep 0.01; done", false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var stdout, stderr buffer
	a := &app{stdout: &stdout, stderr: &stderr, env: func(string) string { return "" }}
	if code := a.run(ctx, []string{"down"}); code != exitInterrupted || !id.Alive() {
		t.Errorf("Ctrl-C: exit code %d, alive %t", code, id.Alive())
	}
	p, err := os.FindProcess(id.PID)
	if err != nil {
		t.Fatal(err)
	}
	if gone, err := a.end(t.Context(), p, id, syscall.SIGKILL, time.Minute); !gone || err != nil {
		t.Errorf("killed: %t, %v", gone, err)
	}
}
