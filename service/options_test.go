package service_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
)

func TestFromEnvironment(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		env  map[string]string
		want func(in registry.Instance, s *service.Service) bool
	}{
		"nothing": {nil, func(in registry.Instance, s *service.Service) bool {
			return in.Port > 0 && in.Version == "dev" && strings.HasPrefix(in.Address, "http://127.0.0.1:") && strings.HasPrefix(in.ID, "users-127-0-0-1-")
		}},
		"a free port by name": {map[string]string{"PORT": "0"}, func(in registry.Instance, _ *service.Service) bool { return in.Port > 0 }},
		"instance":            {map[string]string{"KEELSON_INSTANCE": "users-1"}, func(in registry.Instance, _ *service.Service) bool { return in.ID == "users-1" }},
		"version": {map[string]string{"KEELSON_VERSION": "1.2.3"}, func(in registry.Instance, s *service.Service) bool {
			return in.Version == "1.2.3" && s.Health().Report().Version == "1.2.3"
		}},
		"zone": {map[string]string{"KEELSON_ZONE": "north"}, func(in registry.Instance, _ *service.Service) bool { return in.Zone == "north" }},
		"tags": {map[string]string{"KEELSON_TAGS": "blue, canary,,"}, func(in registry.Instance, _ *service.Service) bool {
			return strings.Join(in.Tags, "|") == "blue|canary"
		}},
		"advertise a host": {map[string]string{"KEELSON_ADVERTISE": "users.internal"}, func(in registry.Instance, s *service.Service) bool {
			return in.Address == "http://users.internal:"+port(s)
		}},
		"advertise host and port": {map[string]string{"KEELSON_ADVERTISE": "users.internal:80"}, func(in registry.Instance, _ *service.Service) bool { return in.Address == "http://users.internal:80" }},
		"advertise a URL":         {map[string]string{"KEELSON_ADVERTISE": "https://users.example"}, func(in registry.Instance, _ *service.Service) bool { return in.Address == "https://users.example:443" }},
		"advertise IPv6":          {map[string]string{"KEELSON_ADVERTISE": "::1"}, func(in registry.Instance, s *service.Service) bool { return in.Address == "http://[::1]:"+port(s) }},
		"all addresses": {map[string]string{"KEELSON_HOST": "0.0.0.0"}, func(in registry.Instance, s *service.Service) bool {
			return in.Address == "http://"+hostname+":"+port(s)
		}},
		"IPv6":     {map[string]string{"KEELSON_HOST": "::1"}, func(in registry.Instance, s *service.Service) bool { return in.Address == "http://[::1]:"+port(s) }},
		"the rest": {map[string]string{"KEELSON_STOP_TIMEOUT": "3s", "KEELSON_DRAIN_DELAY": "1ms", "KEELSON_LOG_LEVEL": "warn", "KEELSON_LOG_FORMAT": "json"}, func(_ registry.Instance, s *service.Service) bool { return !s.Log().Enabled(t.Context(), -4) }},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			r, _ := fleet(t, memregistry.New())
			s, err := service.New("users", service.WithRegistry(r), service.FromEnvironment())
			if err != nil {
				t.Fatal(err)
			}
			p := run(t, s)
			eventually(t, "it is registered", func() bool { in, ok := only(r, "users"); return ok && in.Status == health.Healthy })
			if in, _ := only(r, "users"); !tc.want(in, s) {
				t.Errorf("%+v at %s", in, s.Addr())
			}
			if err := p.stop(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func port(s *service.Service) string {
	_, p, _ := net.SplitHostPort(s.Addr().String())
	return p
}

// Several services in one process each have an environment of their own.
func TestWithEnvironment(t *testing.T) {
	t.Setenv("KEELSON_VERSION", "theirs")
	t.Setenv("KEELSON_ZONE", "theirs")
	own := service.WithEnvironment(func(name string) string {
		return map[string]string{"KEELSON_VERSION": "own", "KEELSON_DATABASE_URL": "sqlite:///own.db"}[name]
	})
	for name, opts := range map[string][]service.Option{
		"before": {own, service.FromEnvironment()},
		"behind": {service.FromEnvironment(), own},
		"last":   {service.WithEnvironment(os.Getenv), service.FromEnvironment(), own},
	} {
		if got := service.Environment(opts...)("KEELSON_DATABASE_URL"); got != "sqlite:///own.db" {
			t.Errorf("%s: the database is %q", name, got)
		}
		s, err := service.New("users", opts...)
		if err != nil || s.Health().Report().Version != "own" {
			t.Errorf("%s: version %q, %v", name, s.Health().Report().Version, err)
		}
	}
	for name, opts := range map[string][]service.Option{"not set": nil, "nil": {own, service.WithEnvironment(nil)}} {
		if got := service.Environment(opts...)("KEELSON_ZONE"); got != "theirs" {
			t.Errorf("%s: KEELSON_ZONE is %q", name, got)
		}
	}
}

// A listener that is open already, and a log of one's own.
func TestListenerAndLogOutput(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := new(logs)
	s, err := service.New("users", service.WithListener(l), service.WithPort(1), service.WithLogOutput(log), service.WithDrainDelay(0))
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, s)
	if p.url != "http://"+l.Addr().String() {
		t.Errorf("it serves on %s, not on %s", p.url, l.Addr())
	}
	if err := p.stop(t); err != nil {
		t.Error(err)
	}
	if got := log.record(t, "serving")["address"]; got != p.url {
		t.Errorf("it logged %v", got)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

// The environment wins over what is in the code, as it stands behind it.
func TestEnvironmentAndCode(t *testing.T) {
	t.Setenv("KEELSON_VERSION", "2")
	s, err := service.New("users", service.WithVersion("1"), service.FromEnvironment())
	if err != nil || s.Health().Report().Version != "2" {
		t.Errorf("version %q, %v", s.Health().Report().Version, err)
	}
}

func TestBadEnvironmentIsToldAsAWhole(t *testing.T) {
	bad := map[string]string{
		"PORT": "70000", "KEELSON_STOP_TIMEOUT": "0s", "KEELSON_DRAIN_DELAY": "-1s",
		"KEELSON_LOG_LEVEL": "loud", "KEELSON_LOG_FORMAT": "xml", "KEELSON_TAGS": strings.Repeat("x", 100),
	}
	for k, v := range bad {
		t.Setenv(k, v)
	}
	_, err := service.New("users", service.FromEnvironment())
	if err == nil {
		t.Fatal("New took it")
	}
	for k := range bad {
		want := k
		if k == "KEELSON_TAGS" {
			want = "tags"
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for want, tc := range map[string]struct {
		name string
		opt  service.Option
	}{
		"name is not a service name":     {"No Name", service.WithVersion("1")},
		"the port is -1":                 {"users", service.WithPort(-1)},
		"the port is 65536":              {"users", service.WithPort(65536)},
		"the stop timeout is -1s":        {"users", service.WithStopTimeout(-time.Second)},
		"the drain delay is -1s":         {"users", service.WithDrainDelay(-time.Second)},
		"less than the stop timeout":     {"users", service.WithDrainDelay(time.Minute)},
		"the request timeout is -1s":     {"users", service.WithRequestTimeout(-time.Second)},
		"zone":                           {"users", service.WithZone(strings.Repeat("z", 65))},
		"address":                        {"users", service.WithAdvertise("no host")},
		"has more than scheme, host and": {"users", service.WithAdvertise("http://a.example/path")},
		"metadata":                       {"users", service.WithMetadata(map[string]string{strings.Repeat("k", 65): "x"})},
		"id is too long":                 {"users", service.WithInstance(strings.Repeat("i", 129))},
	} {
		if _, err := service.New(tc.name, tc.opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := service.New("users", service.WithStopTimeout(0)); err != nil {
		t.Errorf("0 is the default: %v", err)
	}
}
