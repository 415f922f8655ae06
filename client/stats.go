package client

import (
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/outlier"
)

// Stats is what a process knows of one service it calls. The counters count since the
// service was first called.
type Stats struct {
	// Breaker is the service's; zero if there is none.
	Breaker breaker.Snapshot `json:"breaker"`
	// Requests are the calls begun, refused ones included, but not those without an
	// instance to go to.
	Requests uint64 `json:"requests"`
	// Attempts are the tries sent to instances, retries and hedges included.
	Attempts uint64 `json:"attempts"`
	// Retries are counted by what they repeated: refused, broken, timeout, failed (5xx),
	// overloaded (503 with Retry-After) or throttled (429).
	Retries map[string]uint64 `json:"retries"`
	// Hedges are the second tries of requests that took long, HedgesWon those that
	// answered first.
	Hedges    uint64 `json:"hedges"`
	HedgesWon uint64 `json:"hedgesWon"`
	// HedgeAfter is how long a request waits until it is hedged (nanoseconds in JSON); 0
	// while too little is known, and without hedging.
	HedgeAfter time.Duration `json:"hedgeAfter"`
	// BudgetLeft is how many retries and hedges could be made at once, BudgetRefused how
	// many were not made for want of it.
	BudgetLeft    float64 `json:"budgetLeft"`
	BudgetRefused uint64  `json:"budgetRefused"`
	// Endpoints are the instances there are, Ejected those of them that are out of
	// rotation.
	Endpoints int `json:"endpoints"`
	Ejected   int `json:"ejected"`
	// Outlier tells which instances are out, and why; zero if there is no detector.
	Outlier outlier.Snapshot `json:"outlier"`
	// InFlight are the calls that wait for an answer, of Limit that may, and Limited
	// those refused for that.
	InFlight int    `json:"inFlight"`
	Limit    int    `json:"limit"`
	Limited  uint64 `json:"limited"`
}

func (t *Transport) stats(u *upstream) Stats {
	set := t.discover.Endpoints(u.name)
	limit := u.limiter.Snapshot()
	s := Stats{
		Requests:      u.requests.Load(),
		Attempts:      u.attempts.Load(),
		Retries:       map[string]uint64{},
		Hedges:        u.hedges.Load(),
		HedgesWon:     u.hedgesWon.Load(),
		HedgeAfter:    t.hedgeAfter(u),
		BudgetLeft:    u.budget.Left(),
		BudgetRefused: u.budget.Refused(),
		Endpoints:     set.Len(),
		InFlight:      limit.InFlight,
		Limit:         limit.Limit,
		Limited:       u.limited.Load(),
	}
	if u.breaker != nil {
		s.Breaker = u.breaker.Snapshot()
	}
	for f := range u.retries {
		if n := u.retries[f].Load(); n > 0 {
			s.Retries[fate(f).means().reason] = n
		}
	}
	if u.detector != nil {
		s.Outlier = u.detector.Snapshot()
		s.Ejected = s.Outlier.Ejected()
	}
	return s
}
