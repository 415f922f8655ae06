// Package resilience compares how Keelson's calls between services survive with
// what teams use for the same in Go: each part by itself, a whole client, and
// scenarios in which instances of a service or all of it are sick.
package resilience

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/sony/gobreaker/v2"
	"github.com/zeromicro/go-zero/core/logx"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
)

// peer is a client of the service "users", whose instances are at addresses. All
// that retry do so twice, after a delay from 25 ms on. Where a peer leaves the choice
// of an instance to its user, the next one in turn gets each attempt.
type peer struct {
	name string
	dial func(tb testing.TB, addresses []string) http.RoundTripper
}

var peers = []peer{
	{"bare", dialBare},
	{"keelson", dialKeelson}, // as it comes
	{"keelson-attempt-timeout", dialKeelsonTimeout},
	{"kratos", dialKratos},
	{"failsafe-go", dialFailsafe},
	{"retryablehttp", dialRetryable},
	{"gobreaker+backoff", dialByHand},
}

func TestMain(m *testing.M) {
	logx.Disable() // go-zero logs how the process does
	os.Exit(m.Run())
}

const (
	attempts  = 3
	baseDelay = 25 * time.Millisecond
	maxDelay  = time.Second
)

func transport(tb testing.TB) *http.Transport {
	t := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	tb.Cleanup(t.CloseIdleConnections)
	return t
}

// spread sends each request to the next instance.
type spread struct {
	next      atomic.Uint64
	instances []string // host and port
	rt        http.RoundTripper
}

func spreading(addresses []string, rt http.RoundTripper) *spread {
	s := &spread{rt: rt}
	for _, a := range addresses {
		s.instances = append(s.instances, a[len("http://"):])
	}
	return s
}

func (s *spread) RoundTrip(req *http.Request) (*http.Response, error) {
	i := s.next.Add(1) % uint64(len(s.instances))
	return s.rt.RoundTrip(toInstance(req, s.instances[i]))
}

func toInstance(req *http.Request, instance string) *http.Request {
	out := new(http.Request)
	*out = *req
	u := *req.URL
	u.Host = instance
	out.URL = &u
	return out
}

func dialBare(tb testing.TB, addresses []string) http.RoundTripper {
	return spreading(addresses, transport(tb))
}

// known is a Discoverer that always knows the same instances.
type known map[string]*balance.Set

func (k known) Endpoints(service string) *balance.Set { return k[service] }

func knows(addresses []string) known {
	eps := make([]*balance.Endpoint, len(addresses))
	for i, a := range addresses {
		eps[i] = balance.NewEndpoint(fmt.Sprint("users-", i), a)
	}
	return known{"users": balance.NewSet(eps)}
}

func dialKeelson(tb testing.TB, addresses []string) http.RoundTripper {
	return keelsonWith(tb, addresses)
}

func dialKeelsonTimeout(tb testing.TB, addresses []string) http.RoundTripper {
	return keelsonWith(tb, addresses, client.WithAttemptTimeout(attemptTimeout))
}

func keelsonWith(tb testing.TB, addresses []string, opts ...client.Option) http.RoundTripper {
	t, err := client.New(knows(addresses), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(t.CloseIdleConnections)
	return t
}

// failsafePolicies are all that failsafe-go has for the purpose, set up as its
// documentation has it: a breaker around whole calls, retries and hedges within a
// budget, a timeout for each attempt.
func failsafePolicies() []failsafe.Policy[*http.Response] {
	b := budget.New() // a fifth of what is under way, and always three
	broken := func(resp *http.Response, err error) bool {
		if err != nil {
			return !errors.Is(err, context.Canceled)
		}
		return resp.StatusCode >= http.StatusInternalServerError
	}
	return []failsafe.Policy[*http.Response]{
		circuitbreaker.NewBuilder[*http.Response]().HandleIf(broken).
			WithFailureThresholdRatio(50, 100).WithDelay(time.Second).Build(),
		failsafehttp.NewRetryPolicyBuilder().WithMaxAttempts(attempts).WithBackoff(baseDelay, maxDelay).
			WithJitterFactor(0.5).WithBudget(b).ReturnLastFailure().Build(),
		hedgepolicy.NewBuilderWithDelayQuantile[*http.Response](0.95, 100, 50).WithBudget(b).
			CancelIf(func(resp *http.Response, err error) bool { return !broken(resp, err) }).Build(),
		timeout.New[*http.Response](attemptTimeout),
	}
}

func dialFailsafe(tb testing.TB, addresses []string) http.RoundTripper {
	return failsafehttp.NewRoundTripper(spreading(addresses, transport(tb)), failsafePolicies()...)
}

func retryable(rt http.RoundTripper) http.RoundTripper {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: rt, Timeout: attemptTimeout}
	c.Logger = nil
	c.RetryMax = attempts - 1
	c.RetryWaitMin, c.RetryWaitMax = baseDelay, maxDelay
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return &retryablehttp.RoundTripper{Client: c}
}

func dialRetryable(tb testing.TB, addresses []string) http.RoundTripper {
	return retryable(spreading(addresses, transport(tb)))
}

// byHand is what a careful team builds itself: a breaker for each instance, which
// are passed over while theirs is open, and retries with jitter.
type byHand struct {
	next      atomic.Uint64
	instances []string
	breakers  []*gobreaker.CircuitBreaker[*http.Response]
	rt        http.RoundTripper
}

func dialByHand(tb testing.TB, addresses []string) http.RoundTripper {
	return handMade(addresses, transport(tb))
}

func handMade(addresses []string, rt http.RoundTripper) *byHand {
	h := &byHand{rt: rt}
	for _, a := range addresses {
		h.instances = append(h.instances, a[len("http://"):])
		h.breakers = append(h.breakers, gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{
			Name: a, Interval: 10 * time.Second, Timeout: time.Second,
			ReadyToTrip: func(c gobreaker.Counts) bool {
				return c.ConsecutiveFailures > 5 || (c.Requests >= 20 && c.TotalFailures*2 >= c.Requests)
			},
		}))
	}
	return h
}

var errStatus = errors.New("the instance answered with an error")

func (h *byHand) RoundTrip(req *http.Request) (*http.Response, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = baseDelay, maxDelay
	return backoff.Retry(req.Context(), func() (*http.Response, error) {
		i := h.pick()
		return h.breakers[i].Execute(func() (*http.Response, error) { return h.attempt(req, h.instances[i]) })
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(attempts))
}

// pick takes the next instance in turn of those whose breaker is not open.
func (h *byHand) pick() int {
	var closed []int
	for i, b := range h.breakers {
		if b.State() != gobreaker.StateOpen {
			closed = append(closed, i)
		}
	}
	turn := h.next.Add(1)
	if len(closed) == 0 {
		return int(turn % uint64(len(h.breakers)))
	}
	return closed[turn%uint64(len(closed))]
}

// attempt reads the whole answer, so that its time can be limited.
func (h *byHand) attempt(req *http.Request, instance string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), attemptTimeout)
	defer cancel()
	resp, err := h.rt.RoundTrip(toInstance(req.WithContext(ctx), instance))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return nil, errStatus
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}
