//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
)

// patience is how long a test waits for what must happen in the end.
const patience = time.Minute

// project is a folder with a manifest, and everything that runs for it.
type project struct {
	t              *testing.T
	dir            string
	mark           string // in the environment of each of its processes
	gateway, admin string // host:port
	client         *http.Client
	token          string
	runs           []*run
}

func newProject(t *testing.T) *project {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	p := &project{
		t: t, dir: t.TempDir(), mark: "E2E_MARK=" + strconv.FormatUint(rand.Uint64(), 36),
		gateway: freeAddr(t), admin: freeAddr(t),
		client: &http.Client{Transport: transport, Timeout: 2 * patience},
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		p.sweep()
		for _, r := range p.runs {
			if t.Failed() {
				t.Logf("%s:\n%s", r.cmd, r)
			}
		}
	})
	return p
}

// manifest writes keelson.yaml: what is indented by two is services'.
func (p *project) manifest(routes, services string) {
	p.t.Helper()
	p.limited(1_000_000, routes, services)
}

func (p *project) limited(limit int, routes, services string) {
	p.t.Helper()
	if services == "" {
		services = "  {}\n"
	}
	p.write("keelson.yaml", fmt.Sprintf("version: 1\ngateway:\n  listen: %s\n  rateLimit: {limit: %d, window: 60s}\n  routes:\n%sadmin: {listen: %q}\nservices:\n%s",
		p.gateway, limit, routes, p.admin, services))
}

func (p *project) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

const (
	userRoute = "    - {path: /api/users/*, service: user-service, stripPrefix: /api}\n"
	echoRoute = "    - {path: /api/echo/*, service: echo, stripPrefix: /api, timeout: 60s}\n"
)

// userService is a service of the manifest on a port of its own.
func userService(t *testing.T, instances int) string {
	t.Helper()
	return fmt.Sprintf("  user-service: {command: [%q, user-service], port: %d, instances: %d}\n", shop, freePort(t), instances)
}

// role is a service that this program plays.
func role(t *testing.T, name string) string {
	t.Helper()
	return fmt.Sprintf("  %s: {command: [%q, %s], port: %d}\n", name, self, name, freePort(t))
}

var nextPort atomic.Int64

func init() { nextPort.Store(20000 + rand.Int64N(10000)) }

// freePort returns a port that no other test gets, below those the kernel
// chooses from: no connection of a test can take it meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := int(nextPort.Add(1))
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func freeAddr(t *testing.T) string {
	t.Helper()
	return "127.0.0.1:" + strconv.Itoa(freePort(t))
}

// command is one of the project's programs, in its folder and in a process group
// of its own, as a shell would start it.
func (p *project) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = p.dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "KEELSON_") || strings.HasPrefix(e, "PORT=")
	}), p.mark)
	// Should the tests themselves be killed, nothing of theirs goes on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr)
}

// keelson runs a command to its end.
func (p *project) keelson(args ...string) result {
	p.t.Helper()
	return p.finish(p.command(context.Background(), keelson, args...))
}

func (p *project) finish(cmd *exec.Cmd) result {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the state says the same
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// run is one long-running process of a project.
type run struct {
	p        *project
	cmd      *exec.Cmd
	began    time.Time
	out, err *transcript
	done     chan struct{}

	mu     sync.Mutex
	family map[process.ID]bool // all descendants that were ever seen
}

// up starts `keelson up`.
func (p *project) up(args ...string) *run {
	p.t.Helper()
	return p.start(p.command(context.Background(), keelson, append([]string{"up"}, args...)...))
}

func (p *project) start(cmd *exec.Cmd) *run {
	p.t.Helper()
	r := &run{p: p, cmd: cmd, out: &transcript{}, err: &transcript{}, done: make(chan struct{}), family: map[process.ID]bool{}, began: time.Now()}
	cmd.Stdout, cmd.Stderr = r.out, r.err
	// A process that lives on by mistake must not make Wait wait for its output.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.runs = append(p.runs, r)
	go func() { // until the process ends: sweep sees to that
		_ = cmd.Wait()
		close(r.done)
	}()
	return r
}

func (r *run) pid() int { return r.cmd.Process.Pid }

// signal signals the whole group, as a terminal does.
func (r *run) signal(sig syscall.Signal) {
	r.p.t.Helper()
	r.note()
	if err := process.SignalGroup(r.pid(), sig); err != nil {
		r.p.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code, -1 for a signal.
func (r *run) exit(within time.Duration) int {
	r.p.t.Helper()
	select {
	case <-r.done:
	case <-time.After(within):
		r.p.t.Fatalf("still running after %v\n%s", within, r)
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *run) String() string { return "stdout:\n" + r.out.tail() + "\nstderr:\n" + r.err.tail() }

// await waits until ok returns nil.
func (p *project) await(what string, within time.Duration, ok func() error) {
	p.t.Helper()
	deadline := time.After(within)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			var all strings.Builder
			for _, r := range p.runs {
				fmt.Fprintf(&all, "\n%s: %s", r.cmd, r)
			}
			p.t.Fatalf("%s: not within %v: %v%s", what, within, err, &all)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ready waits until everything is up.
func (r *run) ready() *run {
	r.p.t.Helper()
	r.says("Everything is up")
	return r
}

// says waits until the process has said so on stderr.
func (r *run) says(text string) {
	r.p.t.Helper()
	r.p.await(fmt.Sprintf("%q on stderr", text), patience, func() error {
		if strings.Contains(r.err.String(), text) {
			return nil
		}
		select {
		case <-r.done:
			r.p.t.Fatalf("it ended (%v) without saying %q\n%s", r.cmd.ProcessState, text, r)
		default:
		}
		return errors.New("not said yet")
	})
}

// children are the services' processes by instance, as the run file has them.
func (p *project) children() map[string]process.ID {
	f, err := runfile.Read(runfile.Path(p.dir))
	if err != nil {
		return nil
	}
	ids := map[string]process.ID{}
	for _, c := range f.Children {
		ids[c.Instance] = c.ID
	}
	return ids
}

// child returns the live process of an instance.
func (p *project) child(instance string) process.ID {
	p.t.Helper()
	var id process.ID
	p.await(instance+" in the run file", patience, func() error {
		if id = p.children()[instance]; !id.Alive() {
			return fmt.Errorf("%+v does not run", id)
		}
		return nil
	})
	return id
}

func (p *project) kill(id process.ID, sig syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(id.PID, sig); err != nil {
		p.t.Fatalf("signal %v to %d: %v", sig, id.PID, err)
	}
}

// transcript collects what a process writes.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// tail returns the last lines, without those about requests that went well.
func (w *transcript) tail() string {
	lines := slices.DeleteFunc(strings.Split(w.String(), "\n"), func(line string) bool {
		return strings.Contains(line, "INF request ") && strings.Contains(line, "status=20")
	})
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
