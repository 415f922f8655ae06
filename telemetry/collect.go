package telemetry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric describes a figure that somebody else keeps; see [Telemetry.Collect].
type Metric struct {
	Name    string   // such as keelson_retries_total; a counter's ends in _total
	Help    string   // one sentence
	Labels  []string // names, in the order of Emit's values
	Counter bool     // it never falls, but to 0 at a restart; else it is a gauge
}

// Emit hands over one value of a metric, with a value for each of its labels.
type Emit func(m *Metric, value float64, labels ...string)

// Collect shows figures at /metrics that others keep anyway, so that keeping them
// costs nothing twice: read is called for each scrape, perhaps by several at once,
// and hands over what there is of metrics. The error says which name or label is
// wrong, or taken already. On a nil Telemetry nothing happens.
//
// A value with too few or too many labels, or of a metric that was not announced,
// makes the scrape report an error for it; the others are served.
func (t *Telemetry) Collect(metrics []*Metric, read func(Emit)) error {
	if t == nil {
		return nil
	}
	c := &collected{read: read, descs: make(map[*Metric]*prometheus.Desc, len(metrics))}
	for _, m := range metrics {
		if m.Counter != strings.HasSuffix(m.Name, "_total") {
			return fmt.Errorf("telemetry: collect %s: a counter's name ends in _total, and only a counter's", m.Name)
		}
		c.descs[m] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
	}
	if err := t.registry.Register(c); err != nil {
		return fmt.Errorf("telemetry: collect: %w", err)
	}
	return nil
}

// errUnannounced says that a metric was emitted that Collect was not told of.
var errUnannounced = errors.New("the metric was not announced")

// collected is a prometheus.Collector over a read function.
type collected struct {
	read  func(Emit)
	descs map[*Metric]*prometheus.Desc
}

func (c *collected) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *collected) Collect(ch chan<- prometheus.Metric) {
	c.read(func(m *Metric, value float64, labels ...string) {
		desc, ok := c.descs[m]
		if !ok {
			ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(errUnannounced), fmt.Errorf("%s: %w", m.Name, errUnannounced))
			return
		}
		kind := prometheus.GaugeValue
		if m.Counter {
			kind = prometheus.CounterValue
		}
		for i := range labels {
			labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
		}
		one, err := prometheus.NewConstMetric(desc, kind, value, labels...)
		if err != nil {
			one = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- one
	})
}
