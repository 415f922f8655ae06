package join_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
)

// SIGTERM to a real process: it leaves the registry and exits with 0.
func TestSignal(t *testing.T) {
	t.Parallel()
	s := startEmbedded(t)
	first, err := s.Connect(t.Context(), "test") // it provisions
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Close)
	others := see(t, s.URL())
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		c := startChild(t, "service", t.TempDir(), []string{"users"},
			"KEELSON_ENGINE_URL="+s.URL(), "KEELSON_ENGINE_CREDENTIALS="+credentials, "KEELSON_INSTANCE=users-1")
		eventually(t, "it is in rotation", func() bool { return others.Endpoints("users").Len() == 1 })
		if err := c.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if code := c.exit(t); code != join.ExitOK {
			t.Errorf("%v: exit code %d\n%s", signal, code, c.stderr)
		}
		eventually(t, "it has left", func() bool { return len(others.List()) == 0 })
		if strings.Contains(c.stderr.String(), "a password for tests") {
			t.Errorf("the log has the password:\n%s", c.stderr)
		}
	}
}

// A second signal ends a drain at once, with 1.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	c := startChild(t, "service", t.TempDir(), []string{"users", "--standalone"},
		"PORT="+port, "KEELSON_DRAIN_DELAY=1m", "KEELSON_STOP_TIMEOUT=2m")
	base := "http://127.0.0.1:" + port
	eventually(t, "it serves", func() bool { got, ok := report(t, base); return ok && got.Status.Serving() })
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it drains", func() bool { got, ok := report(t, base); return ok && got.Status == health.Draining })
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.exit(t); code != join.ExitFailed || !strings.Contains(c.stderr.String(), "force") {
		t.Errorf("exit code %d\n%s", code, c.stderr)
	}
}

// Without an engine a process says how to get one, and exits with 3.
func TestNoEngine(t *testing.T) {
	t.Parallel()
	c := startChild(t, "service", t.TempDir(), []string{"users"}, "KEELSON_ENGINE_URL=")
	if code := c.exit(t); code != join.ExitUnreachable || !strings.Contains(c.stderr.String(), "keelson up") || !strings.Contains(c.stderr.String(), "--standalone") {
		t.Errorf("exit code %d\n%s", code, c.stderr)
	}
}

// A service started by hand finds the engine by the run file.
func TestByRunFile(t *testing.T) {
	t.Parallel()
	s := startEmbedded(t)
	first, err := s.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Close)
	dir := t.TempDir()
	self, err := process.Self()
	if err != nil {
		t.Fatal(err)
	}
	f := runfile.File{ID: self, StartedAt: time.Now(), Engine: runfile.Engine{URL: s.URL(), Credentials: credentials}}
	if err := runfile.Write(runfile.Path(dir), f); err != nil {
		t.Fatal(err)
	}
	others := see(t, s.URL())
	c := startChild(t, "service", dir, []string{"users"}, "KEELSON_ENGINE_URL=")
	eventually(t, "it is in rotation", func() bool { return others.Endpoints("users").Len() == 1 })
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.exit(t); code != join.ExitOK {
		t.Errorf("exit code %d\n%s", code, c.stderr)
	}
}

// The engine is killed and comes back, with the same directory at the same port:
// meanwhile the service serves and says degraded, then it is registered again,
// without having been restarted. So is one whose engine lost its disk.
func TestEngineKilled(t *testing.T) {
	t.Parallel()
	for name, wiped := range map[string]bool{"same directory": false, "directory lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, listen := t.TempDir(), "127.0.0.1:"+freePort(t)
			server, url := startEngine(t, dir, listen)
			others := see(t, url)
			c := startChild(t, "service", t.TempDir(), []string{"users"},
				"KEELSON_ENGINE_URL="+url, "KEELSON_ENGINE_CREDENTIALS="+credentials)
			eventually(t, "it is in rotation", func() bool { return others.Endpoints("users").Len() == 1 })
			base := others.Endpoints("users").At(0).Address
			before, _ := report(t, base)

			server.kill()
			eventually(t, "it is degraded, and serves", func() bool {
				got, ok := report(t, base)
				return ok && got.Status == health.Degraded && got.Dependencies["registry"].Status == health.Unhealthy
			})
			if others.Endpoints("users").Len() != 1 {
				t.Error("others lost it with the engine")
			}
			if wiped {
				dir = t.TempDir()
			}
			_, _ = startEngine(t, dir, listen)
			eventually(t, "it is healthy again", func() bool { got, ok := report(t, base); return ok && got.Status == health.Healthy })
			fresh := see(t, url)
			eventually(t, "it is registered again", func() bool { return fresh.Endpoints("users").Len() == 1 })
			if got := fresh.Endpoints("users").At(0).Address; got != base {
				t.Errorf("registered at %s, was at %s", got, base)
			}
			if after, _ := report(t, base); after.Uptime <= before.Uptime {
				t.Error("the service was restarted")
			}
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := c.exit(t); code != join.ExitOK {
				t.Errorf("exit code %d\n%s", code, c.stderr)
			}
			eventually(t, "it has left", func() bool { return fresh.Endpoints("users").Len() == 0 })
		})
	}
}
