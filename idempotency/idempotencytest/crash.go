package idempotencytest

import (
	"bufio"
	"context"
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

	"github.com/keelson-go/keelson/idempotency"
)

// childVariable makes the test binary a [Child].
const childVariable = "KEELSON_TEST_CHILD"

// Child is for a package's TestMain: it reports whether this process is not to run
// tests, but was started by [Crash] or [Start], and is over by then. Such a process
// serves requests with the store that open returns; each one does the work, which
// may be nil, and then never ends.
func Child(open func(ctx context.Context) (s idempotency.Store, work func(ctx context.Context) error, err error)) bool {
	if os.Getenv(childVariable) == "" {
		return false
	}
	if err := serve(open); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	return true
}

func serve(open func(context.Context) (idempotency.Store, func(context.Context) error, error)) error {
	ctx := context.Background()
	store, work, err := open(ctx)
	if err != nil {
		return err
	}
	once, err := idempotency.Middleware(store, idempotency.WithLease(longLease))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: deadline, Handler: once(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if work != nil {
			if err := work(r.Context()); err != nil {
				fmt.Println(err)
			}
		}
		fmt.Println("worked")
		<-ctx.Done() // never: the process is killed here
	}))}
	go server.Serve(l) // it ends with the process
	fmt.Println("http://" + l.Addr().String())
	_, err = io.Copy(io.Discard, os.Stdin) // whoever started us may die, too
	return err
}

// Process is a [Child], seen from outside.
type Process struct {
	url   string
	lines <-chan string
	kill  func()
}

// Start starts a [Child] with more variables in its environment, as name=value.
func Start(t *testing.T, env ...string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), childVariable+"=1"), env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	kill := sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // SIGKILL
		<-read
		_ = cmd.Wait() // "signal: killed"
		stdin.Close()
	})
	t.Cleanup(kill)
	url, ok := <-lines
	if !ok || !strings.HasPrefix(url, "http://") {
		t.Fatalf("the other process says %q", url)
	}
	return &Process{url, lines, kill}
}

// Die has the process begin on a POST of "{}" to /orders with the key, and
// kills it (SIGKILL) when the work is done and nothing is answered.
func (p *Process) Die(t *testing.T, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/orders", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(idempotency.Header, key)
	answered := make(chan error, 1)
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	go func() {
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
			err = fmt.Errorf("it has answered %s", resp.Status)
		} else {
			err = nil
		}
		answered <- err
	}()
	if line := <-p.lines; line != "worked" {
		t.Fatalf("the other process says %q", line)
	}
	p.kill()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

// Crash kills a real process in the middle of a request. Its key is then in use for
// as long as the lease lasts, and free after. The test binary's TestMain calls
// [Child], to which env says how to open the store under test.
func Crash(t *testing.T, open Open, env ...string) {
	Start(t, env...).Die(t, "k")
	executions := 0
	h := around(t, open(t), func(w http.ResponseWriter, _ *http.Request) {
		executions++
		w.WriteHeader(http.StatusCreated)
	})
	w := post(t, h, "k", "{}")
	if w.Code != http.StatusConflict || w.Header().Get("Retry-After") == "" {
		t.Fatalf("at once: %d %s", w.Code, w.Body)
	}
	late := time.After(deadline)
	for ; w.Code == http.StatusConflict; w = post(t, h, "k", "{}") {
		select {
		case <-time.After(lease / 10):
		case <-late:
			t.Fatalf("after the lease: %d %s", w.Code, w.Body)
		}
	}
	if replayed := w.Header().Get(idempotency.ReplayedHeader); w.Code != http.StatusCreated || replayed != "" {
		t.Errorf("after the lease: %d %s, replayed: %q", w.Code, w.Body, replayed)
	}
	if w := post(t, h, "k", "{}"); w.Code != http.StatusCreated || w.Header().Get(idempotency.ReplayedHeader) != "true" || executions != 1 {
		t.Errorf("once more: %d %s, carried out %d times here", w.Code, w.Body, executions)
	}
}
