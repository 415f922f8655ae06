//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/runfile"
)

// first200 polls the gateway with a token and returns how long after the start
// it first answered 200.
func (p *project) first200(r *run) time.Duration {
	p.t.Helper()
	bearer := p.bearer()
	p.await("the first 200", patience, func() error {
		got, err := p.send("GET", "/api/users", "", bearer...)
		if err == nil && got.status != 200 {
			err = fmt.Errorf("%d %s", got.status, got.body)
		}
		return err
	})
	return time.Since(r.began)
}

// TestUpBuildsAndServesThePackage: from nothing to the first answer, with a
// package that must be built. It is the shop itself, in a folder of the module.
func TestUpBuildsAndServesThePackage(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	module, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	p.write("go.work", "go 1.26.0\n\nuse "+module+"\n")
	p.manifest(userRoute, fmt.Sprintf("  user-service: {package: github.com/keelson-go/keelson/examples/shop, args: [user-service], port: %d}\n", freePort(t)))
	up := p.up()
	t.Logf("with a build: first 200 after %v", p.first200(up).Round(time.Millisecond))
	up.ready()
	if !strings.Contains(up.err.String(), "built github.com/keelson-go/keelson/examples/shop in ") {
		t.Errorf("nothing is said of the build:\n%s", up)
	}
	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
}

func TestUpServesAndItsBannerIsRight(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 1))
	up := p.up()
	took := p.first200(up)
	up.ready()
	for range 200 {
		p.call("GET", "/api/users", "")
	}
	t.Logf("first 200 after %v; resident: up %.1f MiB, user-service %.1f MiB", took.Round(time.Millisecond),
		p.rss(up.pid()), p.rss(p.child("user-service-1").PID))

	// The line is to be pasted into a shell.
	line := regexp.MustCompile(`(?m)^\s*(curl .*)$`).FindStringSubmatch(up.err.String())
	if line == nil {
		t.Fatalf("no curl line:\n%s", up)
	}
	got := p.finish(p.command(t.Context(), "sh", "-c", line[1]))
	if got.code != 0 || strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("%s: %s", line[1], got)
	}
	for _, want := range []string{
		"gateway   http://" + p.gateway, "admin API http://" + p.admin + "/v1/services", "user-service-1", "/api/users/* → user-service",
	} {
		if !strings.Contains(up.err.String(), want) {
			t.Errorf("the banner lacks %q:\n%s", want, up.err)
		}
	}

	info, err := os.Stat(runfile.Path(p.dir))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("run.json has mode %v", info.Mode())
	}
	f, err := runfile.Read(runfile.Path(p.dir))
	if err != nil {
		t.Fatal(err)
	}
	if f.PID != up.pid() || f.Gateway != "http://"+p.gateway || f.Admin != "http://"+p.admin || f.Engine.URL == "" || len(f.Children) != 1 {
		t.Errorf("run.json: %+v", f)
	}

	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
	if _, err := os.Stat(runfile.Path(p.dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run.json after a clean end: %v", err)
	}
	// The early requests were refused, and nothing else is worth a warning.
	for line := range strings.Lines(up.out.String()) {
		if (strings.Contains(line, " WRN ") || strings.Contains(line, " ERR ")) && !strings.Contains(line, "status=503") {
			t.Errorf("a quiet run warns: %s", line)
		}
	}
}

// TestGatewayAnswersBeforeServicesDo: 503 and not a refused connection.
func TestGatewayAnswersBeforeServicesDo(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, "  user-service: {command: [sleep, \"1000\"]}\n")
	bearer := p.bearer()
	up := p.up()
	p.await("an answer", patience, func() error {
		got, err := p.send("GET", "/api/users", "", bearer...)
		if err != nil {
			return err
		}
		problem, err := got.problem()
		if err != nil || got.status != 503 || problem.Code != "no_healthy_instance" || !problem.Retryable || got.header.Get("Retry-After") == "" {
			t.Errorf("%d %v %s (%v)", got.status, got.header, got.body, err)
		}
		return nil
	})
	up.signal(syscall.SIGINT) // during the start
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d for Ctrl-C during the start\n%s", code, up)
	}
	up.gone(patience)
}

// TestPlainCommandIsServed: a program that knows nothing of Keelson is reached
// through the gateway, also after it has crashed, and leaves no record behind.
func TestPlainCommandIsServed(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest("    - {path: /plain/*, service: plain}\n", role(t, "plain"))
	up := p.up().ready()
	answers := func() error {
		got := p.call("GET", "/plain/x?y", "")
		if got.status != 200 || got.body != "GET /plain/x?y\n" {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	}
	if err := answers(); err != nil {
		t.Error(err)
	}
	id := p.child("plain-1")
	p.kill(id, syscall.SIGKILL)
	p.await("the process to be started again", patience, func() error {
		if now := p.children()["plain-1"]; now == id || !now.Alive() {
			return fmt.Errorf("it is %+v", now)
		}
		return nil
	})
	p.await("an answer after the crash", patience, answers)
	p.serving("plain", 1)
	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
}

func TestManifestIsReloaded(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	services := userService(t, 1)
	p.manifest(userRoute, services)
	up := p.up().ready()
	if got := p.call("GET", "/v2/users", ""); got.status != 404 {
		t.Fatalf("before: %d", got.status)
	}
	readers := startLoad(2, p.reading)
	p.manifest(userRoute+"    - {path: /v2/users/*, service: user-service, stripPrefix: /v2}\n", services)
	p.await("the new route", patience, func() error {
		if got := p.call("GET", "/v2/users", ""); got.status != 200 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	up.says("routes and policies are those of the changed keelson.yaml now")

	p.write("keelson.yaml", "version: 1\ngateway:\n  rutes: []\n")
	up.says("keelson.yaml was changed but can't be used; nothing changes:")
	up.says(`keelson.yaml:3:3: gateway: unknown key "rutes"; did you mean "routes"?`)
	if got := p.call("GET", "/v2/users", ""); got.status != 200 {
		t.Errorf("after a broken manifest: %d", got.status)
	}
	// What the manifest accepts and the gateway can't is no reason to end either.
	p.manifest(userRoute+"    - {path: /health, service: user-service}\n", services)
	p.await("another complaint", patience, func() error {
		if n := strings.Count(up.err.String(), "nothing changes:"); n != 2 {
			return fmt.Errorf("%d complaints", n)
		}
		return nil
	})
	// An editor that writes a new file and renames it.
	p.manifest(userRoute, services)
	if err := os.Rename(filepath.Join(p.dir, "keelson.yaml"), filepath.Join(p.dir, "keelson.yaml~")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(p.dir, "keelson.yaml~"), filepath.Join(p.dir, "keelson.yaml")); err != nil {
		t.Fatal(err)
	}
	p.await("the route to go", patience, func() error {
		if got := p.call("GET", "/v2/users", ""); got.status != 404 {
			return fmt.Errorf("%d", got.status)
		}
		return nil
	})
	readers.flawless(p, "GETs over four changes of the manifest")
	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
}

func TestEphemeralLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	tmp := t.TempDir()
	p.manifest(userRoute, userService(t, 1))
	for range 2 {
		cmd := p.command(t.Context(), keelson, "up", "--ephemeral")
		cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
		up := p.start(cmd).ready()
		if got := p.users(); len(got) != 0 {
			t.Errorf("users of another run: %v", got)
		}
		p.makeUser("a@example.org")
		if left, _ := filepath.Glob(tmp + "/*/*"); !slices.ContainsFunc(left, func(s string) bool { return strings.HasSuffix(s, "/engine") }) {
			t.Errorf("no engine's folder in the temporary one: %q", left)
		}
		up.signal(syscall.SIGINT)
		if code := up.exit(patience); code != 0 {
			t.Fatalf("exit code %d\n%s", code, up)
		}
		up.gone(patience)
		if left, _ := filepath.Glob(tmp + "/*"); len(left) != 0 {
			t.Errorf("left in the temporary folder: %q", left)
		}
		entries, err := os.ReadDir(filepath.Join(p.dir, ".keelson"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !slices.Contains([]string{"dev.key", "lock", "bin", ".gitignore"}, e.Name()) {
				t.Errorf("left in .keelson: %s", e.Name())
			}
		}
	}
}
