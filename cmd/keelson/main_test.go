package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer can be read while a command writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type result struct {
	code           int
	stdout, stderr string
}

// keelson runs the command line with an environment of its own.
func keelson(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	var stdout, stderr buffer
	a := &app{stdout: &stdout, stderr: &stderr, env: func(k string) string { return env[k] }}
	code := a.run(t.Context(), args)
	return result{code, stdout.String(), stderr.String()}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// adminAPI is a real one over a registry in memory.
func adminAPI(t *testing.T) (string, *registry.Registry) {
	t.Helper()
	reg := registry.Open(t.Context(), memregistry.New().Connect())
	t.Cleanup(reg.Close)
	if err := reg.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := console.New(console.Config{Listen: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL, reg
}

func register(t *testing.T, reg *registry.Registry, name, id string, tags ...string) *registry.Registration {
	t.Helper()
	g, err := reg.Register(t.Context(), registry.Instance{Name: name, ID: id, Address: "http://127.0.0.1:3001", Version: "v1", Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, id+" in the snapshot", func() bool {
		_, ok := reg.Get(registry.Key{Service: name, ID: id})
		return ok
	})
	return g
}

func TestUsage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args       string
		code       int
		wantStderr string
	}{
		{"srvices", exitUsage, "did you mean services?"},
		{"services lst", exitUsage, "did you mean list?"},
		{"services -o xml", exitUsage, "use table, wide, json, yaml, name"},
		{"services list a b", exitUsage, `does not take "b"`},
		{"services pick a b c", exitUsage, `does not take "b"`},
		{"services show a b c d", exitUsage, `does not take "c"`},
		{"services list No_Name --url http://127.0.0.1:1", exitUsage, "not a service's name"},
		{"services --url nonsense", exitUsage, "no URL"},
		{"up --bogus", exitUsage, "see keelson up --help"},
		{"up --log-level loud", exitUsage, "use debug, info, warn or error"},
		{"up --file /does/not/exist.yaml", exitUsage, "/does/not/exist.yaml"},
		{"version --color sometimes", exitUsage, "use auto, always or never"},
		{"services --url http://127.0.0.1:1", exitUnreachable, "start one with `keelson up`"},
		{"services watch --url http://127.0.0.1:1", exitUnreachable, "no Keelson answers"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			got := keelson(t, nil, strings.Fields(tt.args)...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.wantStderr) || got.stdout != "" {
				t.Errorf("got %+v, want code %d and %q", got, tt.code, tt.wantStderr)
			}
		})
	}
}

func TestFailureAsJSON(t *testing.T) {
	t.Parallel()
	got := keelson(t, nil, "services", "-o", "json", "--url", "http://127.0.0.1:1")
	var f map[string]string
	if err := json.Unmarshal([]byte(got.stderr), &f); err != nil || f["code"] != "unreachable" || f["message"] == "" || f["hint"] == "" {
		t.Errorf("stderr %q, %v", got.stderr, err)
	}
}

func TestHelpGoesToStdout(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"", "--help", "up --help", "services --help", "token --help"} {
		got := keelson(t, nil, strings.Fields(args)...)
		if got.code != exitOK || !strings.Contains(got.stdout, "Usage:") || got.stderr != "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if got := keelson(t, nil, "version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "keelson ") {
		t.Errorf("%+v", got)
	}
	var v buildVersion
	got := keelson(t, nil, "version", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Go == "" || v.Version == "" {
		t.Errorf("%+v: %v", got, err)
	}
}

func TestColor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		color string
		env   map[string]string
		want  style
	}{
		{"auto", nil, false}, // a buffer is no terminal
		{"always", nil, true},
		{"always", map[string]string{"NO_COLOR": "1"}, true},
		{"never", nil, false},
	} {
		a := &app{color: tt.color, env: func(k string) string { return tt.env[k] }}
		if got := a.style(&buffer{}); got != tt.want {
			t.Errorf("%s %v: %v", tt.color, tt.env, got)
		}
	}
}

func TestToken(t *testing.T) {
	t.Chdir(t.TempDir())
	got := keelson(t, nil, "token", "--subject", "alice", "--scope", "a", "--scope", "b", "--ttl", "2h")
	if got.code != exitOK || got.stderr != "" || strings.Count(got.stdout, "\n") != 1 {
		t.Fatalf("%+v", got)
	}
	key, err := auth.LoadOrCreateDevKey(filepath.Join(runfile.Folder, "dev.key"))
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := auth.NewJWT(t.Context(), key.JWTConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer jwt.Close()
	id, err := jwt.Authenticate(t.Context(), auth.HeaderFunc(func(string) string { return "Bearer " + strings.TrimSpace(got.stdout) }))
	if err != nil || id.Subject != "alice" || !id.HasScopes("a", "b") || time.Until(id.Expires) < time.Hour {
		t.Errorf("%+v, %v", id, err)
	}
	for _, ttl := range []string{"-1s", "0s"} {
		if got := keelson(t, nil, "token", "--ttl", ttl); got.code != exitUsage || got.stdout != "" {
			t.Errorf("a token for %s: %+v", ttl, got)
		}
	}
	if err := os.Chmod(filepath.Join(runfile.Folder, "dev.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := keelson(t, nil, "token"); got.code != exitFailed || !strings.Contains(got.stderr, "dev.key") {
		t.Errorf("a key that everybody can read: %+v", got)
	}
}

// The running system is --url, then KEELSON_URL, then the run file, then port 3100.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	a := &app{env: func(string) string { return "" }}
	want := func(base string) {
		t.Helper()
		if got, _, err := a.admin(); err != nil || got != base {
			t.Errorf("admin() = %q, %v; want %q", got, err, base)
		}
	}
	want(defaultAdmin)
	self, err := process.Self()
	if err != nil {
		t.Fatal(err)
	}
	f := runfile.File{ID: self, StartedAt: time.Now(), Admin: "http://127.0.0.1:4711", Children: []runfile.Child{}}
	if err := runfile.Write(runfile.Path(dir), f); err != nil {
		t.Fatal(err)
	}
	want("http://127.0.0.1:4711")
	f.Start = "of another process"
	if err := runfile.Write(runfile.Path(dir), f); err != nil {
		t.Fatal(err)
	}
	want(defaultAdmin) // that process has ended
	a.env = func(k string) string { return map[string]string{"KEELSON_URL": "http://127.0.0.1:1/"}[k] }
	want("http://127.0.0.1:1")
	a.url = "https://keelson.example"
	want("https://keelson.example")
}

func TestListServices(t *testing.T) {
	t.Parallel()
	url, reg := adminAPI(t)
	if got := keelson(t, nil, "services", "--url", url); got.code != exitOK || got.stdout != "" || !strings.Contains(got.stderr, "No instance") {
		t.Errorf("nothing registered: %+v", got)
	}
	if got := keelson(t, nil, "services", "-o", "json", "--url", url); strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("nothing registered: %+v", got)
	}
	register(t, reg, "user-service", "u1", "blue")
	register(t, reg, "pay", "p1")
	got := keelson(t, map[string]string{"KEELSON_URL": url}, "services", "list", "-o", "name")
	if diff := cmp.Diff("pay.p1\nuser-service.u1\n", got.stdout); diff != "" {
		t.Error(diff)
	}
	got = keelson(t, nil, "services", "list", "user-service", "--url", url)
	if lines := strings.Split(strings.TrimSpace(got.stdout), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], "SERVICE") || !strings.Contains(lines[1], "http://127.0.0.1:3001   healthy   v1") {
		t.Errorf("table:\n%s", got.stdout)
	}
	got = keelson(t, nil, "services", "list", "--tag", "blue", "-o", "wide", "--url", url)
	if !strings.Contains(got.stdout, "blue") || strings.Contains(got.stdout, "p1") {
		t.Errorf("wide, by tag:\n%s", got.stdout)
	}
	got = keelson(t, nil, "services", "list", "-o", "yaml", "--url", url)
	if !strings.Contains(got.stdout, "name: user-service") {
		t.Errorf("yaml:\n%s", got.stdout)
	}
	got = keelson(t, nil, "services", "list", "--status", "sleepy", "--url", url)
	if got.code != exitUsage || !strings.Contains(got.stderr, "draining") {
		t.Errorf("unknown status: %+v", got)
	}
}

func TestWatchServices(t *testing.T) {
	t.Parallel()
	url, reg := adminAPI(t)
	register(t, reg, "pay", "p1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout buffer
	a := &app{stdout: &stdout, stderr: io.Discard, env: func(string) string { return "" }}
	code := make(chan int, 1)
	go func() { code <- a.run(ctx, []string{"services", "watch", "--url", url}) }()
	sees := func(event, key string) {
		t.Helper()
		eventually(t, event+" of "+key, func() bool {
			for line := range strings.Lines(stdout.String()) {
				if f := strings.Fields(line); len(f) > 2 && f[1] == event && f[2] == key {
					return true
				}
			}
			return false
		})
	}
	sees("snapshot", "pay.p1")
	g := register(t, reg, "user-service", "u1")
	sees("register", "user-service.u1")
	if err := g.SetStatus(ctx, "degraded"); err != nil {
		t.Fatal(err)
	}
	sees("status-change", "user-service.u1")
	if err := g.Deregister(ctx); err != nil {
		t.Fatal(err)
	}
	sees("deregister", "user-service.u1")
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d after Ctrl-C, want 0", got)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		5 * time.Second: "5s", 3 * time.Minute: "3m", 5 * time.Hour: "5h", 72 * time.Hour: "3d", -time.Minute: "0s",
	} {
		if got := age(time.Now().Add(-d - time.Millisecond)); got != want {
			t.Errorf("age of %v: %q, want %q", d, got, want)
		}
	}
	if got := age(time.Time{}); got != "-" {
		t.Errorf("age of nothing: %q", got)
	}
}
