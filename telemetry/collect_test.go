package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/telemetry"
)

func scraped(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	tel.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return rec.Body.String()
}

func TestCollect(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	left := &telemetry.Metric{Name: "keelson_left", Help: "What is left.", Labels: []string{"service"}}
	done := &telemetry.Metric{Name: "keelson_done_total", Help: "What is done.", Labels: []string{"service", "how"}, Counter: true}
	n := 0.0
	err := tel.Collect([]*telemetry.Metric{left, done}, func(emit telemetry.Emit) {
		n++
		emit(left, 2.5, "users")
		emit(done, n, "users", "well")
		emit(done, 1, "users", "in vain\xff")
	})
	if err != nil {
		t.Fatal(err)
	}
	scraped(t, tel)
	body := scraped(t, tel)
	for _, want := range []string{
		"# TYPE keelson_left gauge", `keelson_left{service="users"} 2.5`,
		"# TYPE keelson_done_total counter", `keelson_done_total{how="well",service="users"} 2`, "in vain\uFFFD",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in:\n%s", want, body)
		}
	}
}

func TestCollectWrong(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	nothing := func(telemetry.Emit) {}
	taken := &telemetry.Metric{Name: "keelson_taken", Help: "x"}
	if err := tel.Collect([]*telemetry.Metric{taken}, nothing); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*telemetry.Metric{
		"taken":                       {Name: "keelson_taken", Help: "x"},
		"no name":                     {Help: "x"},
		"a bad label":                 {Name: "keelson_label", Labels: []string{"__own"}},
		"a counter without _total":    {Name: "keelson_counter", Counter: true},
		"a gauge of a counter's name": {Name: "keelson_gauge_total"},
	} {
		if err := tel.Collect([]*telemetry.Metric{m}, nothing); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := (*telemetry.Telemetry)(nil).Collect([]*telemetry.Metric{taken}, nothing); err != nil {
		t.Error(err)
	}
}

// What is wrong with one value must not hide the others.
func TestCollectWrongValues(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	m := &telemetry.Metric{Name: "keelson_odd", Help: "x", Labels: []string{"service"}}
	err := tel.Collect([]*telemetry.Metric{m}, func(emit telemetry.Emit) {
		emit(m, 1)
		emit(&telemetry.Metric{Name: "keelson_stranger"}, 1)
		emit(m, 7, "users")
	})
	if err != nil {
		t.Fatal(err)
	}
	if body := scraped(t, tel); !strings.Contains(body, `keelson_odd{service="users"} 7`) || !strings.Contains(body, "go_goroutines") {
		t.Error(body)
	}
}
