package platform_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/workspace"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/service"
)

// talk is what a program says; it may be read meanwhile.
type talk struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *talk) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *talk) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

var users = platform.Service{Name: "users", New: named("users")}

// free makes everything listen on free ports.
var free = []string{"--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"}

func TestMainRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	addr := busy.Addr().String()
	broken := platform.Service{Name: "broken", New: func(context.Context, ...service.Option) (*service.Service, error) {
		return nil, fmt.Errorf("no route to the database")
	}}
	external := platform.Config{External: engine.Config{URL: "nats://" + addr}}
	for name, tt := range map[string]struct {
		config   platform.Config
		services []platform.Service
		args     []string
		code     int
		says     []string
	}{
		"an unknown service":   {platform.Config{}, nil, []string{"usres"}, 2, []string{`no service "usres"`, "services: users", "usage: shop [all]"}},
		"all twice":            {platform.Config{}, nil, []string{"all", "all"}, 2, []string{"given twice"}},
		"an unknown flag":      {platform.Config{}, nil, []string{"all", "--fast"}, 2, []string{"-fast", "--ephemeral"}},
		"garbage":              {platform.Config{}, nil, []string{"all", "--gateway"}, 2, []string{"gateway"}},
		"no address":           {platform.Config{}, nil, []string{"--admin", "3100"}, 2, []string{`--admin is "3100"`, "host:port"}},
		"no port":              {platform.Config{}, nil, []string{"--engine", "127.0.0.1:nats"}, 2, []string{`--engine is "127.0.0.1:nats"`}},
		"a port of nobody":     {platform.Config{}, nil, []string{"--port", "usres=3001"}, 2, []string{"as in user-service=3001"}},
		"no port of a service": {platform.Config{}, nil, []string{"--port", "users=http"}, 2, []string{"as in user-service=3001"}},
		"a busy service":       {platform.Config{}, nil, append([]string{"--port", "users=" + strings.TrimPrefix(addr, "127.0.0.1:")}, free...), 6, []string{"users can't listen on " + addr, "--port users=0"}},
		"an unknown level":     {platform.Config{}, nil, []string{"--log-level", "loud"}, 2, []string{"use debug, info, warn or error"}},
		"two engines":          {external, nil, []string{"--engine", "127.0.0.1:0"}, 2, []string{"--engine is given", addr}},
		"a bad route":          {platform.Config{Gateway: gateway.Config{Routes: []gateway.Route{{Path: "x"}}}}, nil, free, 2, []string{"routes[0]"}},
		"an open admin API":    {platform.Config{}, nil, []string{"--gateway", "127.0.0.1:0", "--admin", "0.0.0.0:0"}, 2, []string{"without authentication", "give --admin"}},
		"an open engine":       {platform.Config{}, nil, append([]string{"--engine", "0.0.0.0:0"}, free...), 2, []string{"TLS"}},
		"a busy gateway":       {platform.Config{}, nil, []string{"--gateway", addr, "--admin", "127.0.0.1:0"}, 6, []string{"gateway can't listen on " + addr, "--gateway"}},
		"a busy admin API":     {platform.Config{}, nil, []string{"--admin", addr, "--gateway", "127.0.0.1:0"}, 6, []string{"admin API can't listen on " + addr, "--admin"}},
		"a busy engine":        {platform.Config{}, nil, append([]string{"--engine", addr}, free...), 6, []string{"the engine can't listen on " + addr, "--engine"}},
		"a service that fails": {platform.Config{}, []platform.Service{users, broken}, free, 1, []string{"broken: no route to the database"}},
		"help":                 {platform.Config{}, nil, []string{"all", "--help"}, 0, nil},
	} {
		var stdout, stderr talk
		services := tt.services
		if services == nil {
			services = []platform.Service{users}
		}
		if code := platform.Run(t.Context(), tt.config, tt.args, &stdout, &stderr, services...); code != tt.code {
			t.Errorf("%s: exit code %d, want %d\n%s", name, code, tt.code, &stderr)
		}
		for _, s := range tt.says {
			if !strings.Contains(stderr.String(), s) {
				t.Errorf("%s: it does not say %q\n%s", name, s, &stderr)
			}
		}
		if help := strings.HasPrefix(stdout.String(), "usage: shop"); help != (name == "help") {
			t.Errorf("%s: stdout %q", name, &stdout)
		}
		if _, err := os.Stat(runfile.Path(".")); !os.IsNotExist(err) {
			t.Errorf("%s: the run file is left: %v", name, err)
		}
	}
}

var gatewayLine = regexp.MustCompile(`gateway +(http://\S+)`)

func TestMainRuns(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("KEELSON_LOG_LEVEL", "warn")
	for _, ephemeral := range []bool{true, false} {
		args := append([]string{"all"}, free...)
		if ephemeral {
			args = append(args, "--ephemeral")
		}
		var stdout, stderr talk
		ctx, cancel := context.WithCancel(t.Context())
		var environment func(string) string
		noting := platform.Service{Name: "users", New: named("users", func(_ *service.Service, opts []service.Option) {
			environment = service.Environment(opts...)
		})}
		ended := make(chan int, 1)
		cfg := routes("users")
		cfg.Routes[0].Public = false
		go func() { ended <- platform.Run(ctx, platform.Config{Gateway: cfg}, args, &stdout, &stderr, noting) }()
		var url string
		eventually(t, "the banner", func() bool {
			if m := gatewayLine.FindStringSubmatch(stderr.String()); m != nil {
				url = m[1]
			}
			return url != "" && strings.Contains(stderr.String(), "Ctrl-C")
		})
		for _, s := range []string{"Everything is up", "/v1/services", "users-1", "/api/users → users", "$(keelson token)"} {
			if !strings.Contains(stderr.String(), s) {
				t.Errorf("the banner lacks %q:\n%s", s, &stderr)
			}
		}
		// What `keelson token` does.
		key, err := auth.LoadOrCreateDevKey(filepath.Join(dir, runfile.Folder, "dev.key"))
		if err != nil {
			t.Fatal(err)
		}
		token, err := key.Mint(auth.TokenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if code, body := get(t, url+"/api/users"); code != http.StatusUnauthorized {
			t.Errorf("without a token: %d %s", code, body)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/users", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		transport := &http.Transport{DisableKeepAlives: true}
		if resp, err := transport.RoundTrip(req); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("with a token: %v, %v", resp, err)
		} else {
			resp.Body.Close()
		}
		f, err := runfile.Read(runfile.Path(dir))
		if err != nil || !f.Alive() || f.PID != os.Getpid() || f.Gateway != url || f.Admin == "" || !f.Engine.Embedded || f.Engine.Credentials == "" {
			t.Errorf("run file: %+v, %v", f, err)
		}
		database := strings.TrimPrefix(environment("KEELSON_DATABASE_URL"), "sqlite://")
		if inside := strings.HasPrefix(database, dir); inside == ephemeral || filepath.Base(database) != "users.db" {
			t.Errorf("ephemeral %t: the database is %s", ephemeral, database)
		}
		if got := environment("KEELSON_LOG_LEVEL"); got != "WARN" {
			t.Errorf("the level is %s", got)
		}
		var second talk
		if code := platform.Run(t.Context(), platform.Config{}, free, &stdout, &second, users); code != 6 ||
			!strings.Contains(second.String(), fmt.Sprintf("another `shop` (pid %d) runs in %s", os.Getpid(), dir)) {
			t.Errorf("a second one: %d\n%s", code, &second)
		}
		cancel()
		select {
		case code := <-ended:
			if code != 0 || !strings.HasSuffix(stderr.String(), "everything is stopped\n") {
				t.Errorf("exit code %d\n%s", code, &stderr)
			}
		case <-time.After(time.Minute):
			t.Fatal("it does not stop")
		}
		if _, err := os.Stat(filepath.Dir(database)); os.IsNotExist(err) != ephemeral {
			t.Errorf("ephemeral %t: the data at the end: %v", ephemeral, err)
		}
		if _, err := os.Stat(filepath.Join(dir, runfile.Folder, "engine")); os.IsNotExist(err) != ephemeral {
			t.Errorf("ephemeral %t: the engine's data: %v", ephemeral, err)
		}
		if stdout.String() != "" {
			t.Errorf("stdout: %q", &stdout)
		}
	}
	w, err := workspace.Open(dir, "keelson up", false) // the lock is free again
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A second signal cuts the stop short, and the message says what was left.
func TestMainForced(t *testing.T) {
	t.Chdir(t.TempDir())
	stopping, release := make(chan struct{}), make(chan struct{})
	stubborn := platform.Service{Name: "users", New: named("users", func(s *service.Service, _ []service.Option) {
		s.OnStop("flush", 0, func(context.Context) error {
			close(stopping)
			<-release
			return nil
		})
	})}
	defer close(release)
	forced := make(chan struct{})
	var stdout, stderr talk
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- platform.Run(ctx, platform.Config{Forced: forced}, append([]string{"--ephemeral"}, free...), &stdout, &stderr, stubborn)
	}()
	eventually(t, "the banner", func() bool { return strings.Contains(stderr.String(), "Ctrl-C") })
	cancel()
	<-stopping
	close(forced)
	if code := <-ended; code != 1 || !strings.Contains(stderr.String(), "stopped by a second signal") || !strings.Contains(stderr.String(), "users") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
}
