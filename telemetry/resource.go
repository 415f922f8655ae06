package telemetry

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

const maxResourceAttributes = 128

// newResource gathers what is known about this process. The environment wins
// over the code, and OTEL_SERVICE_NAME over OTEL_RESOURCE_ATTRIBUTES. An error is
// about the attributes, which are then left out as a whole, as the standard asks.
func newResource(cfg Config, getenv func(string) string) (map[string]string, error) {
	attributes := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			attributes[key] = strings.ToValidUTF8(value, "\uFFFD")
		}
	}
	set(LogService, "unknown_service:"+filepath.Base(os.Args[0]))
	set(LogService, cfg.Service)
	set(LogVersion, cfg.Version)
	set(LogInstance, cfg.Instance)
	given, err := parseResource(getenv("OTEL_RESOURCE_ATTRIBUTES"))
	for key, value := range given {
		set(key, value)
	}
	set(LogService, getenv("OTEL_SERVICE_NAME"))
	return attributes, err
}

// parseResource reads "key=value,key=value" with percent-encoding in keys and
// values (OpenTelemetry resource SDK, "Specifying resource information via an
// environment variable"). The error names the member by its place: its text may
// be private.
func parseResource(s string) (map[string]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	attributes := map[string]string{}
	n := 0
	for member := range strings.SplitSeq(s, ",") {
		n++
		fail := func(why string) (map[string]string, error) {
			return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES, member %d: %s; write key=value,key=value with other characters percent-encoded", n, why)
		}
		if n > maxResourceAttributes {
			return fail(fmt.Sprintf("more than %d attributes", maxResourceAttributes))
		}
		key, value, ok := strings.Cut(member, "=")
		if !ok {
			return fail("no equals sign")
		}
		key, errKey := url.PathUnescape(strings.TrimSpace(key))
		value, errValue := url.PathUnescape(strings.TrimSpace(value))
		switch {
		case errKey != nil || errValue != nil:
			return fail("bad percent-encoding")
		case key == "":
			return fail("no key")
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return fail("not UTF-8")
		}
		attributes[key] = value
	}
	return attributes, nil
}

// newTargetInfo shows the resource as a metric. Two attributes whose names become
// the same label are joined by a semicolon in the order of their names, as the
// OpenTelemetry to Prometheus mapping says.
func newTargetInfo(attributes map[string]string) prometheus.Collector {
	labels := prometheus.Labels{}
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		name, value := labelName(key), attributes[key]
		if before, ok := labels[name]; ok {
			value = before + ";" + value
		}
		labels[name] = value
	}
	return constant(TargetInfo, "Attributes of the process that is observed.", labels)
}

// labelName makes a classic label name of an attribute's. Names that begin with
// an underscore or a digit get "key" before them: the first are reserved, the
// second not allowed.
func labelName(attribute string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, attribute)
	switch {
	case name[0] >= '0' && name[0] <= '9':
		return "key_" + name
	case name[0] == '_':
		return "key" + name
	}
	return name
}

func newBuildInfo() prometheus.Collector {
	const module = "github.com/keelson-go/keelson"
	labels := prometheus.Labels{"version": "unknown", "revision": "unknown", "go_version": runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == module && m.Version != "" {
				labels["version"] = m.Version
			}
		}
		if info.Main.Path == module { // elsewhere the revision is that of somebody else's code
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					labels["revision"] = s.Value
				}
			}
		}
	}
	return constant(BuildInfo, "The Keelson this process was built with.", labels)
}

func constant(name, help string, labels prometheus.Labels) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	g.Set(1)
	return g
}
