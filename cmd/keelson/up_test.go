package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
	"github.com/keelson-go/keelson/platform"
)

func testPrinter(t *testing.T, services ...string) (*printer, *buffer, *buffer) {
	t.Helper()
	stdout, stderr := &buffer{}, &buffer{}
	p := newPrinter(stdout, stderr, false, false, services)
	t.Cleanup(p.close)
	return p, stdout, stderr
}

func project(t *testing.T, text string) *manifest.Manifest {
	t.Helper()
	path := filepath.Join(t.TempDir(), manifest.Name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNoManifest(t *testing.T) {
	t.Chdir(t.TempDir())
	got := keelson(t, nil, "up")
	if got.code != exitUsage || !strings.Contains(got.stderr, "no keelson.yaml") {
		t.Fatalf("%+v", got)
	}
	// What it shows to start from is a manifest.
	_, example, _ := strings.Cut(got.stderr, "project's root:\n\n")
	if _, err := manifest.Parse("example", []byte(example)); err != nil {
		t.Errorf("%v\n%s", err, example)
	}
}

func TestBadManifest(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(path, []byte("version: 1\nservises: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := keelson(t, nil, "up", "--file", path)
	if got.code != exitUsage || !strings.Contains(got.stderr, path+":2:1") || !strings.Contains(got.stderr, "services") {
		t.Errorf("%+v", got)
	}
}

func TestWorkspaceOthersCanChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, runfile.Folder), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, runfile.Folder), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := openWorkspace(dir, false)
	if f, ok := errors.AsType[*failure](err); !ok || !strings.Contains(f.hint, "chmod 700") {
		t.Errorf("a folder that all may write: %v", err)
	}
}

func TestWorkspaceIsForOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := openWorkspace(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openWorkspace(dir, false)
	f, ok := errors.AsType[*failure](err)
	if want := fmt.Sprintf("another `keelson up` (pid %d) runs in %s", os.Getpid(), dir); !ok || f.code != exitConflict || f.message != want {
		t.Errorf("a second one: %v, want %s", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestChildren(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	m := project(t, `
version: 1
gateway: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
services:
  users: {package: ./cmd/users, args: [serve], instances: 2, env: {KEELSON_DATABASE_URL: "postgres://x", MODE: fast, PORT: "1"}}
  pay: {command: [node, pay.js], dependsOn: [users]}
`)
	p, err := platform.Listen(t.Context(), platform.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w, err := openWorkspace(m.Dir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out, _, _ := testPrinter(t)
	attached := func(m *manifest.Manifest) (*fleet, error) {
		f, err := newFleet(m, w, out, "warn")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.detach)
		return f, f.attach(t.Context(), p)
	}
	f, err := attached(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.members) != 3 || f.members[0].instance != "users-1" || f.members[1].instance != "users-2" || f.members[2].instance != "pay-1" {
		t.Fatalf("members %+v", f.members)
	}
	c := f.child(f.members[0], "nats://127.0.0.1:4222", "keelson:secret")
	if !slices.Equal(c.Command, []string{f.programs["./cmd/users"].path, "serve"}) || c.Build == nil || c.Dir != m.Dir() {
		t.Errorf("child %+v", c)
	}
	env := map[string]string{}
	for _, e := range c.Environ() { // of a name that stands twice, the last one counts
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	for k, want := range map[string]string{
		"PORT": strconv.Itoa(f.members[0].port), "KEELSON_SERVICE": "users", "KEELSON_INSTANCE": "users-1", "MODE": "fast",
		"KEELSON_ENGINE_URL": "nats://127.0.0.1:4222", "KEELSON_ENGINE_CREDENTIALS": "keelson:secret",
		"KEELSON_ADMIN_URL": p.AdminURL(), "KEELSON_DATABASE_URL": "postgres://x", "KEELSON_LOG_LEVEL": "warn",
	} {
		if env[k] != want {
			t.Errorf("%s is %q, want %q", k, env[k], want)
		}
	}
	c = f.child(f.members[2], "", "")
	if !slices.Equal(c.Command, []string{"node", "pay.js"}) || c.Build != nil || !slices.Contains(c.DependsOn, "users") ||
		!slices.Contains(c.Environ(), "KEELSON_DATABASE_URL="+w.DatabaseURL("pay")) {
		t.Errorf("child %+v", c)
	}

	path := func(pkg string) string { return newProgram(pkg, "", "bin").path }
	if path("./x/y") == path("./x-y") || path("./shop") == path("../shop") {
		t.Error("two packages share one program")
	}
	many := project(t, "version: 1\nservices:\n  users: {command: [x], instances: 100}\n")
	f, err = attached(many)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, m := range f.members {
		if m.port == 0 || seen[m.port] {
			t.Errorf("%s got port %d", m.instance, m.port)
		}
		seen[m.port] = true
	}

	_, port, _ := net.SplitHostPort(busy.Addr().String())
	m = project(t, "version: 1\nservices:\n  users: {command: [x], port: "+port+"}\n")
	_, err = attached(m)
	if f, ok := errors.AsType[*failure](err); !ok || f.code != exitConflict || !strings.Contains(f.hint, "services.users.port") {
		t.Errorf("a busy port: %v", err)
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	m := project(t, "version: 1\nservices:\n  a: {command: [x]}\n  b: {command: [x], dependsOn: [a]}\n  c: {command: [x], dependsOn: [a, b]}\n  d: {command: [x]}\n")
	if got := depth(m); got != 3 {
		t.Errorf("depth %d, want 3", got)
	}
	if got := depth(&manifest.Manifest{}); got != 0 {
		t.Errorf("depth of nothing is %d", got)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	start := &supervise.StartError{Name: "users", Instance: "users-1", Ended: true, Exit: supervise.Exit{Code: 3}, Lines: []string{"no engine found"}}
	f, ok := errors.AsType[*failure](explain(errors.Join(errors.New("x"), start), &manifest.Manifest{}))
	if !ok || f.code != exitFailed || !strings.Contains(f.message, "users-1") || !strings.Contains(f.detail, "no engine found") {
		t.Errorf("%+v", f)
	}
	start = &supervise.StartError{Name: "users", Instance: "users-1", Err: &buildError{"./cmd/users", "users.go:7: undefined: x"}}
	f, ok = errors.AsType[*failure](explain(start, &manifest.Manifest{}))
	if !ok || f.code != exitFailed || !strings.Contains(f.message, "does not build") || !strings.Contains(f.detail, "users.go:7") {
		t.Errorf("%+v", f)
	}
	if explain(nil, nil) != nil {
		t.Error("nothing wrong was explained")
	}
}

func TestPrinter(t *testing.T) {
	t.Parallel()
	out, stdout, stderr := testPrinter(t, "user-service")
	out.line(console.LogLine{Service: "user-service", Instance: "user-service-1", Text: "one"})
	out.line(console.LogLine{Service: "user-service", Instance: "user-service-2", Text: "two"})
	w := out.writer("keelson")
	for _, part := range []string{"thr", "ee\nfour\nfi", "ve\n"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	want := "user-service │ one\nuser-service#2 │ two\nkeelson      │ three\nkeelson      │ four\nkeelson      │ five\n"
	eventually(t, "what was said\n"+want, func() bool { return stdout.String() == want })
	stop := out.building("./cmd/users")
	stop()
	eventually(t, "the building", func() bool { return stderr.String() == "building ./cmd/users\n" })
	live := newPrinter(stdout, stderr, true, true, nil)
	stop = live.building("./cmd/users")
	eventually(t, "progress", func() bool { return strings.Contains(stderr.String(), "building ./cmd/users … 0.") })
	stop()
	live.close()
	if !strings.HasSuffix(stderr.String(), "\r\x1b[K") {
		t.Errorf("the progress line is left: %q", stderr.String())
	}
}

// A terminal that is paused holds up nobody, and what it missed is told.
func TestPrinterWhoseReaderIsPaused(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	stderr := &buffer{}
	p := newPrinter(w, stderr, false, false, nil)
	for n := range 2 * queueLength {
		p.line(console.LogLine{Service: "users", Instance: "users-1", Text: strconv.Itoa(n)})
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	p.say("done")
	eventually(t, "the end", func() bool { return strings.HasSuffix(stderr.String(), "done\n") || p.dropped.Load() == 0 })
	p.close()
	if !strings.Contains(stderr.String(), "lines were left out") {
		t.Errorf("stderr: %q", stderr.String())
	}
	_ = r.Close()
}

func TestFollowManifest(t *testing.T) {
	t.Parallel()
	const start = "version: 1\nservices:\n  users: {command: [x]}\ngateway:\n  routes:\n    - {path: /users/*, service: users}\n"
	m := project(t, start)
	out, _, stderr := testPrinter(t)
	reloaded := make(chan *manifest.Manifest, 8)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(m.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := start + "    - {path: /more/*, service: users}\n"
	write(next) // what changes before the watch has begun counts too
	go func() {
		defer close(done)
		followManifest(ctx, m, out, func(next *manifest.Manifest) error {
			reloaded <- next
			return nil
		})
	}()
	var got *manifest.Manifest
	select {
	case got = <-reloaded:
	case <-time.After(20 * time.Second):
		t.Fatal("the manifest was not read again")
	}
	if len(got.Gateway.Routes) != 2 {
		t.Errorf("%d routes, want 2", len(got.Gateway.Routes))
	}
	write("version: 1\nroutes: oops\n")
	eventually(t, "the complaint", func() bool { return strings.Contains(stderr.String(), "nothing changes") })
	write(strings.Replace(next, "[x]", "[y]", 1))
	eventually(t, "the hint", func() bool { return strings.Contains(stderr.String(), "started again") })
	if len(reloaded) > 0 {
		t.Error("the gateway was reloaded though nothing of it changed")
	}
	cancel()
	<-done
}
