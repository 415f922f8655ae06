package service_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

// shape replaces values of JSON by their types.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = shape(e)
		}
		return out
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return "time"
		}
		return "text"
	case float64:
		return "number"
	}
	return v
}

func TestHealthDetail(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users", service.WithVersion("1.2.3"), service.WithInstance("users-1"))
	s.Health().Set("disk", errors.New("nearly full"), false)
	b, err := s.Breaker("payments")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Breaker("payments"); err != nil || again != b {
		t.Errorf("a second breaker of that name: %v %v", again, err)
	}
	if _, err := s.Breaker("wrong", breaker.ConsecutiveFailures(-1)); err == nil {
		t.Error("a bad option of a breaker is no error")
	}
	s.HandleFunc("GET /ok", func(http.ResponseWriter, *http.Request) error { return nil })
	s.HandleFunc("GET /fails", func(http.ResponseWriter, *http.Request) error { return errors.New("no") })
	p := start(t, s)
	for _, path := range []string{"/ok", "/ok", "/ok", "/fails", "/unknown"} {
		must(t, "GET", p.url+path, nil)
	}
	eventually(t, "all are counted", func() bool { return s.Telemetry().Server().Summary().RequestCount == 5 })
	resp, body := must(t, "GET", p.url+"/health", nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get(registry.InstanceHeader) != "users-1" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"status": "text", "uptime": "number", "version": "text",
		"dependencies": map[string]any{"disk": map[string]any{"status": "text", "responseTime": "number", "lastCheck": "time", "error": "text"}},
		"metrics": map[string]any{"requestCount": "number", "errorCount": "number", "errorRate": "number",
			"averageResponseTime": "number", "p50": "number", "p90": "number", "p99": "number"},
		"concurrency": map[string]any{"limit": "number", "inFlight": "number", "queued": "number",
			"admitted": map[string]any{"low": "number", "normal": "number", "critical": "number"},
			"rejected": map[string]any{"low": "number", "normal": "number", "critical": "number"}},
	}
	circuit, _ := got["breakers"].(map[string]any)["payments"].(map[string]any)
	if circuit["state"] != "closed" || circuit["failureCount"] != 0.0 || circuit["metrics"].(map[string]any)["requests"] != 0.0 {
		t.Errorf("breaker %v", circuit)
	}
	delete(got, "breakers")
	if diff := cmp.Diff(want, shape(got)); diff != "" {
		t.Error(diff)
	}
	m := got["metrics"].(map[string]any)
	if got["status"] != "degraded" || got["version"] != "1.2.3" || m["requestCount"] != 5.0 || m["errorCount"] != 1.0 || m["errorRate"] != 20.0 {
		t.Errorf("%s", body)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	s, log := newService(t, "users")
	s.Use(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	})
	p := start(t, s)
	for path, want := range map[string]string{"/livez": "ok\n", "/readyz": "healthy\n", "/readyz?verbose": "healthy\n"} {
		resp, body := must(t, "GET", p.url+path, nil)
		if resp.StatusCode != http.StatusOK || body != want || resp.Header.Get(registry.InstanceHeader) != s.Instance() {
			t.Errorf("%s: %s %q, instance %q", path, resp.Status, body, resp.Header.Get(registry.InstanceHeader))
		}
	}
	if resp, body := must(t, "HEAD", p.url+"/health", nil); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("HEAD /health: %s %q", resp.Status, body)
	}
	if strings.Contains(log.String(), "readyz") {
		t.Errorf("probes are in the access log:\n%s", log)
	}
	s.Health().Dead(errors.New("deadlock"))
	if resp, body := must(t, "GET", p.url+"/livez", nil); resp.StatusCode != http.StatusServiceUnavailable || body != "dead: deadlock\n" {
		t.Errorf("/livez of a dead process: %s %q", resp.Status, body)
	}
}

// The scrape is what Prometheus reads, under OpenTelemetry's names.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	s.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) error { return nil })
	// Middleware that copies the request does not hide the route.
	s.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r.Clone(r.Context())) })
	})
	p := start(t, s)
	must(t, "GET", p.url+"/users/7", nil)
	must(t, "GET", p.url+"/users/8", nil)
	must(t, "POST", p.url+"/users/8", nil)
	eventually(t, "all are counted", func() bool { return s.Telemetry().Server().Summary().RequestCount == 3 })
	resp, body := must(t, "GET", p.url+"/metrics", nil)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	counts := map[string]uint64{}
	for _, m := range families[telemetry.ServerDuration].GetMetric() {
		label := map[string]string{}
		for _, l := range m.GetLabel() {
			label[l.GetName()] = l.GetValue()
		}
		counts[label[telemetry.LabelMethod]+" "+label[telemetry.LabelRoute]+" "+label[telemetry.LabelStatus]] = m.GetHistogram().GetSampleCount()
	}
	if diff := cmp.Diff(map[string]uint64{"GET /users/{id} 200": 2, "POST  405": 1}, counts); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"go_goroutines", "process_open_fds", "keelson_build_info", telemetry.ServerActive} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}
