// Package telemetry is set up once per process and gives its metrics, its trace
// context and its logs. It imports nothing of Keelson, so every other package
// may use it.
//
// Metrics carry the names of OpenTelemetry's semantic conventions in Prometheus
// form; names.go lists them all. Durations are histograms with classic buckets
// and, for a scraper that asks for protobuf, native ones of schema 3 (a factor
// of 1.09 between bounds, within a bucket factor of 1.1) from 1 µs to 68 min:
// at most 256 buckets and a zero bucket.
//
// # Labels
//
// A label never carries what a client can choose freely:
//
//   - http_request_method is one of RFC 9110's methods or PATCH, else "_OTHER".
//   - http_route is the route's pattern, never the path. A request that no
//     route matched has none: the attribute is absent, which in Prometheus is
//     the empty label.
//   - http_response_status_code is a registered status. Another one counts as
//     x00 of its class, as RFC 9110 section 15 tells receivers to read it. It is
//     empty if no response went out, as when the client left before.
//   - Past [MaxServerRoutes] routes or [MaxClientSeries] client series, new
//     ones count as "_OTHER".
//
// # Traces
//
// [Trace] is the W3C Trace Context (level 2) of one request. Only identifiers
// travel here: recording spans of sampled traces is for an exporter that reads
// [TraceFrom].
//
// # Environment
//
// [New] reads OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and NO_COLOR, and
// nothing else.
package telemetry
