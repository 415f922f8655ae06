package join_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

const (
	patience    = 30 * time.Second // for what takes milliseconds on an idle machine
	credentials = "keelson:a password for tests"
)

func TestMain(m *testing.M) {
	switch os.Getenv("KEELSON_TEST_CHILD") {
	case "service":
		join.Main(map[string]join.Constructor{"users": users, "orders": users})
	case "engine":
		os.Exit(runEngine())
	}
	join.WaitForEngine(2 * time.Second)
	goleak.VerifyTestMain(m)
}

// users is a service that answers with its instance.
func users(_ context.Context, opts ...service.Option) (*service.Service, error) {
	s, err := service.New("users", append([]service.Option{service.WithDrainDelay(10 * time.Millisecond)}, opts...)...)
	if err != nil {
		return nil, err
	}
	s.HandleFunc("GET /who", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, s.Instance())
		return err
	})
	return s, nil
}

// runEngine is an engine as a process of its own, until its standard input ends.
func runEngine() int {
	ctx := context.Background()
	s, err := embedded.Start(ctx, embedded.Config{Dir: os.Getenv("KEELSON_TEST_DIR"), Listen: os.Getenv("KEELSON_TEST_LISTEN"), Credentials: credentials})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	e, err := s.Connect(ctx, "test") // it provisions
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	e.Close()
	if err := s.Stop(ctx); err != nil {
		return 1
	}
	return 0
}

// child is this test binary as another process.
type child struct {
	*exec.Cmd
	lines  *bufio.Scanner
	stderr *lockedText
	stdin  io.Closer
}

type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startChild(t *testing.T, what, dir string, args []string, env ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0], args...), stderr: new(lockedText)}
	c.Dir = dir
	c.Env = append(os.Environ(), append(env, "KEELSON_TEST_CHILD="+what)...)
	c.Stderr = c.stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin, c.lines = in, bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill() })
	return c
}

// kill ends the process and forgets it; more calls do nothing.
func (c *child) kill() {
	_ = c.Process.Kill()
	_ = c.Wait()
}

// exit waits for the process and returns its exit code.
func (c *child) exit(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Wait()
	return c.ProcessState.ExitCode()
}

func startEngine(t *testing.T, dir, listen string) (c *child, url string) {
	t.Helper()
	c = startChild(t, "engine", dir, nil, "KEELSON_TEST_DIR="+dir, "KEELSON_TEST_LISTEN="+listen)
	if !c.lines.Scan() {
		t.Fatalf("the engine did not start: %s", c.stderr)
	}
	return c, c.lines.Text()
}

// see is somebody else's view of the fleet at url.
func see(t *testing.T, url string) *registry.Registry {
	t.Helper()
	e, err := engine.Connect(t.Context(), engine.Config{URL: url, Credentials: credentials, Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	d, err := e.RegistryDriver(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := registry.Open(context.Background(), d)
	t.Cleanup(r.Close)
	if err := r.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func report(t *testing.T, base string) (health.Report, bool) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(base + "/health")
	if err != nil {
		return health.Report{}, false
	}
	defer resp.Body.Close()
	var got health.Report
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got, true
}

// freePort returns a port nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// eventually polls until ok; what says what was waited for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
