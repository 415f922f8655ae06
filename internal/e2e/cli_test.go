//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keelson-go/keelson/registry"
)

func TestServicesCommand(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))
	p.up().ready()
	p.serving("user-service", 2)
	if err := os.MkdirAll(p.dir+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}

	table := p.keelson("services")
	rows := trimLines(table.stdout)
	if table.code != 0 || table.stderr != "" || len(rows) != 3 || !strings.HasPrefix(rows[0], "SERVICE ") {
		t.Fatalf("table: %s", table)
	}
	for i, row := range rows[1:] {
		f := strings.Fields(row)
		if len(f) != 6 || f[0] != "user-service" || f[1] != fmt.Sprintf("user-service-%d", i+1) || !strings.HasPrefix(f[2], "http://127.0.0.1:") || f[3] != "healthy" {
			t.Errorf("row %q", row)
		}
	}
	var listed []registry.Instance
	asJSON := p.keelson("services", "list", "user-service", "-o", "json")
	if err := json.Unmarshal([]byte(asJSON.stdout), &listed); err != nil || asJSON.code != 0 || len(listed) != 2 || listed[0].LastHeartbeat.IsZero() {
		t.Errorf("json (%v): %s", err, asJSON)
	}
	if got := p.keelson("services", "-o", "name"); got.stdout != "user-service.user-service-1\nuser-service.user-service-2\n" {
		t.Errorf("names: %s", got)
	}
	if got := p.keelson("services", "-o", "yaml"); got.code != 0 || !strings.Contains(got.stdout, "id: user-service-1") {
		t.Errorf("yaml: %s", got)
	}
	if got := p.keelson("services", "-o", "wide"); got.code != 0 || !strings.Contains(got.stdout, "HEARTBEAT") {
		t.Errorf("wide: %s", got)
	}
	if got := p.keelson("services", "--status", "unhealthy"); got.code != 0 || got.stdout != "" || !strings.Contains(got.stderr, "No such instance") {
		t.Errorf("none of that status: %s", got)
	}
	if got := p.keelson("services", "list", "nobody", "-o", "json"); got.code != 0 || strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("an unknown service: %s", got)
	}
	if got := p.keelson("services", "--status", "fine"); got.code == 0 || !strings.Contains(got.stderr, "unhealthy or draining") {
		t.Errorf("an unknown status: %s", got)
	}
	below := p.command(t.Context(), keelson, "services", "-o", "name")
	below.Dir = p.dir + "/a/b"
	if got := p.finish(below); got.code != 0 || strings.Count(got.stdout, "\n") != 2 {
		t.Errorf("in a folder below: %s", got)
	}

	// Where nothing answers. Without any of these, port 3100 is asked, which
	// may be somebody's.
	nowhere := "http://" + freeAddr(t)
	if got := p.keelson("services", "--url", nowhere); got.code != 3 || got.stdout != "" || !strings.Contains(got.stderr, "no Keelson answers at "+nowhere) || !strings.Contains(got.stderr, "keelson up") {
		t.Errorf("nobody there: %s", got)
	}
	env := p.command(t.Context(), keelson, "services", "watch", "-o", "json")
	env.Env = append(env.Env, "KEELSON_URL="+nowhere)
	got := p.finish(env)
	var told struct{ Code, Message, Hint string }
	if err := json.Unmarshal([]byte(got.stderr), &told); err != nil || got.code != 3 || told.Code != "unreachable" || told.Hint == "" {
		t.Errorf("nobody there, in JSON (%v): %s", err, got)
	}
}

func TestServicesWatch(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 1))
	up := p.up().ready()
	watches := map[string]*run{}
	for _, format := range []string{"table", "json"} {
		watches[format] = p.start(p.command(t.Context(), keelson, "services", "watch", "-o", format))
	}
	sees := func(event, key string) {
		t.Helper()
		for format, w := range watches {
			p.await(fmt.Sprintf("%s of %s in %s", event, key, format), patience, func() error {
				for _, line := range trimLines(w.out.String()) {
					if has(format, line, event, key) {
						return nil
					}
				}
				return errors.New("not seen")
			})
		}
	}
	sees("snapshot", "user-service.user-service-1")
	cmd := p.command(t.Context(), self, "echo")
	cmd.Env = append(cmd.Env, fmt.Sprintf("PORT=%d", freePort(t)), "KEELSON_INSTANCE=by-hand")
	hand := p.start(cmd)
	sees("register", "echo.by-hand")
	hand.signal(syscall.SIGINT)
	if code := hand.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, hand)
	}
	sees("deregister", "echo.by-hand")

	// The stream is found again after a restart.
	up.signal(syscall.SIGINT)
	up.exit(patience)
	before := len(watches["json"].out.String())
	p.up().ready()
	p.await("a snapshot after the restart", patience, func() error {
		if !strings.Contains(watches["json"].out.String()[before:], `"snapshot"`) {
			return errors.New("none")
		}
		return nil
	})
	for format, w := range watches {
		w.signal(syscall.SIGINT)
		if code := w.exit(patience); code != 0 {
			t.Errorf("%s: exit code %d\n%s", format, code, w)
		}
	}
}

// has reports whether a line tells of the event and the instance.
func has(format, line, event, key string) bool {
	if format == "table" {
		f := strings.Fields(line)
		return len(f) == 5 && f[1] == event && f[2] == key
	}
	var e struct {
		Event string
		Data  json.RawMessage
	}
	if json.Unmarshal([]byte(line), &e) != nil || e.Event != event {
		return false
	}
	all := make([]registry.Instance, 1)
	if event == "snapshot" {
		_ = json.Unmarshal(e.Data, &all) // then there is no such instance in it
	} else {
		_ = json.Unmarshal(e.Data, &all[0])
	}
	for _, in := range all {
		if in.Key().String() == key {
			return true
		}
	}
	return false
}

func TestTokenCommand(t *testing.T) {
	t.Parallel()
	p := newProject(t) // no manifest is needed
	first := p.keelson("token")
	if first.code != 0 || first.stderr != "" || strings.Count(first.stdout, "\n") != 1 {
		t.Fatal(first)
	}
	info, err := os.Stat(filepath.Join(p.dir, ".keelson", "dev.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("dev.key: %v (%v)", info, err)
	}
	header, claims := parts(t, strings.TrimSpace(first.stdout))
	if header["alg"] != "EdDSA" || header["kid"] == "" || claims["iss"] != "keelson-dev" || claims["aud"] != "keelson" || claims["sub"] != "dev" {
		t.Errorf("header %v, claims %v", header, claims)
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 3600 {
		t.Errorf("it is good for %v s", life)
	}
	second := p.keelson("token", "--subject", "alice", "--scope", "a:read", "--scope", "a:write", "--ttl", "90s")
	header2, claims := parts(t, strings.TrimSpace(second.stdout))
	if claims["sub"] != "alice" || claims["scope"] != "a:read a:write" || claims["exp"].(float64)-claims["iat"].(float64) != 90 {
		t.Errorf("claims %v", claims)
	}
	if header["kid"] != header2["kid"] {
		t.Error("another key was made")
	}
	if err := os.Chmod(filepath.Join(p.dir, ".keelson", "dev.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := p.keelson("token"); got.code != 1 || !strings.Contains(got.stderr, "chmod 600") || got.stdout != "" {
		t.Errorf("a key others may read: %s", got)
	}
}

func TestVersionAndCompletion(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	if got := p.keelson("version"); got.code != 0 || !strings.HasPrefix(got.stdout, "keelson ") || got.stderr != "" {
		t.Error(got)
	}
	var v struct{ Version, Go, Platform string }
	got := p.keelson("version", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("%v: %s", err, got)
	}
	script := p.keelson("completion", "bash")
	if script.code != 0 || script.stdout == "" {
		t.Fatal(script)
	}
	check := exec.Command("bash", "-n")
	check.Stdin = strings.NewReader(script.stdout)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("bash does not take the completion: %v %s", err, out)
	}
	if got := p.keelson("__complete", "services", "list", "-o", ""); !strings.HasPrefix(got.stdout, "table\nwide\njson\nyaml\nname\n") {
		t.Errorf("completion of -o: %s", got)
	}
}
