//go:build linux

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// refused runs `up` to its end, which must come with the code and the texts, and
// leave nothing running.
func (p *project) refused(code int, texts ...string) {
	p.t.Helper()
	up := p.up()
	got := up.exit(patience)
	for _, text := range texts {
		if !strings.Contains(up.err.String(), text) {
			p.t.Errorf("stderr lacks %q", text)
		}
	}
	if got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
	if p.t.Failed() {
		p.t.Log(up)
	}
	up.gone(patience)
}

func TestSecondUpIsRefused(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 1))
	first := p.up().ready()
	p.refused(6, fmt.Sprintf("another `keelson up` (pid %d) runs in", first.pid()), "stop it first")
	if got := p.call("GET", "/api/users", ""); got.status != 200 {
		t.Errorf("the first one: %d", got.status)
	}
	if p.child("user-service-1").PID == 0 {
		t.Error("the first one's run file is gone")
	}
}

func TestBusyPortsAreRefused(t *testing.T) {
	t.Parallel()
	holder := fmt.Sprintf("(pid %d)", os.Getpid())
	take := func(t *testing.T, addr string) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	t.Run("gateway", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, userService(t, 1))
		take(t, p.gateway)
		p.refused(6, "gateway can't listen on "+p.gateway+": the port is in use by ", holder, "gateway.listen")
	})
	t.Run("admin API", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, userService(t, 1))
		take(t, p.admin)
		p.refused(6, "admin API can't listen on "+p.admin+": the port is in use by ", holder, "admin.listen")
	})
	t.Run("service", func(t *testing.T) {
		p := newProject(t)
		port := freePort(t)
		p.manifest(userRoute, fmt.Sprintf("  user-service: {command: [%q, user-service], port: %d}\n", shop, port))
		take(t, fmt.Sprintf("127.0.0.1:%d", port))
		p.refused(6, fmt.Sprintf("user-service-1 can't listen on 127.0.0.1:%d: the port is in use by ", port), holder, "services.user-service.port")
		take(t, p.gateway) // it was given back
	})
}

func TestBadManifestsAreRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		says []string
	}{
		"unknown key": {"version: 1\ngateway:\n  rutes: []\n", []string{"keelson.yaml:3:3: ", `did you mean "routes"?`}},
		"wrong type":  {"version: 1\nservices:\n  shop: {package: ./shop, port: many}\n", []string{"keelson.yaml:3:33: services.shop.port"}},
		"bad value":   {"version: 1\nservices:\n  shop: {package: ./shop, instances: 0}\n", []string{"keelson.yaml:3:38: services.shop.instances"}},
		"no YAML":     {"version: [1\n", []string{"keelson.yaml:"}},
		"two errors":  {"version: 2\nadmin: {listen: here}\n", []string{"keelson.yaml:1:10: version", "keelson.yaml:2:17: admin.listen"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t)
			p.write("keelson.yaml", tt.text)
			p.refused(2, append(tt.says, "keelson.yaml can't be used")...)
		})
	}
	t.Run("none", func(t *testing.T) {
		p := newProject(t)
		p.refused(2, "no keelson.yaml in "+p.dir+" or any folder above it", "version: 1", "services:")
	})
	t.Run("another file", func(t *testing.T) {
		p := newProject(t)
		if got := p.keelson("up", "--file", "nowhere.yaml"); got.code != 2 || !strings.Contains(got.stderr, "nowhere.yaml") {
			t.Error(got)
		}
	})
}

// TestServicesThatDoNotStart: everything is stopped, and the reason is shown.
func TestServicesThatDoNotStart(t *testing.T) {
	t.Parallel()
	t.Run("ends at once", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, userService(t, 1)+"  broken: {command: [sh, -c, \"for i in $(seq 30); do echo line $i; done; exit 7\"]}\n")
		p.refused(1, "broken", "exit status 7", "line 11\n", "line 30\n")
		if up := p.runs[0]; strings.Contains(up.err.String(), "line 10\n") {
			t.Errorf("more than the last 20 lines are shown:\n%s", up)
		}
	})
	t.Run("says why on stderr", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, "  broken: {command: [sh, -c, \"echo out of luck >&2; exit 7\"]}\n")
		p.refused(1, "its last lines:\n  out of luck\n")
	})
	t.Run("no such program", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, "  broken: {command: [/no/such/program]}\n")
		p.refused(1, "broken", "/no/such/program", "no such file")
	})
	t.Run("does not build", func(t *testing.T) {
		p := newProject(t)
		p.write("go.mod", "module example.org/broken\n\ngo 1.26\n")
		p.write("main.go", "package main\n\nfunc main() { missing() }\n")
		p.manifest(userRoute, userService(t, 1)+"  broken: {package: .}\n")
		p.refused(1, "does not build", "main.go:3:15: undefined: missing")
	})
	t.Run("is never healthy", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, userService(t, 1)+"  broken: {command: [sh, -c, \"echo not yet; exec sleep 1000\"]}\n")
		p.refused(1, "broken", "not healthy after 30s", "not yet")
	})
	t.Run("ignores the stop of another's failure", func(t *testing.T) {
		p := newProject(t)
		p.manifest(userRoute, role(t, "stubborn")+"  broken: {command: [sh, -c, \"sleep 1; exit 3\"]}\n")
		p.refused(1, "broken", "exit status 3")
	})
}

// TestOddInvocations: each is refused with what would be right.
func TestOddInvocations(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 1))
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"unknown command":  {[]string{"upp"}, "did you mean up?"},
		"unknown flag":     {[]string{"up", "--fast"}, "unknown flag: --fast"},
		"unknown level":    {[]string{"up", "--log-level", "loud"}, "use debug, info, warn or error"},
		"an argument":      {[]string{"up", "user-service"}, `does not take "user-service"`},
		"bad colour":       {[]string{"up", "--color", "red"}, "use auto, always or never"},
		"bad output":       {[]string{"services", "-o", "xml"}, "use table, wide, json, yaml, name"},
		"bad service":      {[]string{"services", "list", "No_Name"}, "is not a service's name"},
		"bad url":          {[]string{"services", "--url", "here"}, "no URL"},
		"too short a life": {[]string{"token", "--ttl", "1ms"}, "give a time of 1s or more"},
	} {
		if got := p.keelson(tt.args...); got.code != 2 || !strings.Contains(got.stderr, tt.says) || got.stdout != "" {
			t.Errorf("%s: %s\nwant exit code 2 and %q", name, got, tt.says)
		}
	}
	// Ctrl-C right after the start is a clean end too, whatever stage it is in.
	for range 5 {
		up := p.up()
		p.await("its first sign of life", patience, func() error {
			holder, err := os.ReadFile(p.dir + "/.keelson/lock")
			if err == nil && !strings.HasPrefix(string(holder), fmt.Sprint(up.pid(), " ")) {
				err = fmt.Errorf("locked by %s", holder)
			}
			return err
		})
		up.signal(syscall.SIGINT)
		if code := up.exit(patience); code != 0 {
			t.Errorf("exit code %d\n%s", code, up)
		}
		up.gone(patience)
	}
}
