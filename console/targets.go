package console

import (
	"context"
	"net/url"
	"strings"

	"github.com/keelson-go/keelson/registry"
)

// Metadata by which an instance says how its metrics are read.
const (
	metadataMetrics     = "metrics"      // "off": it has none
	metadataMetricsPath = "metrics_path" // "/metrics" if it is not there
)

type (
	// target is an entry of Prometheus' HTTP service discovery:
	// https://prometheus.io/docs/prometheus/latest/http_sd/
	target struct {
		Targets []string          `json:"targets" nullable:"false" doc:"host:port"`
		Labels  map[string]string `json:"labels" doc:"Those beginning with __ are for relabelling, and gone after it"`
	}
	targetsOutput struct {
		Body []target `nullable:"false"`
	}
)

// targets has the instances out of rotation too: Prometheus is to see that they
// are ill.
func (c *Console) targets(context.Context, *struct{}) (*targetsOutput, error) {
	out := &targetsOutput{Body: []target{}}
	for _, in := range c.config.Registry.List() {
		if t, ok := targetOf(in); ok {
			out.Body = append(out.Body, t)
		}
	}
	return out, nil
}

func targetOf(in registry.Instance) (target, bool) {
	u, err := url.Parse(in.Address)
	if err != nil || in.Metadata[metadataMetrics] == "off" {
		return target{}, false
	}
	path := in.Metadata[metadataMetricsPath]
	switch {
	case path == "":
		path = "/metrics"
	case !strings.HasPrefix(path, "/"):
		path = "/" + path
	}
	tags := ""
	if len(in.Tags) > 0 {
		// Separators at the ends too, so that an expression finds each tag in the
		// same way.
		tags = "," + strings.Join(in.Tags, ",") + ","
	}
	return target{
		Targets: []string{u.Host},
		Labels: map[string]string{
			"job":                    in.Name,
			"instance_id":            in.ID,
			"__scheme__":             u.Scheme,
			"__metrics_path__":       path,
			"__meta_keelson_service": in.Name,
			"__meta_keelson_version": in.Version,
			"__meta_keelson_zone":    in.Zone,
			"__meta_keelson_status":  string(in.Status),
			"__meta_keelson_tags":    tags,
		},
	}, true
}
