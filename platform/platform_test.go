package platform_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// public routes /api/hello to the service hello.
var public = gateway.Config{
	ExposeServices: true,
	Routes:         []gateway.Route{{Path: "/api/hello/*", Service: "hello", StripPrefix: "/api", Public: true}},
}

// start runs p with the components added, and returns how to stop it.
func start(t *testing.T, p *platform.Platform) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	up := make(chan struct{})
	p.Add("up", func(ctx context.Context, ready func()) error {
		ready()
		close(up)
		<-ctx.Done()
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(cancel)
	select {
	case <-up:
	case err := <-done:
		t.Fatalf("Run returned early: %v", err)
	}
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			return errors.New("still running a minute after it was told to stop")
		}
	}
}

func listen(t *testing.T, cfg platform.Config) *platform.Platform {
	t.Helper()
	p, err := platform.Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// addHello has p run a service beside it, through the platform's own registry.
func addHello(p *platform.Platform, handle http.HandlerFunc) {
	p.Add("hello", func(ctx context.Context, ready func()) error {
		quiet, err := telemetry.New(telemetry.Config{Service: "hello", Output: io.Discard})
		if err != nil {
			return err
		}
		s, err := service.New("hello", service.WithRegistry(p.Registry()), service.WithTelemetry(quiet), service.WithDrainDelay(0))
		if err != nil {
			return err
		}
		s.Handle("/", handle)
		ready()
		return s.Run(ctx)
	})
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
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

func TestEverythingInOneProcess(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: public, Version: "v1.2.3"})
	addHello(p, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	stop := start(t, p)

	eventually(t, "the service through the gateway", func() bool {
		code, body := get(t, p.GatewayURL()+"/api/hello/ada")
		return code == http.StatusOK && body == "/hello/ada"
	})
	if code, body := get(t, p.GatewayURL()+"/health"); code != http.StatusOK || !strings.Contains(body, `"v1.2.3"`) || !strings.Contains(body, `"engine"`) {
		t.Errorf("/health of the gateway: %d %s", code, body)
	}
	for _, url := range []string{p.GatewayURL() + "/services", p.AdminURL() + "/v1/services"} {
		var all []registry.Instance
		_, body := get(t, url)
		if err := json.Unmarshal([]byte(body), &all); err != nil || len(all) != 1 || all[0].Name != "hello" {
			t.Errorf("%s: %s", url, body)
		}
	}
	if url, credentials := p.Engine(); url != "" || credentials != "" {
		t.Errorf("the engine listens at %q, though nobody asked it to", url)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	for _, url := range []string{p.GatewayURL(), p.AdminURL()} {
		if code, _ := get(t, url); code != 0 {
			t.Errorf("%s still answers after the stop", url)
		}
	}
}

func TestNoServiceYet(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: public})
	stop := start(t, p)
	eventually(t, "503 no_healthy_instance", func() bool {
		code, body := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "no_healthy_instance")
	})
	if _, body := get(t, p.AdminURL()+"/v1/services"); strings.TrimSpace(body) != "[]" {
		t.Errorf("services: %s, want []", body)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 1), make(chan struct{})
	p := listen(t, platform.Config{Gateway: public})
	addHello(p, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hello/slow" {
			entered <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "done")
	})
	stop := start(t, p)
	eventually(t, "the service", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusOK
	})
	answer := make(chan string, 1)
	go func() {
		code, body := get(t, p.GatewayURL()+"/api/hello/slow")
		answer <- fmt.Sprint(code, " ", body)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	eventually(t, "the gateway to take no new requests", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == 0
	})
	close(release)
	if got := <-answer; got != "200 done" {
		t.Errorf("the request in progress was answered %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A stream that nobody ends must not hold up the stop: not one through the
// gateway, and not the admin API's own.
func TestStopWithOpenStreams(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: public})
	addHello(p, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/hello/stream" {
			<-r.Context().Done()
		}
	})
	stop := start(t, p)
	eventually(t, "the service", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusOK
	})
	for _, url := range []string{p.GatewayURL() + "/api/hello/stream", p.AdminURL() + "/v1/watch"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(began); took >= platform.GatewayGrace {
		t.Errorf("the stop took %v: it waited for the streams", took)
	}
}

func TestMetricsAndHealth(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(telemetry.Config{Service: "keelson", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	p := listen(t, platform.Config{Gateway: public, Telemetry: tel})
	stop := start(t, p)
	eventually(t, "the gateway", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusServiceUnavailable
	})
	eventually(t, "the request in /metrics", func() bool {
		code, body := get(t, p.AdminURL()+"/metrics")
		return code == http.StatusOK && strings.Contains(body, telemetry.ServerDuration+`_count{http_request_method="GET",http_response_status_code="503",http_route="/api/hello/*"}`)
	})
	if _, body := get(t, p.GatewayURL()+"/health"); !strings.Contains(body, `"requestCount"`) || !strings.Contains(body, `"breakers"`) {
		t.Errorf("/health: %s", body)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := p.Run(t.Context()); !errors.Is(err, lifecycle.ErrRan) {
		t.Errorf("a second Run: %v", err)
	}
}

// What the gateway knows of the services it calls is in /metrics and /health.
func TestUpstreamsAreShown(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(telemetry.Config{Service: "keelson", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	p := listen(t, platform.Config{Gateway: public, Telemetry: tel})
	addHello(p, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	stop := start(t, p)
	eventually(t, "an answer", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusOK
	})
	if _, body := get(t, p.AdminURL()+"/metrics"); !strings.Contains(body, `keelson_client_breaker_state{service="hello",state="closed"} 1`) {
		t.Errorf("/metrics: %s", body)
	}
	if _, body := get(t, p.GatewayURL()+"/health"); !strings.Contains(body, `"breakers":{"hello":{"state":"closed"`) {
		t.Errorf("/health: %s", body)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{})
	addHello(p, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	stop := start(t, p)
	eventually(t, "404 without routes", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusNotFound
	})
	if err := p.Reload(public); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new route", func() bool {
		code, body := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusOK && body == "hello"
	})
	if err := p.Reload(gateway.Config{Routes: []gateway.Route{{Path: "no slash", Service: "hello"}}}); err == nil {
		t.Error("a bad configuration was taken")
	}
	if code, _ := get(t, p.GatewayURL()+"/api/hello"); code != http.StatusOK {
		t.Errorf("a bad configuration changed something: %d", code)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestExternalEngine(t *testing.T) {
	t.Parallel()
	server, err := embedded.Start(t.Context(), embedded.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	p := listen(t, platform.Config{Gateway: public, External: engine.Config{URL: server.URL(), Credentials: server.Credentials()}})
	addHello(p, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	stop := start(t, p)
	if url, credentials := p.Engine(); url != server.URL() || credentials != server.Credentials() {
		t.Errorf("Engine() = %q, want the external one", url)
	}
	eventually(t, "the service", func() bool {
		code, _ := get(t, p.GatewayURL()+"/api/hello")
		return code == http.StatusOK
	})
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for part, cfg := range map[string]platform.Config{
		"gateway":   {GatewayListen: l.Addr().String()},
		"admin API": {AdminListen: l.Addr().String()},
	} {
		_, err := platform.Listen(t.Context(), cfg)
		busy, ok := errors.AsType[*platform.BusyError](err)
		if !ok || busy.Part != part || busy.Addr != l.Addr().String() {
			t.Errorf("%s on a busy port: %v", part, err)
		}
	}
	if _, err := platform.Listen(t.Context(), platform.Config{Gateway: gateway.Config{Routes: []gateway.Route{{Path: "/x", Service: "x"}}}}); err == nil {
		t.Error("a route that needs a token was taken without an authenticator")
	}
	if _, err := platform.Listen(t.Context(), platform.Config{AdminListen: "0.0.0.0:0"}); !errors.Is(err, console.ErrOpenToOthers) {
		t.Errorf("an open admin API: %v", err)
	}
	p := listen(t, platform.Config{})
	addr := strings.TrimPrefix(p.GatewayURL(), "http://")
	p.Close()
	again := listen(t, platform.Config{GatewayListen: addr})
	again.Close()
}

func TestAPartThatFailsStopsAll(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	p := listen(t, platform.Config{})
	p.Add("broken", func(_ context.Context, ready func()) error {
		ready()
		return broken
	})
	if err := p.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Run: %v, want it to wrap %v", err, broken)
	}
}

func TestLockedDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := listen(t, platform.Config{Engine: embedded.Config{Dir: dir}})
	stop := start(t, first)
	second := listen(t, platform.Config{Engine: embedded.Config{Dir: dir}})
	err := second.Run(t.Context())
	if _, ok := errors.AsType[*embedded.LockedError](err); !ok {
		t.Errorf("a second engine in one directory: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
