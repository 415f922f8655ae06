package keelsontest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/keelsontest"
	"github.com/keelson-go/keelson/service"
)

// hello is a service that says who answers, and what its environment has.
func hello(_ context.Context, opts ...service.Option) (*service.Service, error) {
	s, err := service.New("hello", opts...)
	if err != nil {
		return nil, err
	}
	s.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, s.Instance()+" "+r.Header.Get("X-Auth-Subject"))
		return err
	})
	s.HandleFunc("GET /hello/env/{name}", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, service.Environment(opts...)(r.PathValue("name")))
		return err
	})
	return s, nil
}

var route = keelsontest.Route("/api/hello/*", "hello", keelsontest.StripPrefix("/api"))

func get(t testing.TB, client *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func TestThreeLines(t *testing.T) {
	t.Parallel()
	fleet := keelsontest.Start(t, keelsontest.Service("hello", hello), route)
	if code, body := get(t, fleet.Client(), fleet.URL+"/api/hello"); code != 200 || body != "hello-1 dev" {
		t.Errorf("%d %s", code, body)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	fleet := keelsontest.Start(t, keelsontest.Service("hello", hello), route,
		keelsontest.Route("/open/*", "hello", keelsontest.StripPrefix("/open"), keelsontest.Public()),
		keelsontest.Route("/guarded/*", "hello", keelsontest.StripPrefix("/guarded"), keelsontest.Scopes("hello:read")))
	for name, tt := range map[string]struct {
		client *http.Client
		path   string
		code   int
	}{
		"any token":         {fleet.Client(), "/api/hello", 200},
		"no token":          {fleet.ClientWith(""), "/api/hello", 401},
		"a bad token":       {fleet.ClientWith("x.y.z"), "/api/hello", 401},
		"public":            {fleet.ClientWith(""), "/open/hello", 200},
		"without the scope": {fleet.Client("hello:write"), "/guarded/hello", 403},
		"with the scope":    {fleet.Client("hello:read"), "/guarded/hello", 200},
	} {
		if code, body := get(t, tt.client, fleet.URL+tt.path); code != tt.code {
			t.Errorf("%s: %d %s, want %d", name, code, body, tt.code)
		}
	}
	if _, body := get(t, fleet.ClientWith(fleet.TokenOf("ann")), fleet.URL+"/api/hello"); body != "hello-1 ann" {
		t.Errorf("another subject: %s", body)
	}
	// The token goes to the gateway, and nowhere else.
	other := keelsontest.Start(t, keelsontest.Handler("spy", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"))
	})))
	if _, body := get(t, fleet.Client(), other.Instances("spy")[0].URL()); body != "" {
		t.Errorf("a stranger was given %q", body)
	}
}

func TestGatewayConfig(t *testing.T) {
	t.Parallel()
	fleet := keelsontest.Start(t, route, keelsontest.Service("hello", hello), keelsontest.Gateway(gateway.Config{
		Routes:         []gateway.Route{{Path: "/own/*", Service: "hello", StripPrefix: "/own"}},
		ExposeServices: true,
	}))
	for _, path := range []string{"/own/hello", "/api/hello", "/services"} {
		if code, body := get(t, fleet.Client(), fleet.URL+path); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := get(t, fleet.ClientWith(""), fleet.AdminURL+"/v1/services"); code != 200 {
		t.Errorf("the admin API: %d", code)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("KEELSON_ZONE", "the developer's own")
	t.Setenv("PORT", "1")
	t.Setenv("SHOP_COLOUR", "blue")
	fleet := keelsontest.Start(t, route,
		keelsontest.Service("hello", hello, keelsontest.Env("MODE", "fast"), keelsontest.Env("KEELSON_VERSION", "7"), keelsontest.With(service.WithTags("tagged"))))
	ask := func(name string) string {
		_, body := get(t, fleet.Client(), fleet.URL+"/api/hello/env/"+name)
		return body
	}
	for name, want := range map[string]string{
		"MODE": "fast", "KEELSON_ZONE": "", "PORT": "", "SHOP_COLOUR": "blue",
		"KEELSON_SERVICE": "hello", "KEELSON_INSTANCE": "hello-1", "KEELSON_ADMIN_URL": fleet.AdminURL,
	} {
		if got := ask(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	path, ok := strings.CutPrefix(ask("KEELSON_DATABASE_URL"), "sqlite://")
	if err := os.WriteFile(path, nil, 0o600); !ok || err != nil || !strings.HasSuffix(path, "/hello.db") {
		t.Errorf("the database is %s: %v", path, err)
	}
	if !strings.HasPrefix(ask("KEELSON_ENGINE_URL"), "nats://127.0.0.1:") || !strings.Contains(ask("KEELSON_ENGINE_CREDENTIALS"), ":") {
		t.Error("a service is not told where the engine is")
	}
	in := fleet.Registry().Discover("hello")[0]
	if in.Version != "7" || len(in.Tags) != 1 || in.Tags[0] != "tagged" {
		t.Errorf("%+v", in)
	}
}

// Services find each other, whatever their order.
func TestServicesCallEachOther(t *testing.T) {
	t.Parallel()
	front := func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New("front", opts...)
		if err != nil {
			return nil, err
		}
		s.HandleFunc("GET /front", func(w http.ResponseWriter, r *http.Request) error {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://back/x", nil)
			if err != nil {
				return err
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(w, resp.Body)
			return err
		})
		return s, nil
	}
	fleet := keelsontest.Start(t,
		keelsontest.Service("front", front, keelsontest.Instances(3)),
		keelsontest.Handler("back", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from the back") })),
		keelsontest.Route("/front", "front", keelsontest.Public()))
	for range 6 {
		if code, body := get(t, fleet.ClientWith(""), fleet.URL+"/front"); code != 200 || body != "from the back" {
			t.Errorf("%d %s", code, body)
		}
	}
}

// A service that is not healthy at once is waited for.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	began := time.Now()
	slow := func(ctx context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := hello(ctx, opts...)
		if err != nil {
			return nil, err
		}
		return s, s.Health().Add("database", func(context.Context) error {
			if time.Since(began) < 300*time.Millisecond {
				return errors.New("still starting")
			}
			return nil
		}, health.Critical(), health.Interval(10*time.Millisecond))
	}
	fleet := keelsontest.Start(t, keelsontest.Service("hello", slow, keelsontest.Instances(2)), route)
	if code, body := get(t, fleet.Client(), fleet.URL+"/api/hello"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// BenchmarkStart is what a fleet adds to a test: from Start until everything is in
// rotation, and until everything has stopped.
func BenchmarkStart(b *testing.B) {
	var up, down time.Duration
	for b.Loop() {
		r := &recorder{TB: b}
		began := time.Now()
		keelsontest.Start(r, keelsontest.Service("hello", hello), route)
		up += time.Since(began)
		began = time.Now()
		r.end()
		down += time.Since(began)
		if len(r.messages) > 0 {
			b.Fatal(r.messages)
		}
	}
	b.ReportMetric(float64(up.Milliseconds())/float64(b.N), "ms-up/op")
	b.ReportMetric(float64(down.Milliseconds())/float64(b.N), "ms-down/op")
}
