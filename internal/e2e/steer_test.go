//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// twoEchoes is a project with two instances of the echo service that runs.
func twoEchoes(t *testing.T) (*project, *run) {
	t.Helper()
	p := newProject(t)
	p.manifest(echoRoute, fmt.Sprintf("  echo: {command: [%q, echo], port: %d, instances: 2}\n", self, freePort(t)))
	up := p.up("--ephemeral").ready()
	p.serving("echo", 2)
	return p, up
}

// answering returns who answers requests through the gateway, how often.
func (p *project) answering(requests int) map[string]int {
	p.t.Helper()
	who := map[string]int{}
	for range requests {
		got := p.call("GET", "/api/echo/x", "")
		var h heard
		if err := json.Unmarshal([]byte(got.body), &h); err != nil || got.status != 200 {
			p.t.Fatalf("%d %s (%v)", got.status, got.body, err)
		}
		who[h.Instance]++
	}
	return who
}

// From the moment the command has ended, not one request goes to what it drained,
// and what was put back answers again.
func TestDrainTakesOutOfRotation(t *testing.T) {
	t.Parallel()
	p, _ := twoEchoes(t)
	if got := p.keelson("status"); got.code != 0 || !strings.Contains(got.stdout, "2/2") || got.stderr != "" {
		t.Errorf("all is well: %s", got)
	}
	for _, drained := range []string{"echo-1", "echo-2"} {
		if got := p.keelson("services", "drain", "echo", drained); got.code != 0 || got.stdout != "" {
			t.Fatal(got)
		}
		if who := p.answering(30); who[drained] != 0 {
			t.Errorf("%s is drained, and answers: %v", drained, who)
		}
		if got := p.keelson("status"); got.code != 1 || !strings.Contains(got.stdout, "1/2") || !strings.Contains(got.stdout, drained+": draining: drained by hand") {
			t.Errorf("one is drained: %s", got)
		}
		if got := p.keelson("services", "undrain", "echo."+drained); got.code != 0 {
			t.Fatal(got)
		}
	}
	if got := p.keelson("services", "drain", "echo.echo-1", "echo.echo-2"); got.code != 2 || !strings.Contains(got.stderr, "no instance of echo") {
		t.Errorf("all at once, unasked: %s", got)
	}
	if got := p.keelson("services", "drain", "echo.echo-1", "echo.echo-2", "--yes"); got.code != 0 {
		t.Fatal(got)
	}
	if got := p.call("GET", "/api/echo/x", ""); got.status != 503 {
		t.Errorf("with none in rotation: %d", got.status)
	}
}

// What runs and renews its own lease is back after it was deregistered.
func TestDeregisteredComesBack(t *testing.T) {
	t.Parallel()
	p, _ := twoEchoes(t)
	got := p.keelson("services", "deregister", "echo", "echo-1", "--yes")
	if got.code != 0 || !strings.Contains(got.stderr, "it will register again") {
		t.Errorf("%s", got)
	}
	p.serving("echo", 2)
	if got := p.keelson("services", "show", "echo", "echo-1"); got.code != 0 || !strings.Contains(got.stdout, "healthy, in rotation") || !strings.Contains(got.stdout, "200 healthy") {
		t.Errorf("%s", got)
	}
}

// A program that knows nothing of Keelson is registered by hand, in both ways.
func TestRegisterByHand(t *testing.T) {
	t.Parallel()
	p, _ := twoEchoes(t)
	port := freePort(t)
	cmd := p.command(t.Context(), self, "plain")
	cmd.Env = append(cmd.Env, "PORT="+strconv.Itoa(port))
	plain := p.start(cmd)
	p.await("the program to listen", patience, func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			c.Close()
		}
		return err
	})
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	checked := p.keelson("services", "register", "legacy", "--address", base, "--health", "/health")
	if checked.code != 0 {
		t.Fatal(checked)
	}
	p.await("the check to pass", patience, func() error {
		if got := p.keelson("services", "pick", "legacy"); got.stdout != base+"\n" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	beating := p.keelson("services", "register", "beating", "--address", base)
	name := strings.TrimSpace(beating.stdout)
	if beating.code != 0 || p.keelson("services", "heartbeat", name).code != 0 {
		t.Fatal(beating)
	}
	hearts := p.start(p.command(t.Context(), keelson, "services", "heartbeat", name, "--every", "100ms"))
	if got := p.keelson("services", "show", name); !strings.Contains(got.stdout, "heartbeats: ") {
		t.Errorf("%s", got)
	}
	if got := p.keelson("services", "deregister", name, "--yes"); got.code != 0 {
		t.Fatal(got)
	}
	if code := hearts.exit(patience); code != 5 {
		t.Errorf("heartbeats of one that is gone end with %d\n%s", code, hearts)
	}
	plain.signal(syscall.SIGKILL)
	p.await("what is gone to be gone", patience, func() error {
		if got := p.keelson("services", "pick", "legacy"); got.code != 5 && got.code != 1 {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// Without a system there is nothing to show; with one off loopback a token is
// needed, which the project's own commands bring by themselves.
func TestStatusFromElsewhere(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	if got := p.keelson("status", "--url", "http://"+p.admin); got.code != 3 || got.stdout != "" {
		t.Errorf("nothing runs: %s", got)
	}
	_, port, err := net.SplitHostPort(p.admin)
	if err != nil {
		t.Fatal(err)
	}
	p.admin = "0.0.0.0:" + port
	p.manifest(userRoute, "")
	p.up("--ephemeral").ready()
	if got := p.keelson("status"); got.code != 0 || !strings.Contains(got.stdout, "all is well") {
		t.Errorf("in the project's folder: %s", got)
	}
	bare := p.keelson("status", "--url", "http://127.0.0.1:"+port)
	if bare.code != 4 || !strings.Contains(bare.stderr, "KEELSON_TOKEN") {
		t.Errorf("without a token: %s", bare)
	}
	token := strings.TrimSpace(p.keelson("token", "--scope", "keelson:admin").stdout)
	cmd := p.command(t.Context(), keelson, "status", "--url", "http://127.0.0.1:"+port)
	cmd.Env = append(cmd.Env, "KEELSON_TOKEN="+token)
	if got := p.finish(cmd); got.code != 0 || strings.Contains(got.stdout+got.stderr, token) {
		t.Errorf("with one: %s", got)
	}
	if err := os.Remove(p.dir + "/.keelson/run.json"); err != nil {
		t.Fatal(err)
	}
	below := p.command(t.Context(), keelson, "status", "--url", "http://127.0.0.1:"+port, "-o", "json")
	var told struct{ Code string }
	if got := p.finish(below); got.code != 4 || json.Unmarshal([]byte(got.stderr), &told) != nil || told.Code != "unauthenticated" {
		t.Errorf("as JSON: %s", got)
	}
}
