package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes is how many scrapes of /metrics may run at once; more get 503.
const maxScrapes = 8

// Config says what to tell about this process. The zero Config is usable.
type Config struct {
	// Service is the service's name; OTEL_SERVICE_NAME goes before it.
	Service string
	// Version is the service's version, if it has one.
	Version string
	// Instance tells this process from others of the service.
	Instance string
	// LogFormat is "json", "text", or "" for text on a terminal and JSON
	// elsewhere. Text has colours on a terminal unless NO_COLOR is set.
	LogFormat string
	// LogLevel is the least level that is logged; the zero value is Info.
	LogLevel slog.Level
	// Output is where logs go; nil is standard error.
	Output io.Writer
}

// Telemetry is one process's metrics and logs. It has a Prometheus registry of
// its own and touches nothing global, so that several may live in one process.
//
// It is safe for concurrent use. A nil *Telemetry measures nothing and logs
// nothing, and all its methods may be called.
type Telemetry struct {
	logger   *slog.Logger
	resource map[string]string
	registry *prometheus.Registry
	server   *ServerMetrics
	client   *ClientMetrics
}

// New sets up metrics and logs. The error is about a wrong Config. Bad
// OTEL_RESOURCE_ATTRIBUTES are left out as a whole, which is logged.
func New(cfg Config) (*Telemetry, error) { return open(cfg, os.Getenv) }

func open(cfg Config, getenv func(string) string) (*Telemetry, error) {
	if cfg.Output == nil {
		cfg.Output = os.Stderr
	}
	resource, errResource := newResource(cfg, getenv)
	logger, err := newLogger(cfg, isTerminal(cfg.Output), resource, getenv)
	if err != nil {
		return nil, fmt.Errorf("set up telemetry: %w", err)
	}
	if errResource != nil {
		logger.Warn("resource attributes are ignored", slog.Any("error", errResource))
	}
	t := &Telemetry{
		logger:   logger,
		resource: resource,
		registry: prometheus.NewRegistry(),
		server:   newServerMetrics(),
		client:   newClientMetrics(),
	}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newBuildInfo(),
		newTargetInfo(resource),
		serverCollector{t.server},
		clientCollector{t.client},
	} {
		if err := t.registry.Register(c); err != nil {
			return nil, fmt.Errorf("set up telemetry: register metrics: %w", err)
		}
	}
	return t, nil
}

// Logger returns the process's logger. Records get service.name, in JSON
// service.version and service.instance.id too, and trace_id, span_id and
// request_id from the context given to the logger's ...Context methods.
func (t *Telemetry) Logger() *slog.Logger {
	if t == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.logger
}

// Service returns the name of the service as the environment and the Config
// settled it.
func (t *Telemetry) Service() string {
	if t == nil {
		return ""
	}
	return t.resource[LogService]
}

// Resource returns a copy of the resource attributes, service.name among them.
func (t *Telemetry) Resource() map[string]string {
	if t == nil {
		return nil
	}
	return maps.Clone(t.resource)
}

// Registerer takes further metrics to be shown at /metrics.
func (t *Telemetry) Registerer() prometheus.Registerer {
	if t == nil {
		return prometheus.WrapRegistererWith(nil, nil) // takes all and shows nothing
	}
	return t.registry
}

// Handler serves /metrics, as text or, for a scraper that takes native
// histograms, as protobuf. At most 8 scrapes run at once. A collector that fails
// is logged and the others are served.
func (t *Telemetry) Handler() http.Handler {
	if t == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(t.logger.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Server returns the metrics of requests this process answers.
func (t *Telemetry) Server() *ServerMetrics {
	if t == nil {
		return nil
	}
	return t.server
}

// Client returns the metrics of requests this process sends.
func (t *Telemetry) Client() *ClientMetrics {
	if t == nil {
		return nil
	}
	return t.client
}
