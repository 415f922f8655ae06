//go:build linux || darwin

package supervise_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/supervise"
	"go.uber.org/goleak"
)

const (
	roleVar  = "KEELSON_SUPERVISE_TEST_ROLE"
	patience = 30 * time.Second
)

// TestMain lets the test binary be its own children.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		name, arg, _ := strings.Cut(role, " ")
		os.Exit(roles[name](arg))
	}
	goleak.VerifyTestMain(m)
}

var roles map[string]func(arg string) int

func init() {
	roles = map[string]func(string) int{
		// serve says so and ends cleanly at SIGTERM.
		"serve": func(string) int {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			fmt.Println("ready", os.Getpid())
			<-ctx.Done()
			fmt.Print("drained") // no line end
			return 0
		},
		"fail": func(string) int {
			for i := range 25 {
				fmt.Fprintln(os.Stderr, "line", i)
			}
			return 6
		},
		// stubborn and its own child don't care for SIGTERM.
		"stubborn": func(string) int {
			signal.Ignore(syscall.SIGTERM)
			child := spawn("deaf", os.Stdout)
			fmt.Println("ready", os.Getpid(), child.Process.Pid)
			return linger()
		},
		"deaf": func(string) int {
			signal.Ignore(syscall.SIGTERM)
			return linger()
		},
		// npm ends at once at SIGTERM, while its child drains: it writes the
		// file arg.
		"npm": func(arg string) int {
			child := spawn("drain "+arg, os.Stdout)
			fmt.Println("ready", os.Getpid(), child.Process.Pid)
			return linger()
		},
		"drain": func(arg string) int {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			if err := os.WriteFile(arg+".up", nil, 0o600); err != nil {
				return 1
			}
			<-ctx.Done()
			<-time.After(200 * time.Millisecond)
			if err := os.WriteFile(arg, nil, 0o600); err != nil {
				return 1
			}
			return 0
		},
		// orphan leaves a child behind and ends at once.
		"orphan": func(string) int {
			child := spawn("deaf", os.Stdout)
			fmt.Println("ready", os.Getpid(), child.Process.Pid)
			return 1
		},
		// up supervises two children until it is killed.
		"up": func(string) int {
			s, err := supervise.New(supervise.Config{
				Children: []supervise.Child{child("a", "serve"), child("b", "stubborn")},
				OnLine:   func(l supervise.Line) { fmt.Println(l.Text); noteReady(l) },
			})
			if err != nil {
				return 1
			}
			err = s.Run(context.Background(), func() { fmt.Println("all up") })
			fmt.Fprintln(os.Stderr, err)
			return 1
		},
	}
}

// linger keeps a process that ignores its end from being there for ever if a
// test fails.
func linger() int {
	<-time.After(2 * time.Minute)
	return 0
}

// spawn starts another role in the same process group.
func spawn(role string, out *os.File) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	return cmd
}

// ready holds the instances whose children have said so.
var ready sync.Map

func noteReady(l supervise.Line) {
	if strings.HasPrefix(l.Text, "ready") {
		ready.Store(l.Instance, true)
	}
}

// child makes a child that is healthy once it wrote a line that begins with
// "ready". Instances must be unique in the process.
func child(instance, role string) supervise.Child {
	return supervise.Child{
		Name: instance, Instance: instance,
		Command: []string{os.Args[0]},
		Env:     append(os.Environ(), roleVar+"="+role),
		Healthy: func(context.Context) error {
			if _, ok := ready.Load(instance); !ok {
				return errors.New("not ready")
			}
			return nil
		},
	}
}

// run is a supervisor at work.
type run struct {
	*supervise.Supervisor
	cancel context.CancelFunc
	ready  chan struct{}
	result chan error

	mu    sync.Mutex
	lines []supervise.Line
}

func start(t *testing.T, grace time.Duration, children ...supervise.Child) *run {
	t.Helper()
	for _, c := range children {
		ready.Delete(c.Instance) // of an earlier -count
	}
	r := &run{ready: make(chan struct{}), result: make(chan error, 1)}
	s, err := supervise.New(supervise.Config{Children: children, Grace: grace, OnLine: func(l supervise.Line) {
		r.mu.Lock()
		r.lines = append(r.lines, l)
		r.mu.Unlock()
		noteReady(l) // last, so that who is ready has been heard
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.Supervisor = s
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.result <- s.Run(ctx, func() { close(r.ready) }) }()
	return r
}

func (r *run) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-r.ready:
	case err := <-r.result:
		t.Fatalf("ended before it was ready: %v", err)
	case <-time.After(patience):
		t.Fatal("not ready")
	}
}

func (r *run) stop(t *testing.T) error {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.result:
		return err
	case <-time.After(patience):
		t.Fatal("does not stop")
		return nil
	}
}

// pids returns what the child said after "ready": its process id and perhaps
// its own child's.
func (r *run) pids(t *testing.T, instance string) []int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var pids []int
	for _, l := range r.lines {
		if l.Instance == instance && strings.HasPrefix(l.Text, "ready") {
			pids = parsePIDs(t, l.Text)
		}
	}
	return pids
}

func parsePIDs(t *testing.T, line string) []int {
	t.Helper()
	var pids []int
	for _, f := range strings.Fields(line)[1:] {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// awaitGone fails the test if a process is still there after a while. A zombie
// nobody waits for is gone.
func awaitGone(t *testing.T, pids ...int) {
	t.Helper()
	await(t, fmt.Sprintf("processes %v to be gone", pids), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool {
			_, err := process.Identify(pid)
			return err == nil
		})
	})
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestCleanRun(t *testing.T) {
	t.Parallel()
	r := start(t, 0, child("clean-1", "serve"), child("clean-2", "serve"))
	r.awaitReady(t)
	for _, st := range r.List() {
		if !st.Process.LeadsGroup() || st.State != supervise.Healthy || st.StartedAt.IsZero() {
			t.Errorf("%+v, want a healthy leader of its own group", st)
		}
	}
	if err := r.stop(t); err != nil {
		t.Errorf("clean stop: %v", err)
	}
	for _, st := range r.List() {
		if st.Process.Alive() || st.State != supervise.Stopped || st.Exit == nil || *st.Exit != (supervise.Exit{}) {
			t.Errorf("after the stop %+v", st)
		}
		lines := r.Lines(st.Instance)
		if len(lines) != 2 || lines[1] != "drained" {
			t.Errorf("lines %q, want the unfinished last one too", lines)
		}
	}
}

func TestRealFailureToStart(t *testing.T) {
	t.Parallel()
	r := start(t, 0, child("other", "serve"), child("failing", "fail"))
	err := <-r.result
	failed, ok := errors.AsType[*supervise.StartError](err)
	if !ok || failed.Instance != "failing" || !failed.Ended || failed.Exit.Code != 6 {
		t.Fatalf("error %v", err)
	}
	if len(failed.Lines) != 20 || failed.Lines[0] != "line 5" || failed.Lines[19] != "line 24" {
		t.Errorf("last lines %q", failed.Lines)
	}
	r.cancel()
}

func TestCrashIsRestarted(t *testing.T) {
	t.Parallel()
	r := start(t, 0, child("crashing", "serve"))
	r.awaitReady(t)
	first := r.List()[0].Process
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "a restart", func() bool {
		st := r.List()[0]
		return st.State == supervise.Healthy && st.Restarts == 1
	})
	st := r.List()[0]
	if st.Process == first || !st.Process.Alive() || st.Exit == nil || st.Exit.Signal != syscall.SIGKILL {
		t.Errorf("after the restart %+v", st)
	}
	if err := r.stop(t); err != nil {
		t.Error(err)
	}
}

func TestStubbornGroupIsKilled(t *testing.T) {
	t.Parallel()
	r := start(t, 100*time.Millisecond, child("stubborn", "stubborn"))
	r.awaitReady(t)
	pids := r.pids(t, "stubborn")
	if err := r.stop(t); !errors.Is(err, supervise.ErrKilled) {
		t.Errorf("error %v, want ErrKilled", err)
	}
	awaitGone(t, pids...)
}

func TestGroupDrainsAfterItsLeader(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "drained")
	r := start(t, patience, child("npm", "npm "+file))
	r.awaitReady(t)
	await(t, "the grandchild", func() bool { _, err := os.Stat(file + ".up"); return err == nil })
	if err := r.stop(t); err != nil {
		t.Errorf("error %v, want a clean stop", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the leader's child was not left the time to drain: %v", err)
	}
}

func TestLeftoversOfACrashAreKilled(t *testing.T) {
	t.Parallel()
	c := child("orphan", "orphan")
	c.Healthy = func(context.Context) error { return errors.New("never") }
	r := start(t, 0, c)
	if _, ok := errors.AsType[*supervise.StartError](<-r.result); !ok {
		t.Error("no StartError")
	}
	r.cancel()
	pids := r.pids(t, "orphan")
	if len(pids) != 2 {
		t.Fatalf("pids %v", pids)
	}
	awaitGone(t, pids...)
}

func TestMissingProgram(t *testing.T) {
	t.Parallel()
	c := child("missing", "serve")
	c.Command = []string{filepath.Join(t.TempDir(), "nothing-here")}
	r := start(t, 0, c)
	if err := <-r.result; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want one that wraps os.ErrNotExist", err)
	}
	r.cancel()
}

// TestParentKilled kills a supervising process with SIGKILL and expects that
// nothing it started lives on, grandchildren that ignore SIGTERM included.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"=up")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "all up" {
			break
		}
		pids = append(pids, parsePIDs(t, lines.Text())...)
	}
	if len(pids) != 3 {
		t.Errorf("children %v, want three", pids)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	awaitGone(t, pids...)
}

func TestReap(t *testing.T) {
	t.Parallel()
	var ids []process.ID
	var cmds []*exec.Cmd
	for _, role := range []string{"serve", "stubborn"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), roleVar+"="+role)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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
		id, err := process.Identify(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		ids, cmds = append(ids, id), append(cmds, cmd)
	}
	var wg sync.WaitGroup
	for _, cmd := range cmds { // as init would
		wg.Go(func() { _ = cmd.Wait() })
	}

	others := []process.ID{
		{PID: ids[0].PID, Start: "another boot/1"}, // recycled
		{PID: 1, Start: ids[0].Start},
		{PID: -1}, {PID: 0}, {},
	}
	if got, err := supervise.Reap(t.Context(), time.Second, others...); err != nil || got != nil {
		t.Errorf("Reap of others = %v, %v; want nothing done", got, err)
	}
	if !ids[0].Alive() {
		t.Fatal("Reap killed a process that only has the number")
	}
	got, err := supervise.Reap(t.Context(), 200*time.Millisecond, slices.Concat(others, ids)...)
	if err != nil || !slices.Equal(got, ids) {
		t.Errorf("Reap = %v, %v; want %v", got, err, ids)
	}
	wg.Wait()
	if got, err := supervise.Reap(t.Context(), time.Second, ids...); err != nil || got != nil {
		t.Errorf("a second Reap = %v, %v", got, err)
	}
}
