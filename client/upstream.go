package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/outlier"
	"github.com/keelson-go/keelson/retry"
)

// upstream is what this process knows of one service it calls.
type upstream struct {
	name     string
	picker   balance.Picker
	detector *outlier.Detector // nil: none
	breaker  *breaker.Breaker  // nil: none
	limiter  *concurrency.Limiter
	budget   *retry.Budget
	answers  latencies
	losers   losers
	races    sync.Pool // of *race, with their timers, whose timers have never fired

	requests, attempts, hedges, hedgesWon, limited atomic.Uint64
	retries                                        [fates]atomic.Uint64 // by what they repeat
}

// newUpstream makes the state of a service. The error says which option is wrong.
func newUpstream(name string, s *settings) (*upstream, error) {
	u := &upstream{name: name, budget: s.retry.Budget}
	u.answers.quantile, u.answers.least = s.hedging.Quantile, s.hedging.MinSamples
	u.picker = s.picker()
	if s.zone != "" {
		u.picker = balance.PreferZone(s.zone, s.picker)
	}
	var errs [4]error
	if u.budget == nil {
		u.budget, errs[0] = retry.NewBudget(s.budget)
	}
	if s.breaks {
		if u.breaker, errs[1] = breaker.New(name, s.breaker...); errs[1] == nil && s.onBreaker != nil {
			u.breaker.OnStateChange(s.onBreaker)
		}
	}
	if s.ejects {
		if u.detector, errs[2] = outlier.New(s.outlier); errs[2] == nil && s.onOutlier != nil {
			u.detector.OnChange(func(c outlier.Change) { s.onOutlier(name, c) })
		}
	}
	u.limiter, errs[3] = concurrency.New(s.limit...)
	return u, errors.Join(errs[:]...)
}

// rotation returns those of set that may be picked.
func (u *upstream) rotation(set *balance.Set) *balance.Set {
	if u.detector == nil {
		return set
	}
	return u.detector.InRotation(set)
}

// settle tells the breaker and the limiter how a call ended.
func (u *upstream) settle(permit breaker.Permit, token concurrency.Token, f fate, err error) {
	m := f.means()
	switch m.limiter {
	case good:
		token.Success()
	case overload:
		token.Overloaded()
	default:
		token.Ignore()
	}
	switch m.breaker { // last: its listeners are the user's, and may panic
	case good:
		permit.Success()
	case bad:
		if err != nil && !errors.Is(err, context.Canceled) { // somebody's: the caller's has another fate
			permit.Done(err) // it counts timeouts apart
		} else {
			permit.Failure()
		}
	default:
		permit.Cancel()
	}
}
