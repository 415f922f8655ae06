package telemetry_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/keelson-go/keelson/telemetry"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func newTelemetry(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(telemetry.Config{Service: "user-service", Version: "1.2.3", Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// scrape gets /metrics over the network, as protobuf if asked for.
func scrape(t *testing.T, tel *telemetry.Telemetry, protobuf bool) map[string]*dto.MetricFamily {
	t.Helper()
	srv := httptest.NewServer(tel.Handler())
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if protobuf {
		req.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, body)
	}
	if !protobuf {
		families, err := new(expfmt.NewTextParser(model.LegacyValidation)).TextToMetricFamilies(resp.Body)
		if err != nil {
			t.Fatalf("the text does not parse: %v", err)
		}
		return families
	}
	families := map[string]*dto.MetricFamily{}
	decoder := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header))
	for {
		family := new(dto.MetricFamily)
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return families
		} else if err != nil {
			t.Fatal(err)
		}
		families[family.GetName()] = family
	}
}

// series gives a family's metrics by their labels, "a=1,b=2", empty ones left out.
func series(family *dto.MetricFamily) map[string]*dto.Metric {
	all := map[string]*dto.Metric{}
	for _, m := range family.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			if l.GetValue() != "" {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
		}
		all[strings.Join(labels, ",")] = m
	}
	return all
}

func serve(tel *telemetry.Telemetry, method, route string, status int, d time.Duration) {
	tel.Server().Route(method, "").Begin()
	tel.Server().Route(method, route).End(status, d)
}

func TestServerMetrics(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	serve(tel, "GET", "/users/{id}", 200, 3*time.Millisecond)
	serve(tel, "GET", "/users/{id}", 200, 30*time.Millisecond)
	serve(tel, "GET", "/users/{id}", 503, 20*time.Second)
	serve(tel, "BREW", "", 404, time.Millisecond)
	serve(tel, "GET", "/users/{id}", 0, time.Millisecond)    // no response
	serve(tel, "GET", "/users/{id}", 299, time.Millisecond)  // not registered
	serve(tel, "GET", "/users/{id}", 1000, time.Millisecond) // no status at all
	tel.Server().Route("PUT", "").Begin()

	for _, protobuf := range []bool{false, true} {
		families := scrape(t, tel, protobuf)
		durations := series(families["http_server_request_duration_seconds"])
		want := []string{
			"http_request_method=GET,http_response_status_code=200,http_route=/users/{id}",
			"http_request_method=GET,http_response_status_code=500,http_route=/users/{id}",
			"http_request_method=GET,http_response_status_code=503,http_route=/users/{id}",
			"http_request_method=GET,http_route=/users/{id}",
			"http_request_method=_OTHER,http_response_status_code=404",
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(durations))); diff != "" {
			t.Fatalf("series (-want +got): %s", diff)
		}
		ok := durations[want[0]].GetHistogram()
		if ok.GetSampleCount() != 3 || math.Abs(ok.GetSampleSum()-.034) > 1e-9 { // 299 counts as 200
			t.Errorf("200: count %d, sum %v", ok.GetSampleCount(), ok.GetSampleSum())
		}
		buckets := map[float64]uint64{}
		for _, b := range ok.GetBucket() {
			buckets[b.GetUpperBound()] = b.GetCumulativeCount()
		}
		wantBuckets := map[float64]uint64{.005: 2, .01: 2, .025: 2, .05: 3, .075: 3, .1: 3, .25: 3, .5: 3, .75: 3, 1: 3, 2.5: 3, 5: 3, 7.5: 3, 10: 3}
		delete(buckets, math.Inf(1))
		if diff := cmp.Diff(wantBuckets, buckets); diff != "" {
			t.Errorf("buckets (-want +got): %s", diff)
		}
		active := series(families["http_server_active_requests"])
		for labels, want := range map[string]float64{"http_request_method=GET": 0, "http_request_method=PUT": 1, "http_request_method=_OTHER": 0} {
			if got := active[labels].GetGauge().GetValue(); active[labels] == nil || got != want {
				t.Errorf("active %s: %v, want %v", labels, got, want)
			}
		}
		if protobuf {
			checkNative(t, ok)
			checkNative(t, durations[want[2]].GetHistogram())
		}
	}
}

// checkNative holds to what Prometheus demands of a native histogram it takes in.
func checkNative(t *testing.T, h *dto.Histogram) {
	t.Helper()
	if h.GetSchema() != 3 || h.GetZeroThreshold() <= 0 {
		t.Fatalf("schema %d, zero threshold %v", h.GetSchema(), h.GetZeroThreshold())
	}
	var length uint32
	for i, s := range h.GetPositiveSpan() {
		if i > 0 && s.GetOffset() < 0 {
			t.Errorf("span %d goes back", i)
		}
		length += s.GetLength()
	}
	if int(length) != len(h.GetPositiveDelta()) {
		t.Errorf("%d buckets in spans, %d deltas", length, len(h.GetPositiveDelta()))
	}
	total := h.GetZeroCount()
	var current int64
	for _, d := range h.GetPositiveDelta() {
		current += d
		total += uint64(current)
	}
	if total != h.GetSampleCount() {
		t.Errorf("%d in native buckets, %d in all", total, h.GetSampleCount())
	}
}

func TestClientMetrics(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	c := tel.Client()
	c.Observe("payment", "", 200, "", time.Millisecond)
	c.Observe("payment", "GET", 200, "", time.Millisecond)
	c.Observe("payment", "POST", 503, "", time.Millisecond)
	c.Observe("payment", "POST", 503, "503", time.Millisecond) // the same in other words
	c.Observe("payment", "GET", 0, "timeout", time.Second)
	c.Observe("pay\xff", "GET", 200, "", time.Second)
	c.Observe("pay\xfe", "GET", 200, "", time.Second) // must not make a second series of the same labels
	got := map[string]uint64{}
	for labels, m := range series(scrape(t, tel, false)["http_client_request_duration_seconds"]) {
		got[labels] = m.GetHistogram().GetSampleCount()
	}
	want := map[string]uint64{
		"http_request_method=GET,http_response_status_code=200,server_address=payment":                 2,
		"error_type=503,http_request_method=POST,http_response_status_code=503,server_address=payment": 2,
		"error_type=timeout,http_request_method=GET,server_address=payment":                            1,
		"http_request_method=GET,http_response_status_code=200,server_address=pay\uFFFD":               2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got): %s", diff)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	const more = 100
	for i := range telemetry.MaxServerRoutes + more {
		serve(tel, "GET", "/"+strconv.Itoa(i), 200, time.Millisecond)
	}
	serve(tel, "GET", telemetry.Other, 200, time.Millisecond)
	for i := range telemetry.MaxClientSeries + more {
		tel.Client().Observe("s"+strconv.Itoa(i), "GET", 0, "timeout", time.Millisecond)
	}
	families := scrape(t, tel, true)
	server := series(families[telemetry.ServerDuration])
	if len(server) != telemetry.MaxServerRoutes+1 {
		t.Errorf("%d server series", len(server))
	}
	if n := server["http_request_method=GET,http_response_status_code=200,http_route=_OTHER"].GetHistogram().GetSampleCount(); n != more+1 {
		t.Errorf("%d requests of other routes, want %d", n, more+1)
	}
	client := series(families[telemetry.ClientDuration])
	if len(client) != telemetry.MaxClientSeries+1 {
		t.Errorf("%d client series", len(client))
	}
	if n := client["http_request_method=GET,server_address=_OTHER"].GetHistogram().GetSampleCount(); n != more {
		t.Errorf("%d attempts at other services, want %d", n, more)
	}
	if got := tel.Server().Summary().RequestCount; got != telemetry.MaxServerRoutes+more+1 {
		t.Errorf("the summary has %d requests", got)
	}
}

func TestInfoMetrics(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "renamed")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=pr%C3%A9-prod,a.b=1,a_b=2,1st=x")
	tel := newTelemetry(t)
	if got := tel.Service(); got != "renamed" {
		t.Errorf("service %q", got)
	}
	if got := tel.Resource()["deployment.environment.name"]; got != "pré-prod" {
		t.Errorf("resource %v", tel.Resource())
	}
	families := scrape(t, tel, false)
	want := []string{"a_b=1;2,deployment_environment_name=pré-prod,key_1st=x,service_name=renamed,service_version=1.2.3"}
	if diff := cmp.Diff(want, slices.Collect(maps.Keys(series(families["target_info"])))); diff != "" {
		t.Errorf("target_info (-want +got): %s", diff)
	}
	for labels, m := range series(families["keelson_build_info"]) {
		if !strings.Contains(labels, "go_version=go1.") || !strings.Contains(labels, "version=") || m.GetGauge().GetValue() != 1 {
			t.Errorf("keelson_build_info{%s} %v", labels, m.GetGauge().GetValue())
		}
	}
	for _, name := range []string{"keelson_build_info", "go_goroutines", "process_start_time_seconds"} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestBadResourceIsLoggedNotFatal(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,secret=%zz")
	var log bytes.Buffer
	tel, err := telemetry.New(telemetry.Config{Service: "s", Output: &log})
	if err != nil {
		t.Fatal(err)
	}
	if tel.Service() != "s" {
		t.Errorf("a part of bad attributes is used: %v", tel.Resource())
	}
	if s := log.String(); !strings.Contains(s, "OTEL_RESOURCE_ATTRIBUTES, member 2") || strings.Contains(s, "secret") {
		t.Errorf("log: %s", s)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	if diff := cmp.Diff(telemetry.Summary{}, tel.Server().Summary()); diff != "" {
		t.Errorf("without requests: %s", diff)
	}
	tel.Server().Route("GET", "").Begin() // one in progress counts not yet
	for i := range 100 {
		status := 200
		switch {
		case i < 2:
			status = 500
		case i < 10:
			status = 404
		}
		serve(tel, "GET", "/"+strconv.Itoa(i%3), status, time.Duration(i+1)*time.Millisecond)
	}
	want := telemetry.Summary{RequestCount: 100, ErrorCount: 2, ErrorRate: 2, AverageResponseTime: 50.5, P50: 50, P90: 90, P99: 99}
	if diff := cmp.Diff(want, tel.Server().Summary(), cmpopts.EquateApprox(.09, 0)); diff != "" {
		t.Errorf("(-want +got): %s", diff)
	}
	if got := tel.Server().Summary().AverageResponseTime; got != 50.5 {
		t.Errorf("average %v, want exactly 50.5", got)
	}
}

func TestRouteOf(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"": "", "/": "/", "GET /users/{id}": "/users/{id}", "GET  example.org/a/{b...}": "/a/{b...}", "example.org/": "/", "POST /{$}": "/{$}",
	} {
		if got := telemetry.RouteOf(pattern); got != want {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	const workers, each = 8, 300
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				serve(tel, "GET", "/"+strconv.Itoa(i%37), 200+(w+i)%5, time.Duration(i)*time.Microsecond)
				tel.Client().Observe("s"+strconv.Itoa(i%7), "GET", 200, "", time.Millisecond)
			}
		})
	}
	group.Go(func() {
		for range 5 {
			scrape(t, tel, true)
			tel.Server().Summary()
		}
	})
	group.Wait()
	var server, client uint64
	families := scrape(t, tel, true)
	for _, m := range families[telemetry.ServerDuration].GetMetric() {
		server += m.GetHistogram().GetSampleCount()
		checkNative(t, m.GetHistogram())
	}
	for _, m := range families[telemetry.ClientDuration].GetMetric() {
		client += m.GetHistogram().GetSampleCount()
	}
	if server != workers*each || client != workers*each || tel.Server().Summary().RequestCount != workers*each {
		t.Errorf("server %d, client %d, summary %+v", server, client, tel.Server().Summary())
	}
	if got := series(families[telemetry.ServerActive])["http_request_method=GET"].GetGauge().GetValue(); got != 0 {
		t.Errorf("%v requests in progress", got)
	}
}

func TestNilIsSilent(t *testing.T) {
	t.Parallel()
	var tel *telemetry.Telemetry
	serve(tel, "GET", "/", 200, time.Second)
	tel.Client().Observe("s", "GET", 200, "", time.Second)
	tel.Logger().Error("nobody hears")
	if err := tel.Registerer().Register(prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})); err != nil {
		t.Error(err)
	}
	if got := tel.Server().Summary(); got != (telemetry.Summary{}) || tel.Service() != "" || tel.Resource() != nil {
		t.Errorf("nil tells %+v", got)
	}
	rec := httptest.NewRecorder()
	tel.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != http.StatusNotFound {
		t.Errorf("/metrics answers %d", rec.Code)
	}
}

func TestOwnMetricsAreShownAndFailingOnesLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	tel, err := telemetry.New(telemetry.Config{Output: &log})
	if err != nil {
		t.Fatal(err)
	}
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "shop_orders_total", Help: "Orders."})
	bad := prometheus.NewDesc("bad", "Fails.", nil, nil)
	tel.Registerer().MustRegister(own, failing{bad})
	own.Inc()
	families := scrape(t, tel, false)
	if got := families["shop_orders_total"].GetMetric(); len(got) != 1 || got[0].GetCounter().GetValue() != 1 {
		t.Errorf("own metric: %v", got)
	}
	if !strings.Contains(log.String(), "out of order") {
		t.Errorf("log: %s", &log)
	}
}

type failing struct{ desc *prometheus.Desc }

func (f failing) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }
func (f failing) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(f.desc, errors.New("out of order"))
}
