package client

import (
	"slices"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/telemetry"
)

func counter(name, help string, labels ...string) *telemetry.Metric {
	return &telemetry.Metric{Name: name, Help: help, Labels: append([]string{"service"}, labels...), Counter: true}
}

func gauge(name, help string, labels ...string) *telemetry.Metric {
	return &telemetry.Metric{Name: name, Help: help, Labels: append([]string{"service"}, labels...)}
}

// What /metrics shows of the services that are called. The durations of single
// attempts are http_client_request_duration_seconds; see [WithMetrics].
var (
	requestsMetric       = counter("keelson_client_requests_total", "Calls begun, refused ones included.")
	attemptsMetric       = counter("keelson_client_attempts_total", "Tries sent to instances, retries and hedges included.")
	retriesMetric        = counter("keelson_client_retries_total", "Tries that repeated one that failed, by why.", "reason")
	hedgesMetric         = counter("keelson_client_hedges_total", "Second tries of calls that took long.")
	hedgesWonMetric      = counter("keelson_client_hedges_won_total", "Second tries that answered first.")
	hedgeAfterMetric     = gauge("keelson_client_hedge_delay_seconds", "After what time a call gets a second try; 0 while too little is known.")
	budgetMetric         = gauge("keelson_client_retry_budget_left", "Retries and hedges that could be made at once.")
	budgetRefusedMetric  = counter("keelson_client_retry_budget_refused_total", "Retries and hedges not made for want of budget.")
	breakerMetric        = gauge("keelson_client_breaker_state", "1 for the state that the service's breaker is in.", "state")
	breakerOpensMetric   = counter("keelson_client_breaker_opens_total", "How often the service's breaker opened.")
	breakerRefusedMetric = counter("keelson_client_breaker_rejected_total", "Calls that the open breaker refused.")
	endpointsMetric      = gauge("keelson_client_endpoints", "Instances in the registry's rotation.")
	ejectedMetric        = gauge("keelson_client_ejected_endpoints", "Instances of them that get less than their share because they do worse than others.")
	ejectionsMetric      = counter("keelson_client_ejections_total", "How often instances were taken out, by why.", "reason")
	inFlightMetric       = gauge("keelson_client_in_flight", "Calls that wait for an answer.")
	limitMetric          = gauge("keelson_client_limit", "Calls that may wait for an answer at once.")
	limitedMetric        = counter("keelson_client_limited_total", "Calls refused because too many waited for an answer.")
)

// Show adds what t knows of the services it calls to tel's /metrics; see [Stats].
// Names of services are the only labels that grow, and only those that have had
// instances appear. The error says that tel shows another Transport already.
func (t *Transport) Show(tel *telemetry.Telemetry) error {
	return tel.Collect([]*telemetry.Metric{
		requestsMetric, attemptsMetric, retriesMetric, hedgesMetric, hedgesWonMetric, hedgeAfterMetric,
		budgetMetric, budgetRefusedMetric, breakerMetric, breakerOpensMetric, breakerRefusedMetric,
		endpointsMetric, ejectedMetric, ejectionsMetric, inFlightMetric, limitMetric, limitedMetric,
	}, func(emit telemetry.Emit) {
		for service, s := range t.Services() {
			s.emit(func(m *telemetry.Metric, value float64, labels ...string) {
				emit(m, value, slices.Insert(labels, 0, service)...)
			})
		}
	})
}

func (s *Stats) emit(emit telemetry.Emit) {
	emit(requestsMetric, float64(s.Requests))
	emit(attemptsMetric, float64(s.Attempts))
	for reason, n := range s.Retries {
		emit(retriesMetric, float64(n), reason)
	}
	emit(hedgesMetric, float64(s.Hedges))
	emit(hedgesWonMetric, float64(s.HedgesWon))
	emit(hedgeAfterMetric, s.HedgeAfter.Seconds())
	emit(budgetMetric, s.BudgetLeft)
	emit(budgetRefusedMetric, float64(s.BudgetRefused))
	if !s.Breaker.Metrics.StateChangedAt.IsZero() { // else there is none
		for state := breaker.Closed; state <= breaker.HalfOpen; state++ {
			value := 0.0
			if state == s.Breaker.State {
				value = 1
			}
			emit(breakerMetric, value, state.String())
		}
		emit(breakerOpensMetric, float64(s.Breaker.Metrics.Opens))
		emit(breakerRefusedMetric, float64(s.Breaker.Metrics.Rejected))
	}
	emit(endpointsMetric, float64(s.Endpoints))
	emit(ejectedMetric, float64(s.Ejected))
	for reason, n := range s.Outlier.Ejections {
		emit(ejectionsMetric, float64(n), reason.String())
	}
	emit(inFlightMetric, float64(s.InFlight))
	emit(limitMetric, float64(s.Limit))
	emit(limitedMetric, float64(s.Limited))
}

// Breakers returns the state of the breaker of each service that was called, by the
// service's name.
func (t *Transport) Breakers() map[string]breaker.Snapshot {
	all := map[string]breaker.Snapshot{}
	for name, u := range *t.upstreams.Load() {
		if u.breaker != nil {
			all[name] = u.breaker.Snapshot()
		}
	}
	return all
}
