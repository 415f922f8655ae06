package client_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/retry"
)

// instead has one instance's requests carried by f, once the client is warm.
func instead(instance string, f carrier) client.Option {
	return client.WithLocal(func(id string) http.RoundTripper {
		if id != instance {
			return nil
		}
		return carrier(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("X-Warm") != "" {
				return nil, http.ErrSkipAltProtocol
			}
			return f(req)
		})
	})
}

// A try that panics while a hedge is under way leaves nothing behind, whether the hedge
// has failed by then or answers later.
func TestPanicInARace(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]reply{
		"the hedge answers later": {after: 20 * time.Millisecond, status: 200},
		"the hedge hangs":         {},
		"the hedge has failed":    {after: time.Millisecond, status: 503},
		"the hedge has not begun": {status: 200},
	} {
		wait := 15 * time.Millisecond
		if name == "the hedge has not begun" {
			wait = time.Millisecond
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, 2, two(reply{}, second), func(s *stage) {
				s.warm()
				func() {
					defer func() {
						if got := recover(); got != "mistake" {
							s.Errorf("recovered %v", got)
						}
					}()
					_, _, _ = s.get()
				}()
				time.Sleep(time.Minute)
				if got := s.stats(); got.Hedges > 0 != (wait > hedgeAt) {
					s.Errorf("%d hedges", got.Hedges)
				}
			}, instead("users-0", func(*http.Request) (*http.Response, error) {
				time.Sleep(wait)
				panic("mistake")
			}))
		})
	}
}

// Nor does one of the user's functions.
func TestPanicInAHook(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]retry.Policy{
		"RetryIf": {RetryIf: func(error) bool { panic("mistake") }},
		"OnRetry": {OnRetry: func(retry.Event) { panic("mistake") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, 2, all(reply{status: 503, body: "sorry"}), func(s *stage) {
				defer func() {
					if got := recover(); got != "mistake" {
						s.Errorf("recovered %v", got)
					}
				}()
				_, _, _ = s.get()
			}, client.WithRetry(policy))
		})
	}
}

// A hedge whose failure would be no reason for a retry is none for another hedge.
func TestHopelessHedge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		opts   []client.Option
	}{
		"by its status":  {507, nil},
		"by the RetryIf": {503, []client.Option{client.WithRetry(retry.Policy{RetryIf: func(error) bool { return false }})}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			script := warmed(func(string, int, *http.Request) reply {
				switch calls++; calls {
				case 1:
					return reply{after: 15 * time.Millisecond, status: 200, body: "first"}
				case 2:
					return reply{status: tt.status}
				}
				return reply{status: 200, body: "third"}
			})
			play(t, 3, script, func(s *stage) {
				s.warm()
				if status, body, err := s.get(); err != nil || status != 200 || body != "first" {
					s.Errorf("%d %q, %v", status, body, err)
				}
				if got := s.stats(); got.Attempts != 52 || len(got.Retries) != 0 {
					s.Errorf("%+v", got)
				}
			}, tt.opts...)
		})
	}
}

// A hedge that lost teaches nothing about its instance, even if its caller has cancelled
// by the time it ends; and it sees nothing of what its caller does with the request since.
func TestLoserOutlivesTheCall(t *testing.T) {
	t.Parallel()
	var seen []string
	play(t, 2, two(reply{after: 12 * time.Millisecond, status: 200}, reply{}), func(s *stage) {
		s.warm()
		before := s.eps[1].Latency()
		ctx, cancel := context.WithCancel(s.Context())
		req := request(s.T, "GET", "http://users/", nil).WithContext(ctx)
		req.Header.Set("X-Mine", "as sent")
		if status, _, err := s.do(req); err != nil || status != 200 {
			s.Errorf("%d, %v", status, err)
		}
		cancel()
		req.Header.Set("X-Mine", "used again")
		req.Method, req.URL.Path = "POST", "/again"
		time.Sleep(time.Second)
		synctest.Wait()
		if len(seen) != 1 || seen[0] != "GET / as sent" {
			s.Errorf("the hedge saw %q", seen)
		}
		if after := s.eps[1].Latency(); after != before {
			s.Errorf("the latency was %v, and is %v", before, after)
		}
	}, instead("users-1", func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		time.Sleep(time.Millisecond)
		seen = append(seen, req.Method+" "+req.URL.Path+" "+req.Header.Get("X-Mine"))
		return nil, req.Context().Err()
	}))
}

// No hedge is sent that would be told that it has no time.
func TestNoTimeForAHedge(t *testing.T) {
	t.Parallel()
	play(t, 2, two(reply{}, reply{status: 200}), func(s *stage) {
		s.warm()
		ctx, cancel := context.WithTimeout(s.Context(), hedgeAt+900*time.Microsecond)
		defer cancel()
		if _, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx)); kindOf(err) != client.Timeout {
			s.Error(err)
		}
		if got := s.stats(); got.Hedges != 0 || got.BudgetLeft < 10 {
			s.Errorf("%d hedges, %v left in the budget", got.Hedges, got.BudgetLeft)
		}
	})
}

// A base that leaves out the body of an answer breaks the rules of http.RoundTripper; to
// the caller there is one all the same.
func TestAnswerWithoutABody(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 503} {
		bare := instead("users-0", func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}}, nil
		})
		play(t, 1, fine, func(s *stage) {
			if got, body, err := s.get(); err != nil || got != status || body != "" {
				s.Errorf("%d %q, %v", got, body, err)
			}
		}, bare)
	}
}
