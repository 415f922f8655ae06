package telemetry

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// MaxClientSeries is the number of (service, method, status, error) combinations
// with a series of their own; later ones count under the service "_OTHER" and
// without their error type.
const MaxClientSeries = 2048

// ClientMetrics measures the HTTP requests this process sends. A nil one
// measures nothing. It is safe for concurrent use; a combination seen before
// needs no lock and no allocation.
type ClientMetrics struct {
	growing sync.Mutex
	series  atomic.Pointer[map[clientKey]*durationMetric] // replaced, never changed
}

type clientKey struct {
	service   string
	errorType string
	method    int
	status    int
}

func newClientMetrics() *ClientMetrics {
	m := new(ClientMetrics)
	m.series.Store(new(map[clientKey]*durationMetric))
	return m
}

// Observe counts one attempt of a request that took d, until the response's
// header or the failure. Service is the name asked for. Status is 0 if there was
// no response; then errorType says why with one of a few words, such as
// "timeout". An empty errorType with a status of 400 or above becomes that
// status, as the OpenTelemetry conventions ask of clients.
func (m *ClientMetrics) Observe(service, method string, status int, errorType string, d time.Duration) {
	if m == nil {
		return
	}
	status = registeredStatus(status)
	if errorType == "" && status >= 400 {
		errorType = statusLabel(status)
	}
	key := clientKey{service, errorType, methodIndex(method), status}
	s, ok := (*m.series.Load())[key]
	if !ok {
		s = m.add(key)
	}
	s.observe(d)
}

// add returns the series of a key that is not there as it is: a new one, the one
// it has in valid UTF-8, or the one for what is past the limit.
func (m *ClientMetrics) add(key clientKey) *durationMetric {
	key.service = strings.ToValidUTF8(key.service, "\uFFFD")
	key.errorType = strings.ToValidUTF8(key.errorType, "\uFFFD")
	series := *m.series.Load()
	s, ok := series[key]
	if !ok && len(series) >= MaxClientSeries {
		// These few go past the limit: methods times registered statuses.
		key.service, key.errorType = Other, ""
		s, ok = series[key]
	}
	if ok {
		return s
	}

	m.growing.Lock()
	defer m.growing.Unlock()
	series = *m.series.Load()
	if s, ok := series[key]; ok {
		return s
	}
	key.service, key.errorType = strings.Clone(key.service), strings.Clone(key.errorType)
	s = &durationMetric{desc: clientDurationDesc, labels: []*dto.LabelPair{
		label(LabelError, key.errorType),
		label(LabelMethod, methodName(key.method)),
		label(LabelStatus, statusLabel(key.status)),
		label(LabelServer, key.service),
	}}
	grown := maps.Clone(series)
	if grown == nil {
		grown = make(map[clientKey]*durationMetric)
	}
	grown[key] = s
	m.series.Store(&grown)
	return s
}

type clientCollector struct{ *ClientMetrics }

func (c clientCollector) Describe(ch chan<- *prometheus.Desc) { ch <- clientDurationDesc }

func (c clientCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range *c.series.Load() {
		ch <- s
	}
}
