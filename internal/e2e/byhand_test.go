//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// hand starts the user service by hand.
func (p *project) hand(port int, args ...string) *run {
	p.t.Helper()
	cmd := p.command(p.t.Context(), shop, append([]string{"user-service"}, args...)...)
	cmd.Env = append(cmd.Env, fmt.Sprintf("PORT=%d", port))
	return p.start(cmd)
}

// healthOf reads a service's own /health.
func (p *project) healthOf(port int) (status int, report struct {
	Status       string
	Dependencies map[string]struct{ Status, Error string }
}) {
	p.t.Helper()
	p.await("/health", patience, func() error {
		req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/health", port), nil)
		if err != nil {
			return err
		}
		got, err := p.roundTrip(req)
		if err != nil {
			return err
		}
		status = got.status
		return json.Unmarshal([]byte(got.body), &report)
	})
	return status, report
}

func TestServiceByHandFindsUp(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, "")
	up := p.up().ready()
	if !strings.Contains(up.err.String(), "there is no service") {
		t.Errorf("a route to nowhere is not warned of:\n%s", up)
	}
	port := freePort(t)
	hand := p.hand(port)
	p.serving("user-service", 1)
	u := p.makeUser("a@example.org")
	if status, report := p.healthOf(port); status != 200 || report.Status != "healthy" {
		t.Errorf("/health: %d %+v", status, report)
	}
	hand.signal(syscall.SIGTERM)
	if code := hand.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, hand)
	}
	p.serving("user-service", 0)
	if got := p.call("GET", "/api/users/"+u.ID, ""); got.status != 503 {
		t.Errorf("without it: %d %s", got.status, got.body)
	}
}

func TestServiceByHandStandalone(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	port := freePort(t)
	hand := p.hand(port, "--standalone")
	p.await("it to be healthy enough", patience, func() error {
		status, report := p.healthOf(port)
		if status != 200 || report.Status != "degraded" || !strings.Contains(report.Dependencies["registry"].Error, "standalone: not registered") {
			return fmt.Errorf("%d %+v", status, report)
		}
		return nil
	})
	req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/users", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.roundTrip(req); err != nil || got.status != 200 {
		t.Errorf("%d %s (%v)", got.status, got.body, err)
	}
	hand.signal(syscall.SIGINT)
	if code := hand.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, hand)
	}
}

func TestServiceByHandWithoutEngine(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	hand := p.hand(freePort(t))
	if code := hand.exit(patience); code != 3 || !strings.Contains(hand.err.String(), "keelson up") || !strings.Contains(hand.err.String(), "--standalone") {
		t.Errorf("exit code %d, want 3\n%s", code, hand)
	}
	// A run file that a killed `up` has left is as good as none.
	p.manifest(userRoute, "")
	up := p.up().ready()
	if err := syscall.Kill(up.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	up.exit(patience)
	again := p.hand(freePort(t))
	if code := again.exit(patience); code != 3 || !strings.Contains(again.err.String(), "has ended") {
		t.Errorf("beside a dead run file: exit code %d, want 3\n%s", code, again)
	}
}
