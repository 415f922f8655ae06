package join_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/service"
)

// result is what a run left.
type result struct {
	code           int
	stdout, stderr string
}

func runMain(ctx context.Context, services map[string]join.Constructor, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := join.Run(ctx, nil, services, append([]string{"/usr/bin/shop"}, args...), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// ended is a context of a process that is told to stop at once.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestArguments(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("KEELSON_ENGINE_URL", "")
	for _, tc := range []struct {
		args           []string
		only           bool // one service is known, not two
		code           int
		made           string // the service that was constructed
		stdout, stderr string // parts of them
	}{
		{[]string{"users", "--standalone"}, false, join.ExitOK, "users", "", ""},
		{[]string{"--standalone", "users"}, false, join.ExitOK, "users", "", ""},
		{[]string{"-standalone", "users"}, false, join.ExitOK, "users", "", ""},
		{[]string{"orders", "-standalone=true"}, false, join.ExitOK, "orders", "", ""},
		{[]string{"--standalone"}, true, join.ExitOK, "users", "", ""},
		{[]string{"--standalone"}, false, join.ExitUsage, "", "", "name one service"},
		{nil, false, join.ExitUsage, "", "", "name one service"},
		{[]string{"users", "orders"}, false, join.ExitUsage, "", "", "name one service"},
		{[]string{"payments"}, false, join.ExitUsage, "", "", "there is no service \"payments\" here"},
		{[]string{"payments"}, false, join.ExitUsage, "", "", "services: orders, users"},
		{[]string{"users", "--port=1"}, false, join.ExitUsage, "", "", "-port"},
		{[]string{"--help"}, false, join.ExitOK, "", "usage: shop SERVICE [--standalone]", ""},
		{[]string{"users", "-h"}, false, join.ExitOK, "", "services: orders, users", ""},
		{[]string{"users"}, false, join.ExitUnreachable, "", "", "keelson up"},
		{nil, true, join.ExitUnreachable, "", "", "--standalone"},
	} {
		made := ""
		services := map[string]join.Constructor{}
		for _, name := range []string{"users", "orders"} {
			services[name] = func(ctx context.Context, opts ...service.Option) (*service.Service, error) {
				made = name
				return users(ctx, opts...)
			}
		}
		if tc.only {
			delete(services, "orders")
		}
		got := runMain(ended(), services, tc.args...)
		if got.code != tc.code || made != tc.made || !strings.Contains(got.stdout, tc.stdout) || !strings.Contains(got.stderr, tc.stderr) {
			t.Errorf("%q: made %q, %+v; want %+v", tc.args, made, got, tc)
		}
		if tc.stdout == "" && got.stdout != "" || tc.code == join.ExitOK && got.stderr != "" {
			t.Errorf("%q: told too much: %+v", tc.args, got)
		}
	}
}

func TestConstructorFails(t *testing.T) {
	t.Setenv("PORT", "none")
	got := runMain(t.Context(), map[string]join.Constructor{"users": users}, "--standalone")
	if got.code != join.ExitFailed || !strings.Contains(got.stderr, `PORT is "none"`) {
		t.Errorf("%+v", got)
	}
	broken := func(context.Context, ...service.Option) (*service.Service, error) {
		return nil, errors.New("no database")
	}
	got = runMain(t.Context(), map[string]join.Constructor{"users": broken}, "--standalone")
	if got.code != join.ExitFailed || got.stderr != "users: no database\n" {
		t.Errorf("%+v", got)
	}
}

// Alone it serves, unregistered, and /health says so.
func TestStandalone(t *testing.T) {
	port := freePort(t)
	t.Setenv("PORT", port)
	t.Setenv("KEELSON_ENGINE_URL", "nats://127.0.0.1:1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result, 1)
	go func() { done <- runMain(ctx, map[string]join.Constructor{"users": users}, "--standalone") }()
	eventually(t, "/health says it", func() bool {
		got, ok := report(t, "http://127.0.0.1:"+port)
		return ok && got.Status == health.Degraded && got.Dependencies["registry"].Error == join.ErrStandalone.Error()
	})
	cancel()
	if got := <-done; got.code != join.ExitOK {
		t.Errorf("%+v", got)
	}
}

func TestUnreachable(t *testing.T) {
	for name, tc := range map[string]struct {
		url, credentials string
		code             int
		says             string
	}{
		"nobody listens":  {"nats://127.0.0.1:" + freePort(t), "", join.ExitUnreachable, "KEELSON_ENGINE_URL"},
		"no URL":          {"127.0.0.1:4222", "", join.ExitFailed, "nats://host:4222"},
		"bad credentials": {"nats://127.0.0.1:4222", "keelson", join.ExitFailed, "user:password"},
	} {
		t.Setenv("KEELSON_ENGINE_URL", tc.url)
		t.Setenv("KEELSON_ENGINE_CREDENTIALS", tc.credentials)
		begin := time.Now()
		got := runMain(t.Context(), map[string]join.Constructor{"users": users})
		if got.code != tc.code || !strings.Contains(got.stderr, tc.says) {
			t.Errorf("%s: %+v", name, got)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}

// Told to stop while it waits for the engine, a service has nothing to complain of.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := join.Serve(ctx, engine.Config{URL: "nats://127.0.0.1:" + freePort(t), Wait: true}, users)
	if err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestWrongCredentials(t *testing.T) {
	s := startEmbedded(t)
	t.Setenv("KEELSON_ENGINE_URL", s.URL())
	t.Setenv("KEELSON_ENGINE_CREDENTIALS", "keelson:wrong")
	got := runMain(t.Context(), map[string]join.Constructor{"users": users})
	if got.code != join.ExitUnreachable || !strings.Contains(got.stderr, "refused the credentials") || strings.Contains(got.stderr, "wrong\n") {
		t.Errorf("%+v", got)
	}
}

func startEmbedded(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

// The run file is found in the folder or above; one of a process that has ended
// counts as none, one that others may have written is refused.
func TestRunFile(t *testing.T) {
	t.Parallel()
	none := func(string) string { return "" }
	write := func(t *testing.T, edit func(*runfile.File)) (dir string) {
		t.Helper()
		dir = t.TempDir()
		self, err := process.Self()
		if err != nil {
			t.Fatal(err)
		}
		f := runfile.File{ID: self, StartedAt: time.Now(), Engine: runfile.Engine{URL: "nats://127.0.0.1:4333", Credentials: credentials}}
		edit(&f)
		if err := runfile.Write(runfile.Path(dir), f); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	same := func(*runfile.File) {}
	t.Run("above", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(write(t, same), "examples", "shop")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		cfg, err := join.Locate(dir, none)
		if err != nil || cfg.URL != "nats://127.0.0.1:4333" || cfg.Credentials != credentials {
			t.Errorf("%s, %v", cfg.URL, err)
		}
	})
	t.Run("the environment goes before it", func(t *testing.T) {
		t.Parallel()
		env := map[string]string{"KEELSON_ENGINE_URL": "nats://10.0.0.1:4222", "KEELSON_ENGINE_CREDENTIALS": "a:b"}
		cfg, err := join.Locate(write(t, same), func(k string) string { return env[k] })
		if err != nil || cfg.URL != env["KEELSON_ENGINE_URL"] || cfg.Credentials != "a:b" || !cfg.Wait {
			t.Errorf("%s, %v", cfg.URL, err)
		}
	})
	t.Run("stale", func(t *testing.T) {
		t.Parallel()
		_, err := join.Locate(write(t, func(f *runfile.File) { f.PID = 1 << 22 }), none)
		if !errors.Is(err, join.ErrNoEngine) || !strings.Contains(err.Error(), "has ended") {
			t.Errorf("%v", err)
		}
	})
	t.Run("without an engine", func(t *testing.T) {
		t.Parallel()
		if _, err := join.Locate(write(t, func(f *runfile.File) { f.Engine = runfile.Engine{} }), none); !errors.Is(err, join.ErrNoEngine) {
			t.Errorf("%v", err)
		}
	})
	t.Run("unsafe", func(t *testing.T) {
		t.Parallel()
		dir := write(t, same)
		if err := os.Chmod(runfile.Path(dir), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := join.Locate(dir, none); !errors.Is(err, runfile.ErrUnsafe) {
			t.Errorf("%v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		if _, err := join.Locate(t.TempDir(), none); !errors.Is(err, join.ErrNoEngine) || !strings.Contains(err.Error(), "KEELSON_ENGINE_URL") {
			t.Errorf("%v", err)
		}
	})
}

// A service in this process over an embedded engine: registered, called by name
// through the registry, seen by others, and gone after.
func TestServe(t *testing.T) {
	t.Parallel()
	s := startEmbedded(t)
	first, err := s.Connect(t.Context(), "test") // it provisions
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Close)
	others := see(t, s.URL())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	var svc *service.Service
	go func() {
		done <- join.Serve(ctx, engine.Config{URL: s.URL(), Credentials: credentials}, func(ctx context.Context, opts ...service.Option) (*service.Service, error) {
			var err error
			svc, err = users(ctx, opts...)
			return svc, err
		})
	}()
	eventually(t, "others see it", func() bool { return others.Endpoints("users").Len() == 1 })
	eventually(t, "/health with registry and engine", func() bool {
		got, ok := report(t, others.Endpoints("users").At(0).Address)
		return ok && got.Dependencies["registry"].Status == health.Healthy && got.Dependencies["engine"].Status == health.Healthy
	})
	eventually(t, "it sees itself", func() bool {
		resp, err := svc.Client().Get("http://users/who")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	eventually(t, "it has left", func() bool { return len(others.List()) == 0 })
}
