package service

import (
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/telemetry"
)

// What /metrics shows of the limit of concurrent requests.
var (
	limitMetric = &telemetry.Metric{Name: "keelson_concurrency_limit",
		Help: "Requests that may be under way at once."}
	inFlightMetric = &telemetry.Metric{Name: "keelson_concurrency_in_flight",
		Help: "Requests under way that count for the limit; streams do not."}
	queuedMetric = &telemetry.Metric{Name: "keelson_concurrency_queued",
		Help: "Requests that wait for room."}
	admittedMetric = &telemetry.Metric{Name: "keelson_concurrency_admitted_total",
		Help: "Requests there was room for.", Labels: []string{"priority"}, Counter: true}
	shedMetric = &telemetry.Metric{Name: "keelson_concurrency_shed_total",
		Help: "Requests that were refused because too many were under way.", Labels: []string{"priority"}, Counter: true}
)

// showLimit adds the limiter's figures to /metrics. Of services that share a
// Telemetry those of the first are shown.
func (s *Service) showLimit() {
	if s.limiter == nil {
		return
	}
	all := []*telemetry.Metric{limitMetric, inFlightMetric, queuedMetric, admittedMetric, shedMetric}
	err := s.telemetry.Collect(all, func(emit telemetry.Emit) {
		now := s.limiter.Snapshot()
		emit(limitMetric, float64(now.Limit))
		emit(inFlightMetric, float64(now.InFlight))
		emit(queuedMetric, float64(now.Queued))
		for metric, counts := range map[*telemetry.Metric]concurrency.Counts{admittedMetric: now.Admitted, shedMetric: now.Rejected} {
			emit(metric, float64(counts.Low), concurrency.Low.String())
			emit(metric, float64(counts.Normal), concurrency.Normal.String())
			emit(metric, float64(counts.Critical), concurrency.Critical.String())
		}
	})
	if err != nil {
		s.Log().Debug("the concurrency limit is not in the metrics", "error", err)
	}
}
