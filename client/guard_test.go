package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/outlier"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/retry"
)

func TestBreaker(t *testing.T) {
	t.Parallel()
	var down bool
	script := func(host string, n int, req *http.Request) reply {
		if down {
			return reply{status: 500}
		}
		return fine(host, n, req)
	}
	var changes []string
	told := client.WithBreakerChange(func(c breaker.Change) { changes = append(changes, c.Name+" "+c.To.String()) })
	play(t, 3, script, func(s *stage) {
		down = true
		for range 20 {
			if status, _, err := s.get(); err != nil || status != 500 {
				s.Fatalf("%d, %v", status, err)
			}
		}
		sent := s.total()
		body := &once{Reader: strings.NewReader("x")}
		_, _, err := s.do(request(s.T, "POST", "http://users/", body))
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Kind != client.Open || !errors.Is(err, breaker.ErrOpen) || e.Attempts != 0 || s.total() != sent {
			s.Errorf("%v after %d calls", err, s.total()-sent)
		}
		if d := e.RetryAfter(); d <= 0 || d > 1200*time.Millisecond {
			s.Errorf("to be tried again in %v", d)
		}
		if body.closed.Load() != 1 {
			s.Errorf("the body of a refused request was closed %d times", body.closed.Load())
		}
		if got := s.stats(); got.Breaker.State != breaker.Open || got.Requests != 21 {
			s.Errorf("%+v", got)
		}
		// The service is back: within two seconds all calls get through again.
		down = false
		time.Sleep(1300 * time.Millisecond)
		for range 5 {
			if status, _, err := s.get(); err != nil || status != 200 {
				s.Errorf("%d, %v", status, err)
			}
		}
	}, told)
	if want := "users open users half-open users closed"; strings.Join(changes, " ") != want {
		t.Errorf("changes: %v, want %s", changes, want)
	}
}

// What must not open the breaker, however often it happens.
func TestBreakerStaysClosed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		script func(string, int, *http.Request) reply
		opts   []client.Option
		call   func(s *stage)
	}{
		{"one bad instance of two", func(host string, n int, req *http.Request) reply {
			if host == "0" {
				return reply{status: 500}
			}
			return fine(host, n, req)
		}, []client.Option{client.WithoutOutlier(), client.WithBudget(retry.BudgetOptions{Ratio: 1})}, nil},
		{"sheds load", all(reply{status: 503, header: http.Header{"Retry-After": {"5"}}}), nil, nil},
		{"throttles", all(reply{status: 429}), nil, nil},
		{"not found", all(reply{status: 404}), nil, nil},
		{"callers leave", all(reply{}), nil, func(s *stage) {
			ctx, cancel := context.WithCancel(s.Context())
			time.AfterFunc(time.Second, cancel)
			if _, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx)); kindOf(err) != client.Canceled {
				s.Error(err)
			}
		}},
		{"callers in a hurry", two(reply{after: usual, status: 200}, reply{after: usual, status: 200}), nil, func(s *stage) {
			if s.total() == 0 {
				s.warm()
			}
			ctx, cancel := context.WithTimeout(s.Context(), usual/2)
			defer cancel()
			if _, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx)); kindOf(err) != client.Timeout {
				s.Error(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, 2, tt.script, func(s *stage) {
				for range 100 {
					if tt.call != nil {
						tt.call(s)
					} else if _, _, err := s.get(); err != nil {
						s.Fatal(err)
					}
				}
				if got := s.stats(); got.Breaker.Metrics.Opens != 0 || got.Ejected != 0 {
					s.Errorf("%+v", got)
				}
			}, tt.opts...)
		})
	}
}

// A service that hangs opens its breaker, although only its callers' time ends.
func TestBreakerOpensForAServiceThatHangs(t *testing.T) {
	t.Parallel()
	play(t, 2, all(reply{}), func(s *stage) {
		for range 20 {
			ctx, cancel := context.WithTimeout(s.Context(), time.Second)
			_, _, err := s.do(request(s.T, "POST", "http://users/", nil).WithContext(ctx))
			cancel()
			if kindOf(err) != client.Timeout {
				s.Fatal(err)
			}
		}
		if _, _, err := s.get(); kindOf(err) != client.Open {
			s.Error(err)
		}
		if m := s.stats().Breaker.Metrics; m.Timeouts != 20 {
			s.Errorf("%+v", m)
		}
	})
}

// A probe that hangs is followed by another one.
func TestProbeThatHangs(t *testing.T) {
	t.Parallel()
	state := 500
	play(t, 2, func(string, int, *http.Request) reply { return reply{status: state} }, func(s *stage) {
		for range 20 {
			_, _, _ = s.get()
		}
		time.Sleep(1300 * time.Millisecond)
		state = 0
		ctx, cancel := context.WithCancel(s.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _, _ = s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx)) })
		synctest.Wait()
		state = 200
		if _, _, err := s.get(); kindOf(err) != client.Open {
			s.Errorf("%v, want it refused: a probe is under way", err)
		}
		time.Sleep(1100 * time.Millisecond)
		if status, _, err := s.get(); err != nil || status != 200 {
			s.Errorf("%d, %v", status, err)
		}
		cancel()
		wg.Wait()
	})
}

func TestWithoutBreaker(t *testing.T) {
	t.Parallel()
	play(t, 3, all(reply{status: 500}), func(s *stage) {
		for range 100 {
			if status, _, err := s.get(); err != nil || status != 500 {
				s.Fatalf("%d, %v", status, err)
			}
		}
	}, client.WithoutBreaker(), client.WithoutOutlier())
}

func TestLimit(t *testing.T) {
	t.Parallel()
	play(t, 2, all(reply{after: time.Second, status: 200, body: "x"}), func(s *stage) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, _, err := s.get(); err != nil {
					s.Error(err)
				}
			})
		}
		synctest.Wait()
		body := &once{Reader: strings.NewReader("x")}
		_, _, err := s.do(request(s.T, "POST", "http://users/", body))
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Kind != client.Limited || !errors.Is(err, concurrency.ErrLimit) || e.RetryAfter() <= 0 || body.closed.Load() != 1 {
			s.Errorf("%v, body closed %d times", err, body.closed.Load())
		}
		if got := s.stats(); got.Limited != 1 || got.InFlight != 2 || got.Limit != 2 || got.Breaker.Metrics.Failures != 0 {
			s.Errorf("%+v", got)
		}
		wg.Wait()
		// A call whose answer has begun waits for none.
		for range 3 {
			resp, err := s.tr.RoundTrip(request(s.T, "GET", "http://users/", nil))
			if err != nil {
				s.Fatal(err)
			}
			defer resp.Body.Close()
		}
	}, client.WithLimit(concurrency.Fixed(2)), client.WithoutHedging())
	// With a queue the caller waits, but no longer than it has time.
	play(t, 1, all(reply{after: time.Second, status: 200}), func(s *stage) {
		var wg sync.WaitGroup
		wg.Go(func() { _, _, _ = s.get() })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
		defer cancel()
		if _, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx)); kindOf(err) != client.Timeout {
			s.Error(err)
		}
		if status, _, err := s.get(); err != nil || status != 200 {
			s.Errorf("%d, %v", status, err)
		}
		wg.Wait()
	}, client.WithLimit(concurrency.Fixed(1), concurrency.Queue(1, time.Minute)))
}

func TestDeadlineIsOver(t *testing.T) {
	t.Parallel()
	play(t, 1, fine, func(s *stage) {
		past, cancel := context.WithDeadline(s.Context(), time.Now())
		defer cancel()
		_, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(past))
		if kindOf(err) != client.Timeout || !errors.Is(err, deadline.ErrOver) || !errors.Is(err, context.DeadlineExceeded) {
			s.Error(err)
		}
		gone, leave := context.WithCancel(s.Context())
		leave()
		if _, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(gone)); kindOf(err) != client.Canceled {
			s.Error(err)
		}
		if s.total() != 0 || s.stats().Requests != 0 {
			s.Errorf("%d calls", s.total())
		}
	})
}

func TestWithLocal(t *testing.T) {
	t.Parallel()
	local := client.WithLocal(func(instance string) http.RoundTripper {
		if instance != "users-0" {
			return nil
		}
		return answering(func(*http.Request) (int, string) { return 200, "local" })
	})
	play(t, 2, fine, func(s *stage) {
		for header, want := range map[string]string{"": "local", "Upgrade: websocket": "0", "Content-Type: application/grpc": "0"} {
			req := request(s.T, "POST", "http://users/", nil)
			if name, value, ok := strings.Cut(header, ": "); ok {
				req.Header.Set(name, value)
			}
			if _, body, err := s.do(req); err != nil || body != want {
				s.Errorf("%s: %q, %v; want %q", header, body, err, want)
			}
		}
	}, local)
	skipping := client.WithLocal(func(string) http.RoundTripper {
		return carrier(func(*http.Request) (*http.Response, error) { return nil, http.ErrSkipAltProtocol })
	})
	play(t, 1, fine, func(s *stage) {
		if _, body, err := s.do(request(s.T, "POST", "http://users/", strings.NewReader("x"))); err != nil || body != "0" {
			s.Errorf("%q, %v", body, err)
		}
	}, skipping)
	// An instance that drains refuses, and the call goes over the wire.
	draining := client.WithLocal(func(instance string) http.RoundTripper {
		if instance != "users-0" {
			return nil
		}
		return carrier(func(*http.Request) (*http.Response, error) {
			return nil, refusal().(interface{ Unwrap() error }).Unwrap()
		})
	})
	play(t, 2, fine, func(s *stage) {
		if _, body, err := s.do(request(s.T, "POST", "http://users/", strings.NewReader("x"))); err != nil || body != "1" {
			s.Errorf("%q, %v", body, err)
		}
	}, draining)
}

// What breaks by somebody's cancellation, but not the caller's, is a failure.
func TestBrokenByACancellation(t *testing.T) {
	t.Parallel()
	play(t, 2, all(reply{err: context.Canceled}), func(s *stage) {
		for range 20 {
			if _, _, err := s.do(request(s.T, "POST", "http://users/", nil)); kindOf(err) != client.Broken {
				s.Fatal(err)
			}
		}
		if got := s.stats().Breaker.State; got != breaker.Open {
			s.Errorf("the breaker is %v", got)
		}
	})
}

// A carrier that panics leaves nothing behind.
func TestPanicGoesUp(t *testing.T) {
	t.Parallel()
	play(t, 1, func(string, int, *http.Request) reply { panic("mistake") }, func(s *stage) {
		defer func() {
			if got := recover(); got != "mistake" {
				s.Errorf("recovered %v", got)
			}
		}()
		_, _, _ = s.do(request(s.T, "POST", "http://users/", nil))
	})
}

func TestStats(t *testing.T) {
	t.Parallel()
	play(t, 2, first(reply{status: 503}, 1), func(s *stage) {
		for range s.tr.Services() {
			s.Error("a service that was never called")
		}
		for range 3 {
			_, _, _ = s.get()
		}
		if _, _, err := s.do(request(s.T, "GET", "http://nobody/", nil)); !errors.Is(err, registry.ErrNoInstance) {
			s.Error(err)
		}
		var names []string
		for name, got := range s.tr.Services() {
			names = append(names, name)
			if got.Requests != 3 || got.Attempts != 4 || got.Retries["failed"] != 1 || got.Endpoints != 2 || got.Ejected != 0 ||
				got.Limit != 1024 || got.BudgetLeft < 9 || got.BudgetRefused != 0 || got.Breaker.Metrics.Requests != 3 {
				s.Errorf("%+v", got)
			}
			break
		}
		if len(names) != 1 || names[0] != "users" {
			s.Errorf("services %v", names)
		}
	})
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		option client.Option
		names  string
	}{
		{client.WithRetry(retry.Policy{MaxAttempts: -1}), "MaxAttempts"},
		{client.WithAttemptTimeout(-1), "AttemptTimeout"},
		{client.WithBudget(retry.BudgetOptions{Reserve: -1}), "Reserve"},
		{client.WithBreaker(breaker.OpenTime(-1)), "OpenTime"},
		{client.WithOutlier(outlier.Config{MinCalls: -1}), "MinCalls"},
		{client.WithLimit(concurrency.Fixed(0)), "Fixed"},
		{client.WithHedging(client.Hedging{Quantile: 1}), "Quantile"},
		{client.WithHedging(client.Hedging{MinDelay: -1}), "MinDelay"},
		{client.WithHedging(client.Hedging{MinSamples: 2000}), "MinSamples"},
		{client.WithPicker(nil), "WithPicker"},
	} {
		_, err := client.New(fleet{}, tt.option)
		if err == nil || !strings.Contains(err.Error(), tt.names) || !strings.HasPrefix(err.Error(), "client: ") || strings.Count(err.Error(), "client: ") > 1 {
			t.Errorf("%s: %v", tt.names, err)
		}
	}
	for _, opts := range [][]client.Option{
		{client.WithoutBreaker(), client.WithBreaker(breaker.OpenTime(time.Minute))},
		{client.WithHedging(client.Hedging{}), client.WithOutlier(outlier.Config{}), client.WithAttempts(0)},
	} {
		if _, err := client.New(fleet{}, opts...); err != nil {
			t.Error(err)
		}
	}
}

// The state of services does not grow with the names of strangers.
func TestStrangersAreNotRemembered(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, fleet{})
	for i := range 100 {
		if _, err := tr.RoundTrip(request(t, "GET", "http://stranger-"+strconv.Itoa(i)+"/", nil)); kindOf(err) != client.NoInstance {
			t.Fatal(err)
		}
	}
	for name := range tr.Services() {
		t.Errorf("%s is remembered", name)
	}
}

// The picker's sets come and go with ejections; the service's last instance never does.
func TestTheLastInstanceStays(t *testing.T) {
	t.Parallel()
	play(t, 1, all(reply{err: io.ErrUnexpectedEOF}), func(s *stage) {
		for range 30 {
			if _, _, err := s.do(request(s.T, "POST", "http://users/", nil)); kindOf(err) != client.Broken {
				s.Fatal(err)
			}
		}
		if got := s.stats(); got.Ejected != 0 {
			s.Errorf("%+v", got)
		}
	}, client.WithoutBreaker(), client.WithPicker(balance.P2C))
}

// A service that gives up when the time it was told is over does as it should: callers
// that give it little must not have it taken for broken, nor ask it again.
func TestTimeToldIsOver(t *testing.T) {
	t.Parallel()
	play(t, 2, all(reply{after: 190 * time.Millisecond, status: 504}), func(s *stage) {
		for range 100 {
			ctx, cancel := context.WithTimeout(s.Context(), 200*time.Millisecond)
			status, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
			cancel()
			if err != nil || status != 504 {
				s.Fatal(status, err)
			}
		}
		if got := s.stats(); got.Breaker.Metrics.Opens != 0 || got.Ejected != 0 || s.total() != 100 {
			s.Errorf("%d sent; %+v", s.total(), got)
		}
	}, client.WithoutHedging())
	// A 504 that comes early is another service's, behind it: that is tried elsewhere.
	play(t, 2, all(reply{status: 504}), func(s *stage) {
		ctx, cancel := context.WithTimeout(s.Context(), time.Second)
		defer cancel()
		if status, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx)); err != nil || status != 504 {
			s.Fatal(status, err)
		}
		if s.total() != 3 {
			s.Errorf("%d sent", s.total())
		}
	})
}
