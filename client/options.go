package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/outlier"
	"github.com/keelson-go/keelson/retry"
	"github.com/keelson-go/keelson/telemetry"
)

// Option changes a default of [New].
type Option func(*settings)

// settings are what every service's state is made from.
type settings struct {
	picker  func() balance.Picker
	zone    string
	metrics *telemetry.ClientMetrics
	control func(ctx context.Context, network, address string, c syscall.RawConn) error
	base    http.RoundTripper
	local   func(instance string) http.RoundTripper
	retry   retry.Policy
	budget  retry.BudgetOptions
	breaker []breaker.Option
	breaks  bool
	outlier outlier.Config
	ejects  bool
	hedging Hedging
	hedges  bool
	limit   []concurrency.Option

	onBreaker func(breaker.Change)
	onOutlier func(service string, c outlier.Change)
}

// The defaults of a service's breaker. It looks at whole calls, so retries and hedges
// have done what they could before it hears of a failure: if half of the last 100 calls
// failed, the service does. It counts calls and not time, or a service that is called
// once a second would never open it. A second is long enough to take the load off it and short
// enough to be back within two of its recovery; 20 % of jitter keep a fleet's probes
// apart. A probe that hangs is given up for another as soon as a new one would be due.
func defaultBreaker() []breaker.Option {
	return []breaker.Option{
		breaker.ConsecutiveFailures(0),
		breaker.SlidingWindow(breaker.Window{Calls: 100, MinCalls: 20, FailureRate: 0.5}),
		breaker.OpenTime(time.Second),
		breaker.OpenJitter(0.2),
		breaker.ProbeLease(time.Second),
	}
}

// defaultLimit bounds the calls to one service that wait for an answer. By Little's
// law that is 10,000 a second at 100 ms each: more than one process sends on purpose,
// and few enough that a service which hangs doesn't take all memory of its callers.
const defaultLimit = 1024

func defaults() settings {
	return settings{
		picker:  balance.P2C,
		breaker: defaultBreaker(),
		breaks:  true,
		ejects:  true,
		hedges:  true,
		limit:   []concurrency.Option{concurrency.Fixed(defaultLimit)},
	}
}

// WithPicker sets how a service's picker is made; balance.P2C by default.
func WithPicker(newPicker func() balance.Picker) Option {
	return func(s *settings) { s.picker = newPicker }
}

// WithZone tells the zone of the caller. Requests then stay in that zone while it can
// take them: see [balance.PreferZone]. An empty zone changes nothing.
func WithZone(zone string) Option { return func(s *settings) { s.zone = zone } }

// WithMetrics records the duration of every try.
func WithMetrics(m *telemetry.ClientMetrics) Option { return func(s *settings) { s.metrics = m } }

// WithDialControl has control asked before each connection is made, with the
// address that a name has led to; see net.Dialer.ControlContext. It does not go
// together with [WithBase].
func WithDialControl(control func(ctx context.Context, network, address string, c syscall.RawConn) error) Option {
	return func(s *settings) { s.control = control }
}

// WithBase sets what carries the tries, HTTP/1 and TLS. If it is an *http.Transport,
// the [Transport] owns it from then on, and uses a copy of it for HTTP/2 without TLS,
// which gRPC needs; any other carries gRPC too. It must return soon after a request's
// context has ended, as an http.RoundTripper should. If it panics, that goes up to the
// caller; in a hedge, which nobody called, it ends the process.
func WithBase(base http.RoundTripper) Option { return func(s *settings) { s.base = base } }

// WithLocal lets instances of this very process be called without a socket. It is asked
// before each try with the instance's id; what it returns carries the try, unless it is
// nil or, having touched nothing, answers http.ErrSkipAltProtocol. Upgrades (WebSocket)
// and gRPC take the socket in any case. It must be fast and safe for concurrent use.
func WithLocal(local func(instance string) http.RoundTripper) Option {
	return func(s *settings) { s.local = local }
}

// WithRetry sets which failed tries are repeated, within what is safe: see the package
// documentation. Zero fields are the defaults: 3 tries in all ([DefaultAttempts]), full
// jitter from 25 ms to 1 s, a Retry-After of up to 2 s heeded ([DefaultMaxAfter]).
//
// AttemptTimeout and TotalTimeout bound the time until the answer's head; the body may
// take longer. With a Budget all services share it, otherwise each has one of its own
// ([WithBudget]). RetryIf and OnRetry are given an [*Error]; for an answer its Kind is
// [Answered]. They may be called by several goroutines at once.
func WithRetry(p retry.Policy) Option { return func(s *settings) { s.retry = p } }

// WithAttempts sets how often one request may be sent in all: MaxAttempts of
// [WithRetry]. With 1 there are neither retries nor hedges.
func WithAttempts(n int) Option { return func(s *settings) { s.retry.MaxAttempts = max(n, 1) } }

// WithAttemptTimeout bounds the time one try may take until the answer's head:
// AttemptTimeout of [WithRetry]. Choose more than what slow answers take: the next try
// waits as long again. The default, 0, is no bound but the caller's own.
func WithAttemptTimeout(d time.Duration) Option {
	return func(s *settings) { s.retry.AttemptTimeout = d }
}

// WithBudget sets the budget of retries and hedges that each service gets.
func WithBudget(o retry.BudgetOptions) Option { return func(s *settings) { s.budget = o } }

// WithBreaker changes the breaker that each service gets; the options come after the
// defaults: half of the last 100 calls failed, 20 at least, opens it for a second.
// breaker.Timeout has no effect.
func WithBreaker(opts ...breaker.Option) Option {
	return func(s *settings) { s.breaker, s.breaks = append(s.breaker, opts...), true }
}

// WithoutBreaker leaves breakers out.
func WithoutBreaker() Option { return func(s *settings) { s.breaks = false } }

// WithBreakerChange has f told of each change of a service's breaker, whose name is the
// service's; see [breaker.Breaker.OnStateChange].
func WithBreakerChange(f func(breaker.Change)) Option {
	return func(s *settings) { s.onBreaker = f }
}

// WithOutlier sets when an instance is taken out of rotation.
func WithOutlier(c outlier.Config) Option {
	return func(s *settings) { s.outlier, s.ejects = c, true }
}

// WithOutlierChange has f told of each instance that is taken out of rotation or comes
// back; see [outlier.Detector.OnChange].
func WithOutlierChange(f func(service string, c outlier.Change)) Option {
	return func(s *settings) { s.onOutlier = f }
}

// WithoutOutlier keeps every instance in rotation.
func WithoutOutlier() Option { return func(s *settings) { s.ejects = false } }

// WithLimit sets how many calls to one service may wait for an answer at a time; the
// default is concurrency.Fixed(1024). A call whose answer's head has come waits no
// more, so streams do not count.
func WithLimit(opts ...concurrency.Option) Option { return func(s *settings) { s.limit = opts } }

// Hedging says when a request that waits longer than usual is sent to another instance
// as well. Zero fields are the defaults.
type Hedging struct {
	// Quantile of the service's latencies after which the second try starts, 0.5 to
	// 0.999. The default is 0.95: one request in twenty is sent twice at most, half of
	// what the budget allows, which leaves the other half to retries.
	Quantile float64
	// MinDelay is the least time before the second try. The default is 1 ms: below it
	// timers and schedulers add more than there is to gain.
	MinDelay time.Duration
	// MinSamples is how many answers must be known before the first hedge, 1 to 1000.
	// The default is 50: with fewer, a quantile of 0.95 is that of two or three answers.
	MinSamples int
}

func (h *Hedging) normalize() error {
	if h.Quantile == 0 {
		h.Quantile = 0.95
	}
	if h.MinDelay == 0 {
		h.MinDelay = time.Millisecond
	}
	if h.MinSamples == 0 {
		h.MinSamples = 50
	}
	switch {
	case !(h.Quantile >= 0.5 && h.Quantile <= 0.999):
		return fmt.Errorf("Hedging.Quantile is %v: give 0.5 to 0.999, or 0 for 0.95", h.Quantile)
	case h.MinDelay < 0:
		return fmt.Errorf("Hedging.MinDelay is %v: give more than 0, or 0 for 1ms", h.MinDelay)
	case h.MinSamples < 1 || h.MinSamples > 1000:
		return fmt.Errorf("Hedging.MinSamples is %d: give 1 to 1000, or 0 for 50", h.MinSamples)
	}
	return nil
}

// WithHedging sets when requests are hedged; they are by default.
func WithHedging(h Hedging) Option { return func(s *settings) { s.hedging, s.hedges = h, true } }

// WithoutHedging sends no request twice at the same time.
func WithoutHedging() Option { return func(s *settings) { s.hedges = false } }

// normalize fills in the defaults and returns what is wrong.
func (s *settings) normalize() error {
	err := errors.Join(s.retry.Check(), s.hedging.normalize())
	if s.picker == nil {
		err = errors.Join(err, errors.New("WithPicker's function is nil: give one that makes a picker, or leave it out"))
	}
	if s.base != nil && s.control != nil {
		err = errors.Join(err, errors.New("WithDialControl and WithBase: give one of them; set the control on the base's dialer"))
	}
	if s.retry.MaxAttempts == 0 {
		s.retry.MaxAttempts = DefaultAttempts
	}
	if s.retry.MaxAfter == 0 {
		s.retry.MaxAfter = DefaultMaxAfter
	}
	if err != nil {
		return err
	}
	_, err = newUpstream("of every service", s) // what else is wrong, they would all say
	return err
}
