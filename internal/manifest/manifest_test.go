package manifest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/internal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, text string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse("keelson.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var compare = []cmp.Option{
	cmpopts.IgnoreUnexported(manifest.Manifest{}),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

func TestDefaults(t *testing.T) {
	t.Parallel()
	want := &manifest.Manifest{
		Path: "keelson.yaml", Version: 1,
		Gateway: manifest.Gateway{
			Listen:    "127.0.0.1:3000",
			RateLimit: manifest.RateLimit{Limit: 100, Window: time.Minute, By: manifest.ByClient},
		},
		Admin:    manifest.Admin{Listen: "127.0.0.1:3100"},
		Engine:   manifest.Engine{Durability: manifest.Fast},
		Services: map[string]manifest.Service{},
	}
	for name, text := range map[string]string{
		"version alone": "version: 1",
		"empty keys":    "version: 1\ngateway:\nadmin:\nengine:\nservices:\n",
		"JSON":          `{"version": 1}`,
		"as in the contract": `
version: 1
gateway:
  listen: 127.0.0.1:3000
  auth: {jwt: {keys: [], jwks: "", issuer: "", audience: ""}}
  cors: {origins: []}
  rateLimit: {limit: 100, window: 60s}
  trustedProxies: []
  routes: []
admin: {listen: 127.0.0.1:3100}
engine: {listen: "", url: "", credentials: "", durability: fast}
services: {}
`,
	} {
		m := parse(t, text)
		if diff := cmp.Diff(want, m, compare...); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if len(m.Warnings()) > 0 || len(m.Order()) > 0 {
			t.Errorf("%s: warnings %v, order %v", name, m.Warnings(), m.Order())
		}
	}
}

func TestEverything(t *testing.T) {
	t.Parallel()
	m := parse(t, `
version: 1
gateway:
  listen: 0.0.0.0:8080
  auth: {jwt: {keys: [issuer.pem], jwks: "https://login.example/jwks", issuer: "https://login.example", audience: shop}}
  cors: {origins: ["https://Shop.example", "http://localhost:5173"]}
  rateLimit: {limit: 1000}
  trustedProxies: [10.0.0.0/8, 192.168.1.7, "::1", "fd00::/8", "::ffff:10.1.0.0/112"]
  routes:
    - path: /api/users/*
      service: users
      stripPrefix: /api
    - path: /api/orders/*
      host: Shop.Example
      headers: {x-version: "2"}
      methods: [GET, POST]
      backends: [{service: orders, weight: 9}, {service: users, weight: 1}, {service: new}]
      scopes: [orders:read]
      timeout: 1m30s
      priority: critical
      rateLimit: {limit: 5, window: 1s, by: subject}
      allow: [10.0.0.0/8]
      deny: [10.6.6.6]
    - {path: /health, service: users, public: true, rateLimit: {limit: 3}}
admin: {listen: "[::1]:3101"}
engine: {listen: "127.0.0.1:4222", credentials: "shop:secret", durability: always}
services:
  orders: {command: [node, orders.js], args: [-v], dependsOn: [users], instances: 3, env: {LOG: debug, EMPTY: ""}}
  users: {package: ./users, args: [serve], port: 3001}
  new: {command: [./new]}
`)
	prefix := netip.MustParsePrefix
	want := &manifest.Manifest{
		Path: "keelson.yaml", Version: 1,
		Gateway: manifest.Gateway{
			Listen: "0.0.0.0:8080",
			Auth: manifest.Auth{JWT: manifest.JWT{
				Keys: []string{"issuer.pem"}, JWKS: "https://login.example/jwks", Issuer: "https://login.example", Audience: "shop",
			}},
			CORS:      manifest.CORS{Origins: []string{"https://shop.example", "http://localhost:5173"}},
			RateLimit: manifest.RateLimit{Limit: 1000, Window: time.Minute, By: manifest.ByClient},
			TrustedProxies: []netip.Prefix{
				prefix("10.0.0.0/8"), prefix("192.168.1.7/32"), prefix("::1/128"), prefix("fd00::/8"),
				prefix("10.1.0.0/16"), // clients' addresses are compared in their IPv4 form
			},
			Routes: []manifest.Route{
				{
					Path: "/api/users/*", Service: "users", StripPrefix: "/api", Methods: methods, Priority: manifest.Normal,
					Backends: []manifest.Backend{{Service: "users", Weight: 1}},
				},
				{
					Path: "/api/orders/*", Host: "shop.example", Headers: map[string]string{"X-Version": "2"},
					Methods:   []string{"GET", "POST"},
					Backends:  []manifest.Backend{{Service: "orders", Weight: 9}, {Service: "users", Weight: 1}, {Service: "new", Weight: 1}},
					Scopes:    []string{"orders:read"},
					Timeout:   90 * time.Second,
					Priority:  manifest.Critical,
					RateLimit: manifest.RateLimit{Limit: 5, Window: time.Second, By: manifest.BySubject},
					Allow:     []netip.Prefix{prefix("10.0.0.0/8")}, Deny: []netip.Prefix{prefix("10.6.6.6/32")},
				},
				{
					Path: "/health", Service: "users", Public: true, Methods: methods, Priority: manifest.Normal,
					Backends:  []manifest.Backend{{Service: "users", Weight: 1}},
					RateLimit: manifest.RateLimit{Limit: 3, Window: time.Minute, By: manifest.ByClient},
				},
			},
		},
		Admin:  manifest.Admin{Listen: "[::1]:3101"},
		Engine: manifest.Engine{Listen: "127.0.0.1:4222", Credentials: "shop:secret", Durability: manifest.Always},
		Services: map[string]manifest.Service{
			"orders": {
				Name: "orders", Command: []string{"node", "orders.js"}, Args: []string{"-v"}, Instances: 3,
				DependsOn: []string{"users"}, Env: map[string]string{"LOG": "debug", "EMPTY": ""},
			},
			"users": {Name: "users", Package: "./users", Args: []string{"serve"}, Port: 3001, Instances: 1},
			"new":   {Name: "new", Command: []string{"./new"}, Instances: 1},
		},
	}
	if diff := cmp.Diff(want, m, compare...); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"users", "orders", "new"}, m.Order()); diff != "" {
		t.Error(diff)
	}
	if !m.Gateway.Auth.JWT.Enabled() || len(m.Warnings()) > 0 {
		t.Errorf("enabled %v, warnings %v", m.Gateway.Auth.JWT.Enabled(), m.Warnings())
	}
}

func TestAnchors(t *testing.T) {
	t.Parallel()
	m := parse(t, `
version: 1
services:
  a: {command: &run [node, x.js], env: &env {LOG: debug}}
  b: {command: *run, env: *env, dependsOn: [a]}
`)
	if diff := cmp.Diff(m.Services["a"].Command, m.Services["b"].Command); diff != "" || m.Services["b"].Env["LOG"] != "debug" {
		t.Errorf("%+v %s", m.Services, diff)
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	m := parse(t, `
version: 1
services:
  web: {command: [x], dependsOn: [api, cache]}
  api: {command: [x], dependsOn: [db]}
  cache: {command: [x]}
  db: {command: [x]}
  alone: {command: [x]}
`)
	if diff := cmp.Diff([]string{"db", "api", "cache", "web", "alone"}, m.Order()); diff != "" {
		t.Error(diff)
	}
	m.Order()[0] = "changed"
	if m.Order()[0] != "db" {
		t.Error("the order can be changed from outside")
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	m := parse(t, `
version: 1
gateway:
  routes:
    - {path: /a, service: usres}
    - {path: /b, backends: [{service: users}, {service: by-hand}]}
services:
  users: {command: [x], env: {PORT: "80"}}
`)
	var got []string
	for _, w := range m.Warnings() {
		got = append(got, w.Error())
	}
	want := []string{
		`keelson.yaml:5:27: gateway.routes[0].service: there is no service "usres" here; requests get 503 until one is started; did you mean "users"?`,
		`keelson.yaml:6:57: gateway.routes[1].backends[1].service: there is no service "by-hand" here; requests get 503 until one is started; known are users`,
		`keelson.yaml:8:31: services.users.env.PORT: keelson sets this variable itself, so the value is not used; remove it`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Find(deep); !errors.Is(err, manifest.ErrNotFound) || !strings.Contains(err.Error(), deep) {
		t.Errorf("none: %v", err)
	}
	write := func(path string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte("version: 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := write(filepath.Join(root, "keelson.yml"))
	if _, err := manifest.Find(deep); !errors.Is(err, manifest.ErrNotFound) || !strings.Contains(err.Error(), other) {
		t.Errorf("keelson.yml: %v", err)
	}
	top := write(filepath.Join(root, manifest.Name))
	if got, err := manifest.Find(deep); got != top || err != nil {
		t.Errorf("above: %q, %v", got, err)
	}
	near := write(filepath.Join(deep, manifest.Name))
	if got, err := manifest.Find(deep); got != near || err != nil {
		t.Errorf("nearest: %q, %v", got, err)
	}
	odd := filepath.Join(root, "odd")
	if err := os.MkdirAll(filepath.Join(odd, manifest.Name), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Find(odd); err == nil || errors.Is(err, manifest.ErrNotFound) {
		t.Errorf("a folder of that name: %v", err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, manifest.Name)
	if _, err := manifest.Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if err := os.WriteFile(path, []byte("version: 1\nservices: {a: {package: ./a}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Load(path)
	if err != nil || m.Path != path || m.Dir() != dir {
		t.Fatalf("%+v, %v", m, err)
	}
	if got := m.Resolve(m.Services["a"].Package); got != filepath.Join(dir, "a") {
		t.Errorf("resolved %s", got)
	}
	if got := m.Resolve("/etc/key.pem"); got != "/etc/key.pem" {
		t.Errorf("resolved %s", got)
	}
	if err := os.WriteFile(path, []byte("version: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = manifest.Load(path)
	if e, ok := errors.AsType[*manifest.Error](err); !ok || e.File != path || e.Line != 1 {
		t.Errorf("bad file: %v", err)
	}
	if _, err := manifest.Load(dir); err == nil {
		t.Error("a folder was read")
	}
}

// The example is a good manifest, and stays one when its comments are taken as keys.
func TestExample(t *testing.T) {
	t.Parallel()
	text := string(manifest.Example())
	m := parse(t, text)
	if len(m.Services) != 1 || len(m.Gateway.Routes) != 1 || len(m.Warnings()) > 0 {
		t.Errorf("%+v, warnings %v", m, m.Warnings())
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		rest, comment := strings.CutPrefix(line[len(indent):], "# ")
		if i := slices.IndexFunc([]string{"instances:", "args:", "env:", "dependsOn:", "pay:", "  command:", "  dependsOn:", "listen:",
			"rateLimit:", "cors:", "trustedProxies:", "auth:", "  jwt:", "methods:", "scopes:", "timeout:", "priority:", "admin:", "engine:",
		}, func(key string) bool { return strings.HasPrefix(rest, key) }); comment && i >= 0 {
			line = indent + rest
		}
		b.WriteString(line)
	}
	m = parse(t, b.String())
	if len(m.Services) != 2 || m.Gateway.Auth.JWT.Audience != "shop" || m.Gateway.Routes[0].Timeout != 5*time.Second || len(m.Warnings()) > 0 {
		t.Errorf("with all comments: %+v, warnings %v", m, m.Warnings())
	}
}

func Example() {
	m, err := manifest.Parse("keelson.yaml", []byte(`
version: 1
gateway:
  routes: [{path: /api/users/*, service: users, stripPrefix: /api}]
services:
  users: {package: ./users, dependsOn: [db]}
  db: {command: [./db]}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Gateway.Listen, m.Order())

	_, err = manifest.Parse("keelson.yaml", []byte("version: 1\ngatway: {}\n"))
	fmt.Println(err)
	// Output:
	// 127.0.0.1:3000 [db users]
	// keelson.yaml:2:1: unknown key "gatway"; did you mean "gateway"?
}
