//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keelson-go/keelson/internal/process"
)

// diagnosis is what the doctor says, by check.
type diagnosis map[string][]struct{ Check, Verdict, Message, Fix string }

// doctor runs it, which must end with the code.
func (p *project) doctor(code int, args ...string) diagnosis {
	p.t.Helper()
	got := p.keelson(append([]string{"doctor", "-o", "json"}, args...)...)
	var told struct {
		Well   bool
		Checks []struct{ Check, Verdict, Message, Fix string }
	}
	if err := json.Unmarshal([]byte(got.stdout), &told); err != nil || got.stderr != "" || told.Well != (code == 0) || got.code != code {
		p.t.Fatalf("want exit code %d (%v): %s", code, err, got)
	}
	found := diagnosis{}
	for _, f := range told.Checks {
		found[f.Check] = append(found[f.Check], f)
	}
	return found
}

// says checks one finding.
func (d diagnosis) says(t *testing.T, check, verdict, message, fix string) {
	t.Helper()
	if all := d[check]; len(all) != 1 || all[0].Verdict != verdict || !strings.Contains(all[0].Message, message) || !strings.Contains(all[0].Fix, fix) {
		t.Errorf("%s: %+v, want %s, %q and %q", check, all, verdict, message, fix)
	}
}

func port(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return "port " + port
}

func TestDoctorThroughALife(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))

	d := p.doctor(0)
	d.says(t, "manifest", "ok", "1 service, 1 route", "")
	d.says(t, port(t, p.gateway), "ok", "gateway: free", "")
	d.says(t, "engine", "skip", "no system runs here", "")
	if _, err := os.Stat(filepath.Join(p.dir, ".keelson")); !os.IsNotExist(err) {
		t.Errorf("the doctor leaves something behind: %v", err)
	}

	up := p.up().ready()
	p.serving("user-service", 2)
	d = p.doctor(0)
	d.says(t, "earlier runs", "ok", fmt.Sprintf("(pid %d) runs here", up.pid()), "")
	d.says(t, port(t, p.gateway), "ok", "of the running system", "")
	d.says(t, "admin API", "ok", "http://"+p.admin, "")
	d.says(t, "engine", "ok", "JetStream answers", "")
	d.says(t, "gateway", "ok", "is healthy", "")
	d.says(t, "rotation", "ok", "2 instances of 1 service", "")
	d.says(t, "user-service", "ok", "2 instances well", "")

	if got := p.keelson("services", "drain", "user-service.user-service-2"); got.code != 0 {
		t.Fatal(got)
	}
	d = p.doctor(0) // it was meant
	d.says(t, "rotation", "warn", "drained by hand", "keelson services undrain user-service.user-service-2")
	if got := p.keelson("services", "undrain", "user-service.user-service-2"); got.code != 0 {
		t.Fatal(got)
	}

	// One that does not answer any more, though its process is there.
	stopped := p.child("user-service-1")
	p.kill(stopped, syscall.SIGSTOP)
	p.await("it to be out of rotation", patience, func() error {
		all, err := p.instances("user-service")
		if err == nil && len(all) == 2 && !all[0].Status.Serving() {
			return nil
		}
		return fmt.Errorf("%v %+v", err, all)
	})
	d = p.doctor(1)
	d.says(t, "rotation", "fail", "user-service.user-service-1 is unhealthy", "services show")
	d.says(t, "user-service", "fail", "no answer in 2s", "start it")
	p.kill(stopped, syscall.SIGCONT)
	p.serving("user-service", 2)

	p.kill(process.ID{PID: up.pid()}, syscall.SIGKILL)
	up.exit(patience)
	d = p.doctor(0)
	d.says(t, "earlier runs", "ok", "was killed", "")
	d.says(t, "rotation", "skip", "no system answers", "")
}

func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 1))
	l, err := net.Listen("tcp", p.gateway)
	if err != nil {
		t.Fatal(err)
	}
	p.doctor(1).says(t, port(t, p.gateway), "fail", fmt.Sprintf("in use by e2e.test (pid %d)", os.Getpid()), "gateway.listen")
	l.Close()

	if got := p.keelson("token"); got.code != 0 {
		t.Fatal(got)
	}
	folder := filepath.Join(p.dir, ".keelson")
	for path, fix := range map[string]string{folder: "chmod 700 " + folder, filepath.Join(folder, "dev.key"): "chmod 600 " + filepath.Join(folder, "dev.key")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
		check := map[bool]string{true: "working folder", false: "token key"}[info.IsDir()]
		p.doctor(1).says(t, check, "fail", "0777", fix)
		// What it says to do is what helps.
		if got := p.finish(p.command(t.Context(), "sh", "-c", fix)); got.code != 0 {
			t.Fatal(got)
		}
		p.doctor(0)
	}

	few := p.finish(p.command(t.Context(), "sh", "-c", "ulimit -n 200; exec "+keelson+" doctor --color never"))
	if few.code != 1 || !strings.Contains(few.stdout, "fail open files") || !strings.Contains(few.stdout, "ulimit -n 65536") {
		t.Errorf("few open files: %s", few)
	}
	without := p.command(t.Context(), keelson, "doctor", "--color", "never")
	without.Env = append(without.Env, "PATH=/nowhere")
	if got := p.finish(without); got.code != 0 || !strings.Contains(got.stdout, "no service of the manifest needs it") {
		t.Errorf("without go, which nothing needs: %s", got)
	}
	p.manifest("    []\n", "  shop: {package: ./shop}\n")
	without = p.command(t.Context(), keelson, "doctor", "--color", "never")
	without.Env = append(without.Env, "PATH=/nowhere")
	if got := p.finish(without); got.code != 1 || !strings.Contains(got.stdout, "fail go") || !strings.Contains(got.stdout, "https://go.dev/dl/") {
		t.Errorf("without go: %s", got)
	}
	p.write("keelson.yaml", "version: 1\ngateway: {rutes: []}\n")
	d := p.doctor(1)
	d.says(t, "manifest", "fail", "can't be used", "keelson.yaml:2:11")
	d.says(t, "ports", "skip", "without a manifest", "")

	env := p.command(t.Context(), keelson, "doctor", "--color", "never")
	env.Env = append(env.Env, "KEELSON_ENGINE_URL=nats://127.0.0.1:1")
	if got := p.finish(env); got.code != 1 || !strings.Contains(got.stdout, "fail engine") || !strings.Contains(got.stdout, "engine unreachable") {
		t.Errorf("an engine that is not there: %s", got)
	}
}
