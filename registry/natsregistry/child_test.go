package natsregistry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

// A child is the test binary run again as a service: it registers and serves
// until its standard input ends. Or, without an id, as a registry node: it
// campaigns for the leadership and prints whether it leads.
const childVariable = "KEELSON_TEST_CHILD" // "service" or "node"

const (
	childID          = "KEELSON_TEST_ID" // the instance's
	childURL         = "KEELSON_TEST_URL"
	childCredentials = "KEELSON_TEST_CREDENTIALS"
	childTTL         = "KEELSON_TEST_TTL"
)

func child() {
	run := serve
	if os.Getenv(childVariable) == "node" {
		run = campaign
	}
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func serve() error {
	ctx, id := context.Background(), os.Getenv(childID)
	ttl, err := time.ParseDuration(os.Getenv(childTTL))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(registry.InstanceHeader, id)
	}))
	e, err := engine.Connect(ctx, engine.Config{URL: os.Getenv(childURL), Credentials: os.Getenv(childCredentials)})
	if err != nil {
		return err
	}
	d, err := natsregistry.New(ctx, e.Conn())
	if err != nil {
		return err
	}
	r := registry.Open(ctx, d, registry.WithTTL(ttl))
	if err := r.WaitSynced(ctx); err != nil {
		return err
	}
	g, err := r.Register(ctx, registry.Instance{Name: "users", ID: id, Address: "http://" + l.Addr().String(), Health: "/health"})
	if err != nil {
		return err
	}
	if err := g.Err(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func campaign() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e, err := engine.Connect(ctx, engine.Config{URL: os.Getenv(childURL), Credentials: os.Getenv(childCredentials)})
	if err != nil {
		return err
	}
	d, err := natsregistry.New(ctx, e.Conn())
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, it has ended
	}()
	for leads := range d.Lead(ctx) {
		fmt.Println(leads)
	}
	return nil
}

// spawn starts a child and waits until it has registered.
func spawn(t *testing.T, s *server, id string, ttl time.Duration) *os.Process {
	t.Helper()
	process, lines := run(t, s, childVariable+"=service", childID+"="+id, childTTL+"="+ttl.String())
	if line := <-lines; line != "ready" {
		t.Fatalf("child %s says %q", id, line)
	}
	return process
}

// run starts a child. What it prints comes line by line.
func run(t *testing.T, s *server, env ...string) (*os.Process, <-chan string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childURL+"="+s.embedded.URL(), childCredentials+"="+s.embedded.Credentials())
	cmd.Env = append(cmd.Env, env...)
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
	lines := make(chan string, 100)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it fails if the test has killed it
		stdin.Close()
		<-read
		_ = cmd.Wait() // "signal: killed"
	})
	return cmd.Process, lines
}

// runNode runs a registry with a checker, as a registry node does.
func runNode(t *testing.T, s *server) (*registry.Registry, *registry.Checker) {
	t.Helper()
	d, err := natsregistry.New(within(t), s.node.Conn(), natsregistry.WithSystem(s.node.System()))
	if err != nil {
		t.Fatal(err)
	}
	r := registry.Open(context.Background(), d)
	t.Cleanup(r.Close)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	checker := registry.NewChecker(r)
	go func() { ended <- checker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := r.WaitSynced(within(t)); err != nil {
		t.Fatal(err)
	}
	return r, checker
}

// status is what r has of an instance, "" if nothing.
func status(r *registry.Registry, id string) registry.Status {
	in, _ := r.Get(registry.Key{Service: "users", ID: id})
	return in.Status
}

// until polls cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("this did not happen: %s", what)
		}
	}
}
