package console_test

import (
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// targetGroup is what Prometheus' HTTP service discovery reads:
// https://prometheus.io/docs/prometheus/latest/http_sd/
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// readTargets reads the answer as strictly as Prometheus does.
func readTargets(t *testing.T, c *console.Console) []targetGroup {
	t.Helper()
	w := ask(c, "GET", "/v1/targets", "X-Prometheus-Refresh-Interval-Seconds", "60", "Accept", "application/json")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	var groups []targetGroup
	if err := d.Decode(&groups); err != nil || groups == nil {
		t.Fatalf("%v %v", groups, err)
	}
	for _, g := range groups {
		for _, target := range g.Targets {
			if _, _, err := net.SplitHostPort(target); err != nil || strings.Contains(target, "/") {
				t.Errorf("target %q: %v", target, err)
			}
		}
		for name, value := range g.Labels {
			if !labelName.MatchString(name) || !utf8.ValidString(value) {
				t.Errorf("label %q=%q", name, value)
			}
		}
		if scheme := g.Labels["__scheme__"]; scheme != "http" && scheme != "https" {
			t.Errorf("scheme %q", scheme)
		}
	}
	return groups
}

func TestTargets(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	if got := readTargets(t, c); len(got) != 0 {
		t.Errorf("targets of nobody: %v", got)
	}
	for _, in := range []registry.Instance{
		{Name: "orders", ID: "orders-1", Address: "https://[fd00::7]:8443", Status: health.Draining, Metadata: map[string]string{"metrics_path": "/internal/metrics"}},
		{Name: "pay", ID: "pay-1", Address: "pay:3001", Status: health.Unhealthy, Metadata: map[string]string{"metrics_path": "stats", "metrics": "on"}},
		{Name: "quiet", ID: "quiet-1", Address: "quiet:3001", Metadata: map[string]string{"metrics": "off"}},
		{Name: "users", ID: "users-1", Address: "http://10.0.0.1:3001", Version: "1.2.3", Zone: "north", Tags: []string{"blue", "canary"}},
	} {
		if _, err := r.Register(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are there", func() bool { return len(r.List()) == 4 })
	want := []targetGroup{
		{[]string{"[fd00::7]:8443"}, map[string]string{
			"job": "orders", "instance_id": "orders-1", "__scheme__": "https", "__metrics_path__": "/internal/metrics", "__meta_keelson_service": "orders",
			"__meta_keelson_version": "", "__meta_keelson_zone": "", "__meta_keelson_status": "draining", "__meta_keelson_tags": "",
		}},
		{[]string{"pay:3001"}, map[string]string{
			"job": "pay", "instance_id": "pay-1", "__scheme__": "http", "__metrics_path__": "/stats", "__meta_keelson_service": "pay",
			"__meta_keelson_version": "", "__meta_keelson_zone": "", "__meta_keelson_status": "unhealthy", "__meta_keelson_tags": "",
		}},
		{[]string{"10.0.0.1:3001"}, map[string]string{
			"job": "users", "instance_id": "users-1", "__scheme__": "http", "__metrics_path__": "/metrics", "__meta_keelson_service": "users",
			"__meta_keelson_version": "1.2.3", "__meta_keelson_zone": "north", "__meta_keelson_status": "healthy", "__meta_keelson_tags": ",blue,canary,",
		}},
	}
	if diff := cmp.Diff(want, readTargets(t, c)); diff != "" {
		t.Error(diff)
	}
}
