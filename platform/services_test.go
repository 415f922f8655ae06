package platform_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/service"
)

// named makes a service that says who answers, and lets a test change it.
func named(name string, change ...func(s *service.Service, opts []service.Option)) service.Constructor {
	return func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New(name, append(opts, service.WithLogOutput(io.Discard), service.WithDrainDelay(0))...)
		if err != nil {
			return nil, err
		}
		s.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, s.Instance())
			return err
		})
		for _, f := range change {
			f(s, opts)
		}
		return s, nil
	}
}

func routes(names ...string) gateway.Config {
	var cfg gateway.Config
	for _, name := range names {
		cfg.Routes = append(cfg.Routes, gateway.Route{Path: "/api/" + name, Service: name, StripPrefix: "/api", Public: true})
	}
	return cfg
}

// up runs p, waits until it is up, and returns how to stop it.
func up(t *testing.T, p *platform.Platform) (stop func() error) {
	t.Helper()
	stop = start(t, p)
	select {
	case <-p.Up():
	case <-time.After(30 * time.Second):
		t.Fatal("not up after 30 s")
	}
	return stop
}

// The first request that is let in finds every service.
func TestServices(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: routes("users", "orders")})
	p.AddService("users", named("users"))
	p.AddService("orders", named("orders"))
	p.AddService("orders", named("orders"), service.WithInstance("the-other"))
	stop := up(t, p)
	if err := p.WaitServices(t.Context()); err != nil {
		t.Error(err)
	}
	if code, body := get(t, p.GatewayURL()+"/api/users"); code != http.StatusOK || body != "users-1" {
		t.Errorf("users: %d %s", code, body)
	}
	seen := map[string]bool{}
	eventually(t, "both orders", func() bool {
		code, body := get(t, p.GatewayURL()+"/api/orders")
		if code != http.StatusOK {
			t.Fatalf("orders: %d %s", code, body)
		}
		seen[body] = true
		return seen["orders-1"] && seen["the-other"]
	})
	// Each has metrics of its own.
	for _, in := range p.Registry().Discover("orders") {
		code, body := get(t, in.Address+"/metrics")
		if code != http.StatusOK || !strings.Contains(body, `http_route="/orders"`) || strings.Contains(body, `http_route="/users"`) {
			t.Errorf("metrics of %s: %d\n%s", in.ID, code, body)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestServiceEnvironment(t *testing.T) {
	t.Setenv("PORT", "1")
	t.Setenv("KEELSON_HOST", "192.0.2.1")
	t.Setenv("KEELSON_INSTANCE", "the process")
	t.Setenv("KEELSON_ZONE", "north")
	dir := filepath.Join(t.TempDir(), "data")
	p := listen(t, platform.Config{DataDir: dir, Engine: embedded.Config{Listen: "127.0.0.1:0"}})
	var mu sync.Mutex
	environment := map[string]func(string) string{}
	note := func(s *service.Service, opts []service.Option) {
		mu.Lock()
		defer mu.Unlock()
		environment[s.Name()] = service.Environment(opts...)
	}
	p.AddService("users", named("users", note))
	p.AddService("orders", named("orders", note), service.WithEnvironment(func(name string) string {
		return map[string]string{"KEELSON_DATABASE_URL": "postgres://db", "KEELSON_VERSION": "7"}[name]
	}), service.WithZone("south"))
	stop := up(t, p)
	url, credentials := p.Engine()
	for _, tt := range []struct{ service, name, want string }{
		{"users", "PORT", ""}, {"users", "KEELSON_HOST", ""}, {"users", "KEELSON_INSTANCE", "users-1"},
		{"users", "KEELSON_ZONE", "north"}, {"users", "KEELSON_SERVICE", "users"},
		{"users", "KEELSON_DATABASE_URL", "sqlite://" + dir + "/users.db"},
		{"users", "KEELSON_ENGINE_URL", url}, {"users", "KEELSON_ENGINE_CREDENTIALS", credentials},
		{"users", "KEELSON_ADMIN_URL", p.AdminURL()},
		{"orders", "KEELSON_ZONE", ""}, {"orders", "KEELSON_DATABASE_URL", "postgres://db"}, {"orders", "KEELSON_SERVICE", "orders"},
	} {
		if got := environment[tt.service](tt.name); got != tt.want {
			t.Errorf("%s of %s is %q, want %q", tt.name, tt.service, got, tt.want)
		}
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		t.Errorf("the data folder: %v, %v", info, err)
	}
	if in := p.Registry().Discover("orders")[0]; in.Version != "7" || in.Zone != "south" {
		t.Errorf("orders: %+v", in)
	}
	if in := p.Registry().Discover("users")[0]; in.Zone != "north" {
		t.Errorf("users: %+v", in)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// One that fails stops all, and the error says which.
func TestServiceFailures(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() }) // after the subtests
	port := int(netip.MustParseAddrPort(busy.Addr().String()).Port())
	broken := errors.New("no route to the database")
	for name, tt := range map[string]struct {
		construct service.Constructor
		options   []service.Option
		check     func(error) bool
	}{
		"its constructor fails": {func(context.Context, ...service.Option) (*service.Service, error) { return nil, broken }, nil,
			func(err error) bool { return errors.Is(err, broken) }},
		"it has another name":   {named("orders"), nil, func(err error) bool { return strings.Contains(err.Error(), `made the service "orders"`) }},
		"it has no constructor": {nil, nil, func(err error) bool { return strings.Contains(err.Error(), "give AddService one") }},
		"its options are bad":   {named("bad"), []service.Option{service.WithPort(-1)}, func(err error) bool { return strings.Contains(err.Error(), "the port is -1") }},
		"its port is taken": {named("bad"), []service.Option{service.WithPort(port)}, func(err error) bool {
			b, ok := errors.AsType[*platform.BusyError](err)
			return ok && b.Part == "bad" && b.Addr == busy.Addr().String()
		}},
		"a part of it ends": {named("bad", func(s *service.Service, _ []service.Option) {
			s.Add("worker", func(_ context.Context, ready func()) error { ready(); return broken })
		}), nil, func(err error) bool { return errors.Is(err, broken) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := listen(t, platform.Config{Gateway: routes("users")})
			p.AddService("users", named("users"))
			p.AddService("bad", tt.construct, tt.options...)
			done := make(chan error, 1)
			go func() { done <- p.Run(t.Context()) }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), "bad: ") || !tt.check(err) {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it goes on without the service")
			}
		})
	}
}

// A service that is not ready holds up neither the others nor, for long, the
// gateway.
func TestServiceThatIsNotReady(t *testing.T) {
	t.Parallel()
	database := errors.New("no route to host")
	var mu sync.Mutex
	p := listen(t, platform.Config{Gateway: routes("users", "slow")})
	p.AddService("slow", named("slow", func(s *service.Service, _ []service.Option) {
		if err := s.Health().Add("database", func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return database
		}, health.Critical(), health.Interval(10*time.Millisecond)); err != nil {
			t.Error(err)
		}
	}))
	p.AddService("users", named("users"))
	early, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := p.WaitServices(early); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not open") {
		t.Errorf("before Run: %v", err)
	}
	stop := up(t, p)
	if code, body := get(t, p.GatewayURL()+"/api/slow"); code != http.StatusServiceUnavailable {
		t.Errorf("slow: %d %s", code, body)
	}
	if code, body := get(t, p.GatewayURL()+"/api/users"); code != http.StatusOK {
		t.Errorf("users: %d %s", code, body)
	}
	wait, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.WaitServices(wait); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "slow") || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("WaitServices: %v", err)
	}
	mu.Lock()
	database = nil
	mu.Unlock()
	if err := p.WaitServices(t.Context()); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// Services stop one after another, the last added first, after the gateway.
func TestServicesStopInOrder(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: routes("first")})
	var mu sync.Mutex
	var order []string
	gateway := func() string {
		if code, _ := get(t, p.GatewayURL()+"/livez"); code != 0 {
			return "up"
		}
		return "down"
	}
	for _, name := range []string{"first", "second", "third"} {
		p.AddService(name, named(name, func(s *service.Service, _ []service.Option) {
			s.OnStop("note", 0, func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name+" with the gateway "+gateway())
				return nil
			})
		}))
	}
	if err := up(t, p)(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if got := strings.Join(order, ", "); got != "third with the gateway down, second with the gateway down, first with the gateway down" {
		t.Errorf("order: %s", got)
	}
}

// An instance elsewhere joins the one in this process.
func TestServiceElsewhereJoins(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: routes("users"), Engine: embedded.Config{Listen: "127.0.0.1:0"}})
	p.AddService("users", named("users"), service.WithInstance("here"))
	stop := up(t, p)
	url, credentials := p.Engine()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		left <- join.Serve(ctx, engine.Config{URL: url, Credentials: credentials}, named("users"), service.WithInstance("elsewhere"))
	}()
	seen := map[string]bool{}
	eventually(t, "answers of both", func() bool {
		code, body := get(t, p.GatewayURL()+"/api/users")
		if code != http.StatusOK {
			t.Fatalf("%d %s", code, body)
		}
		seen[body] = true
		return seen["here"] && seen["elsewhere"]
	})
	cancel()
	if err := <-left; err != nil {
		t.Errorf("leave: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// processes is what `keelson up` would give.
type processes struct{ console.Processes }

func (processes) List() []console.Process {
	return []console.Process{{Service: "users", Instance: "users-1", State: "healthy", PID: 42}}
}

func TestAdminAPITellsOfTheSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := listen(t, platform.Config{Version: "v1.2.3", Engine: embedded.Config{Dir: dir, Listen: "127.0.0.1:0"}, Processes: processes{}})
	p.AddService("users", named("users"))
	stop := up(t, p)
	var s console.System
	eventually(t, "it to lead", func() bool {
		_, body := get(t, p.AdminURL()+"/v1/system")
		s = console.System{}
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return s.Registry.Leading && s.Dependencies["engine"].Status == health.Healthy
	})
	url, credentials := p.Engine()
	if s.Version != "v1.2.3" || s.PID != os.Getpid() || time.Since(s.StartedAt) > time.Minute || s.Status != health.Healthy ||
		s.Gateway.URL != p.GatewayURL() || s.Admin.URL != p.AdminURL() || !s.Registry.Synced || s.Registry.Instances != 1 ||
		s.Engine != (console.Engine{Kind: "embedded", URL: url, Directory: dir, Durability: "fast"}) {
		t.Errorf("%+v", s)
	}
	if strings.Contains(fmt.Sprintf("%+v", s), credentials) {
		t.Error("the credentials are told")
	}
	if code, body := get(t, p.AdminURL()+"/v1/processes"); code != http.StatusOK || !strings.Contains(body, `"users-1"`) {
		t.Errorf("processes: %d %s", code, body)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// Off loopback the admin API wants to know who asks.
func TestAdminAuthenticator(t *testing.T) {
	t.Parallel()
	key, err := auth.LoadOrCreateDevKey(filepath.Join(t.TempDir(), "dev.key"))
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := auth.NewJWT(t.Context(), key.JWTConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer jwt.Close()
	p := listen(t, platform.Config{AdminListen: "0.0.0.0:0", AdminAuthenticator: jwt})
	stop := start(t, p)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(p.AdminURL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, "http://127.0.0.1:"+port+"/v1/services"); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", code, body)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
