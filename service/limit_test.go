package service_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

// holding is a service with routes that wait until they are released.
type holding struct {
	*process
	hold    chan struct{}
	release func()
	asked   sync.WaitGroup
}

func startHolding(t *testing.T, opts ...service.Option) *holding {
	t.Helper()
	s, _ := newService(t, "users", opts...)
	h := &holding{hold: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.hold) })
	wait := func(http.ResponseWriter, *http.Request) { <-h.hold }
	s.Handle("GET /hold", http.HandlerFunc(wait))
	s.Handle("GET /poll", http.HandlerFunc(wait), service.Stream)
	s.HandleFunc("GET /ok", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Priority", concurrency.PriorityFrom(r.Context()).String())
		return nil
	})
	h.process = start(t, s)
	t.Cleanup(func() {
		h.release()
		h.asked.Wait()
	})
	return h
}

// begin makes n requests that wait, one after another, and returns when all are
// under way and inFlight of them count.
func (h *holding) begin(t *testing.T, path string, n int, inFlight float64) {
	t.Helper()
	for i := range n {
		h.asked.Go(func() { status(t, h.url+path) })
		eventually(t, "it is under way", func() bool {
			return metric(t, h.process, telemetry.ServerActive) == float64(i+1) &&
				metric(t, h.process, "keelson_concurrency_in_flight") == min(float64(i+1), inFlight)
		})
	}
}

// metric returns the sum of a gauge's or counter's values at /metrics.
func metric(t *testing.T, p *process, name string) float64 {
	t.Helper()
	_, body := must(t, "GET", p.url+"/metrics", nil)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, m := range families[name].GetMetric() {
		sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return sum
}

func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	p := startHolding(t, service.WithConcurrencyLimit(concurrency.Fixed(4)))
	p.begin(t, "/hold", 4, 4)
	resp, body := must(t, "GET", p.url+"/ok", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"code":"`+problem.CodeOverloaded+`"`) || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v %s", resp.Status, resp.Header, body)
	}
	for _, path := range []string{"/livez", "/readyz", "/health", "/metrics"} {
		if got := status(t, p.url+path); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
	}
	for name, want := range map[string]float64{
		"keelson_concurrency_limit": 4, "keelson_concurrency_in_flight": 4, "keelson_concurrency_queued": 0,
		"keelson_concurrency_admitted_total": 4, "keelson_concurrency_shed_total": 1,
	} {
		if got := metric(t, p.process, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if _, body := must(t, "GET", p.url+"/health", nil); !strings.Contains(body, `"concurrency":{"limit":4,"inFlight":4`) {
		t.Errorf("/health: %s", body)
	}
	p.release()
	eventually(t, "there is room again", func() bool { return status(t, p.url+"/ok") == http.StatusOK })
}

// Streams that say so do not count.
func TestConcurrencyLimitAndStreams(t *testing.T) {
	t.Parallel()
	p := startHolding(t, service.WithConcurrencyLimit(concurrency.Fixed(1)))
	p.begin(t, "/poll", 3, 0)
	if got := status(t, p.url+"/ok"); got != http.StatusOK {
		t.Errorf("%d", got)
	}
}

func TestConcurrencyLimitFromEnvironment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value string
		limit float64 // 0: there is none
	}{{"", 10_000}, {"adaptive", 10_000}, {"2", 2}, {"off", 0}} {
		p := startHolding(t, service.WithEnvironment(func(name string) string {
			if name == "KEELSON_CONCURRENCY_LIMIT" {
				return tt.value
			}
			return ""
		}), service.FromEnvironment())
		if got := metric(t, p.process, "keelson_concurrency_limit"); got != tt.limit {
			t.Errorf("%q: limit %v, want %v", tt.value, got, tt.limit)
		}
		p.begin(t, "/hold", 2, min(tt.limit, 2))
		resp, _ := must(t, "GET", p.url+"/ok", nil, concurrency.Header, "critical")
		if (resp.StatusCode == http.StatusServiceUnavailable) != (tt.limit == 2) {
			t.Errorf("%q: %s", tt.value, resp.Status)
		}
		if got := resp.Header.Get("Priority"); tt.limit != 2 && got != "critical" {
			t.Errorf("%q: the handler sees priority %q", tt.value, got)
		}
	}
	for _, bad := range []string{"0", "-1", "many", "1.5", "99999999999999999999"} {
		_, err := service.New("users", service.WithEnvironment(func(name string) string {
			return map[string]string{"KEELSON_CONCURRENCY_LIMIT": bad}[name]
		}), service.FromEnvironment())
		if err == nil || !strings.Contains(err.Error(), "KEELSON_CONCURRENCY_LIMIT") || !strings.Contains(err.Error(), "adaptive, off or a number") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := service.New("users", service.WithConcurrencyLimit(concurrency.Fixed(0)), service.WithPort(-1)); err == nil ||
		!strings.Contains(err.Error(), "Fixed is 0") || !strings.Contains(err.Error(), "the port is -1") {
		t.Errorf("%v", err)
	}
	if _, err := service.New("users", service.WithConcurrencyLimit(concurrency.Fixed(0)), service.WithoutConcurrencyLimit()); err != nil {
		t.Errorf("the last option does not win: %v", err)
	}
}
