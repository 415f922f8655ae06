package telemetry

import "github.com/prometheus/client_golang/prometheus"

// The names of all metrics Keelson's HTTP parts write. Dashboards and alerts
// stand on them: a change here is a breaking change.
const (
	// ServerDuration is a histogram of seconds from the request's arrival to the
	// handler's end, by LabelMethod, LabelRoute and LabelStatus.
	ServerDuration = "http_server_request_duration_seconds"
	// ServerActive is a gauge of requests in progress, by LabelMethod.
	ServerActive = "http_server_active_requests"
	// ClientDuration is a histogram of seconds of one attempt, by LabelServer,
	// LabelMethod, LabelStatus and LabelError.
	ClientDuration = "http_client_request_duration_seconds"
	// BuildInfo is always 1; its labels version, revision and go_version tell
	// which Keelson is running.
	BuildInfo = "keelson_build_info"
	// TargetInfo is always 1; its labels are the resource attributes, dots as
	// underscores (the OpenTelemetry to Prometheus mapping).
	TargetInfo = "target_info"
)

// The names of labels.
const (
	LabelMethod = "http_request_method"
	LabelRoute  = "http_route"
	LabelStatus = "http_response_status_code"
	LabelServer = "server_address" // the service's name, not a host: an instance's address would be unbounded
	LabelError  = "error_type"
)

// Other is the label value for what has no place of its own: an unknown method,
// or a route or service past the limit.
const Other = "_OTHER"

// The attributes of log records.
const (
	LogService   = "service.name"
	LogVersion   = "service.version"
	LogInstance  = "service.instance.id"
	LogTraceID   = "trace_id"
	LogSpanID    = "span_id"
	LogRequestID = "request_id"
)

// DurationBuckets returns the upper bounds, in seconds, of the classic buckets
// of all durations: those of the OpenTelemetry HTTP conventions.
func DurationBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
}

var (
	serverDurationDesc = prometheus.NewDesc(ServerDuration, "Duration of HTTP server requests.", []string{LabelMethod, LabelRoute, LabelStatus}, nil)
	serverActiveDesc   = prometheus.NewDesc(ServerActive, "Number of active HTTP server requests.", []string{LabelMethod}, nil)
	clientDurationDesc = prometheus.NewDesc(ClientDuration, "Duration of HTTP client requests, one attempt each.", []string{LabelError, LabelMethod, LabelStatus, LabelServer}, nil)
)
