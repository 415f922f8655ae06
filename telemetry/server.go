package telemetry

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// MaxServerRoutes is the number of (method, route) pairs with series of their
// own; later ones count under the route "_OTHER". Routes come from code, so only
// one that passes raw paths off as routes meets this limit.
const MaxServerRoutes = 1024

// ServerMetrics measures the HTTP requests this process answers. A nil one
// measures nothing. It is safe for concurrent use; once a route and a status
// have been seen, all is done without locks and without allocating.
type ServerMetrics struct {
	methods [len(methods) + 1]serverMethod

	growing sync.Mutex   // held while a route or a status is added
	routes  atomic.Int64 // how many there are
}

type serverMethod struct {
	name      string
	active    atomic.Int64
	used      atomic.Bool
	unmatched *ServerSeries
	overflow  *ServerSeries
	routes    atomic.Pointer[map[string]*ServerSeries] // replaced, never changed
}

// ServerSeries measures the requests of one method and route. A nil one measures
// nothing. It is safe for concurrent use and lives as long as its ServerMetrics.
type ServerSeries struct {
	metrics  *ServerMetrics
	method   *serverMethod
	route    string
	statuses atomic.Pointer[[]*serverStatus] // replaced, never changed
}

type serverStatus struct {
	durationMetric
	code int
}

func newServerMetrics() *ServerMetrics {
	m := new(ServerMetrics)
	for i := range m.methods {
		method := &m.methods[i]
		method.name = methodName(i)
		method.unmatched = newServerSeries(m, method, "")
		method.overflow = newServerSeries(m, method, Other)
		method.routes.Store(new(map[string]*ServerSeries))
	}
	return m
}

func newServerSeries(m *ServerMetrics, method *serverMethod, route string) *ServerSeries {
	s := &ServerSeries{metrics: m, method: method, route: route}
	s.statuses.Store(new([]*serverStatus))
	return s
}

// RouteOf takes the route out of a pattern of [http.ServeMux], as
// [http.Request.Pattern] has it: "GET example.org/users/{id}" is "/users/{id}".
// The empty pattern, of a request that nothing matched, is the empty route.
func RouteOf(pattern string) string {
	if i := strings.IndexByte(pattern, '/'); i >= 0 {
		return pattern[i:]
	}
	return ""
}

// Route returns the series of a method and a route. The route is a pattern
// without method (see [RouteOf]), "" for a request no route matched.
func (m *ServerMetrics) Route(method, route string) *ServerSeries {
	if m == nil {
		return nil
	}
	of := &m.methods[methodIndex(method)]
	if route == "" {
		return of.unmatched
	}
	if s, ok := (*of.routes.Load())[route]; ok {
		return s
	}
	return m.addRoute(of, route)
}

func (m *ServerMetrics) addRoute(of *serverMethod, route string) *ServerSeries {
	if route == Other || m.routes.Load() >= MaxServerRoutes {
		return of.overflow
	}
	if valid := strings.ToValidUTF8(route, "\uFFFD"); valid != route {
		return m.Route(of.name, valid) // or two routes could end up with the same labels
	}
	m.growing.Lock()
	defer m.growing.Unlock()
	routes := *of.routes.Load()
	if s, ok := routes[route]; ok {
		return s
	}
	if m.routes.Load() >= MaxServerRoutes {
		return of.overflow
	}
	m.routes.Add(1)
	route = strings.Clone(route) // it may be a piece of something large
	s := newServerSeries(m, of, route)
	grown := maps.Clone(routes)
	if grown == nil {
		grown = make(map[string]*ServerSeries)
	}
	grown[route] = s
	of.routes.Store(&grown)
	return s
}

// Begin counts one more request in progress. These are counted by method alone,
// since the route is known only after routing: Begin may be called on
// Route(method, "") and End on another series of that method. Each Begin needs
// exactly one End.
func (s *ServerSeries) Begin() {
	if s == nil {
		return
	}
	s.method.active.Add(1)
	if !s.method.used.Load() {
		s.method.used.Store(true)
	}
}

// End counts a request that took d as finished. Status is that of the response,
// or 0 if none went out. One outside 100 to 599 counts as 500, and one that is
// not registered as x00 of its class.
func (s *ServerSeries) End(status int, d time.Duration) {
	if s == nil {
		return
	}
	s.method.active.Add(-1)
	s.status(status).observe(d)
}

func (s *ServerSeries) status(code int) *serverStatus {
	if found := find(*s.statuses.Load(), code); found != nil {
		return found
	}
	code = registeredStatus(code)
	if found := find(*s.statuses.Load(), code); found != nil {
		return found
	}
	s.metrics.growing.Lock()
	defer s.metrics.growing.Unlock()
	statuses := *s.statuses.Load()
	if found := find(statuses, code); found != nil {
		return found
	}
	added := &serverStatus{code: code, durationMetric: durationMetric{desc: serverDurationDesc, labels: []*dto.LabelPair{
		label(LabelMethod, s.method.name),
		label(LabelStatus, statusLabel(code)),
		label(LabelRoute, s.route),
	}}}
	grown := append(slices.Clip(statuses), added)
	s.statuses.Store(&grown)
	return added
}

// find looks through the few statuses a route has, the first seen first.
func find(statuses []*serverStatus, code int) *serverStatus {
	for _, s := range statuses {
		if s.code == code {
			return s
		}
	}
	return nil
}

// all calls f with every series there is.
func (m *ServerMetrics) all(f func(*serverStatus)) {
	for i := range m.methods {
		method := &m.methods[i]
		for _, s := range *method.unmatched.statuses.Load() {
			f(s)
		}
		for _, s := range *method.overflow.statuses.Load() {
			f(s)
		}
		for _, series := range *method.routes.Load() {
			for _, s := range *series.statuses.Load() {
				f(s)
			}
		}
	}
}

// Summary is what /health tells about the requests since the start of the
// process. Times are in milliseconds, rounded to the microsecond; without
// requests all is 0.
type Summary struct {
	RequestCount        uint64  `json:"requestCount"`
	ErrorCount          uint64  `json:"errorCount"`          // answered with 500 to 599
	ErrorRate           float64 `json:"errorRate"`           // percent of the requests, 0 to 100
	AverageResponseTime float64 `json:"averageResponseTime"` // ms
	P50                 float64 `json:"p50"`                 // ms
	P90                 float64 `json:"p90"`                 // ms
	P99                 float64 `json:"p99"`                 // ms
}

// Summary sums up all finished requests. It reads the same counters as /metrics,
// a fraction of a microsecond for each series; the percentiles are interpolated
// within the fine buckets (off by 9 % at most).
func (m *ServerMetrics) Summary() Summary {
	if m == nil {
		return Summary{}
	}
	var all tally
	var errors uint64
	m.all(func(s *serverStatus) {
		before := all.total
		s.addTo(&all)
		if s.code >= 500 {
			errors += all.total - before
		}
	})
	if all.total == 0 {
		return Summary{}
	}
	return Summary{
		RequestCount:        all.total,
		ErrorCount:          errors,
		ErrorRate:           100 * float64(errors) / float64(all.total),
		AverageResponseTime: milliseconds(all.sum / float64(all.total)),
		P50:                 milliseconds(all.quantile(.50)),
		P90:                 milliseconds(all.quantile(.90)),
		P99:                 milliseconds(all.quantile(.99)),
	}
}

func milliseconds(seconds float64) float64 { return math.Round(seconds*1e6) / 1e3 }

// serverCollector keeps Prometheus' methods off ServerMetrics.
type serverCollector struct{ *ServerMetrics }

func (c serverCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- serverDurationDesc
	ch <- serverActiveDesc
}

func (c serverCollector) Collect(ch chan<- prometheus.Metric) {
	for i := range c.methods {
		if method := &c.methods[i]; method.used.Load() {
			ch <- prometheus.MustNewConstMetric(serverActiveDesc, prometheus.GaugeValue, float64(method.active.Load()), method.name)
		}
	}
	c.all(func(s *serverStatus) { ch <- s })
}

// The methods with a label value of their own.
var methods = [...]string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch,
	http.MethodHead, http.MethodOptions, http.MethodConnect, http.MethodTrace,
}

// methodIndex is the place of a method in methods, len(methods) for others. The
// empty method is GET, as in [http.Request].
func methodIndex(method string) int {
	if method == "" {
		return 0
	}
	for i, m := range methods {
		if m == method {
			return i
		}
	}
	return len(methods)
}

func methodName(index int) string {
	if index < len(methods) {
		return methods[index]
	}
	return Other
}

// registeredStatus bounds what a status can be; 0 (no response) stays 0.
func registeredStatus(code int) int {
	switch {
	case code == 0:
		return 0
	case code < 100 || code > 599:
		return http.StatusInternalServerError
	case http.StatusText(code) == "":
		return code / 100 * 100
	}
	return code
}

// statusLabels spares the client's path from formatting numbers.
var statusLabels = func() (labels [600]string) {
	for code := 100; code < len(labels); code++ {
		labels[code] = strconv.Itoa(code)
	}
	return labels
}()

// statusLabel writes a status that went through registeredStatus.
func statusLabel(code int) string { return statusLabels[code] }

// label makes a pair. The value must be valid UTF-8, or the whole scrape fails.
func label(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: &name, Value: &value}
}
