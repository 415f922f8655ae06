package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/retry"
)

// usual is how long the first answers take in these tests, and hedgeAt about when a
// hedge comes then: at the end of its step in the histogram.
const (
	usual   = 10 * time.Millisecond
	hedgeAt = 10486 * time.Microsecond
)

// warmed makes every instance answer in the usual time until the client knows what is
// usual, and then replies as script does, which counts calls from then on.
func warmed(script func(host string, n int, req *http.Request) reply) func(string, int, *http.Request) reply {
	var mu sync.Mutex
	calls := map[string]int{}
	return func(host string, _ int, req *http.Request) reply {
		mu.Lock()
		defer mu.Unlock()
		if req.Header.Get("X-Warm") != "" {
			return reply{after: usual, status: 200}
		}
		calls[host]++
		return script(host, calls[host], req)
	}
}

func (s *stage) warm() {
	s.Helper()
	for range 50 {
		req := request(s.T, "GET", "http://users/", nil)
		req.Header.Set("X-Warm", "1")
		if _, _, err := s.do(req); err != nil {
			s.Fatal(err)
		}
	}
	if got := s.stats().HedgeAfter.Round(time.Millisecond / 2); got != hedgeAt.Round(time.Millisecond/2) {
		s.Fatalf("hedges after %v", got)
	}
}

// two makes instance 0 and 1 reply so.
func two(a, b reply) func(string, int, *http.Request) reply {
	return warmed(func(host string, _ int, _ *http.Request) reply {
		r := b
		if host == "0" {
			r = a
		}
		r.body = host
		return r
	})
}

func TestHedge(t *testing.T) {
	t.Parallel()
	hang := reply{}
	ok := func(after time.Duration) reply { return reply{after: after, status: 200} }
	bad := func(after time.Duration) reply { return reply{after: after, status: 503} }
	cut := func(after time.Duration) reply { return reply{after: after, err: io.ErrUnexpectedEOF} }
	const ms = time.Millisecond
	for _, tt := range []struct {
		name        string
		first       reply
		second      reply
		status      int
		body        string
		took        time.Duration
		hedges, won uint64
	}{
		{"soon enough", ok(usual), ok(0), 200, "0", usual, 0, 0},
		{"the hedge wins", hang, ok(5 * ms), 200, "1", hedgeAt + 5*ms, 1, 1},
		{"the first wins", ok(12 * ms), ok(5 * ms), 200, "0", 12 * ms, 1, 0},
		{"the hedge hangs", ok(time.Second), hang, 200, "0", time.Second, 1, 0},
		{"a failure does not win", ok(time.Second), bad(5 * ms), 200, "0", time.Second, 1, 0},
		{"nor does an error", ok(time.Second), cut(5 * ms), 200, "0", time.Second, 1, 0},
		{"the first fails, the hedge is under way", bad(20 * ms), ok(30 * ms), 200, "1", hedgeAt + 30*ms, 1, 1},
		{"the first breaks, the hedge is under way", cut(20 * ms), ok(30 * ms), 200, "1", hedgeAt + 30*ms, 1, 1},
		{"the first fails at once: that is a retry", cut(0), ok(0), 200, "1", -1, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, 2, two(tt.first, tt.second), func(s *stage) {
				s.warm()
				start := time.Now()
				status, body, err := s.get()
				took := time.Since(start)
				if err != nil || status != tt.status || body != tt.body {
					s.Errorf("%d %q, %v; want %d %q", status, body, err, tt.status, tt.body)
				}
				if tt.took >= 0 && (took < tt.took-ms || took > tt.took+ms) {
					s.Errorf("it took %v, want %v", took, tt.took)
				}
				if got := s.stats(); got.Hedges != tt.hedges || got.HedgesWon != tt.won {
					s.Errorf("%d hedges, %d won; want %d and %d", got.Hedges, got.HedgesWon, tt.hedges, tt.won)
				}
			})
		})
	}
}

// Both fail: that is one failure, and both instances have been tried.
func TestHedgeFailsToo(t *testing.T) {
	t.Parallel()
	script := func() func(string, int, *http.Request) reply {
		calls := 0
		return warmed(func(string, int, *http.Request) reply {
			switch calls++; calls {
			case 1:
				return reply{after: 15 * time.Millisecond, status: 503, body: "sorry"}
			case 2:
				return reply{after: 8 * time.Millisecond, status: 503, body: "sorry"}
			}
			return reply{status: 200, body: "third"}
		})
	}
	play(t, 3, script(), func(s *stage) {
		s.warm()
		if status, body, err := s.get(); err != nil || status != 200 || body != "third" {
			s.Errorf("%d %q, %v", status, body, err)
		}
		if got := s.stats(); got.Attempts != 53 || got.Hedges != 1 || got.Retries["failed"] != 1 {
			s.Errorf("%+v", got)
		}
	})
	play(t, 3, script(), func(s *stage) {
		s.warm()
		if status, body, err := s.get(); err != nil || status != 503 || body != "sorry" {
			s.Errorf("with two attempts in all: %d %q, %v", status, body, err)
		}
	}, client.WithAttempts(2))
}

func TestNoHedge(t *testing.T) {
	t.Parallel()
	slow := two(reply{after: time.Second, status: 200}, reply{status: 200})
	get := func(t *testing.T) *http.Request { return request(t, "GET", "http://users/", nil) }
	with := func(name, value string) func(t *testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			req := get(t)
			req.Header.Set(name, value)
			return req
		}
	}
	for _, tt := range []struct {
		name      string
		instances int
		req       func(t *testing.T) *http.Request
		opts      []client.Option
	}{
		{"post", 2, func(t *testing.T) *http.Request { return request(t, "POST", "http://users/", nil) }, nil},
		{"put", 2, func(t *testing.T) *http.Request { return request(t, "PUT", "http://users/", nil) }, nil},
		{"with a body", 2, func(t *testing.T) *http.Request { return request(t, "GET", "http://users/", plain()) }, nil},
		{"events", 2, with("Accept", "text/event-stream"), nil},
		{"an upgrade", 2, with("Upgrade", "websocket"), nil},
		{"with a key", 2, func(t *testing.T) *http.Request {
			req := get(t)
			return req.WithContext(client.ContextWithKey(req.Context(), "k"))
		}, nil},
		{"one instance", 1, get, nil},
		{"switched off", 2, get, []client.Option{client.WithoutHedging()}},
		{"one attempt in all", 2, get, []client.Option{client.WithAttempts(1)}},
		{"no budget", 2, get, []client.Option{client.WithRetry(retry.Policy{Budget: spent(t)})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, tt.instances, slow, func(s *stage) {
				for range 50 {
					req := get(s.T)
					req.Header.Set("X-Warm", "1")
					if _, _, err := s.do(req); err != nil {
						s.Fatal(err)
					}
				}
				if status, body, err := s.do(tt.req(s.T)); err != nil || status != 200 || body != "0" {
					s.Errorf("%d %q, %v", status, body, err)
				}
				if got := s.stats(); got.Hedges != 0 || got.Attempts != 51 {
					s.Errorf("%d hedges, %d attempts", got.Hedges, got.Attempts)
				}
			}, tt.opts...)
		})
	}
}

func spent(t *testing.T) *retry.Budget {
	t.Helper()
	b, err := retry.NewBudget(retry.BudgetOptions{Reserve: 1, PerSecond: -1, Ratio: 0.000001})
	if err != nil {
		t.Fatal(err)
	}
	b.Withdraw()
	return b
}

// A hedge that fails makes room for another one while the first try hangs.
func TestHedgeGoesOn(t *testing.T) {
	t.Parallel()
	calls := 0
	script := warmed(func(string, int, *http.Request) reply {
		switch calls++; calls {
		case 1:
			return reply{}
		case 2:
			return reply{status: 503}
		}
		return reply{status: 200, body: "third"}
	})
	play(t, 3, script, func(s *stage) {
		s.warm()
		if status, body, err := s.get(); err != nil || status != 200 || body != "third" {
			s.Errorf("%d %q, %v", status, body, err)
		}
		if got := s.stats(); got.Attempts != 53 || got.Hedges != 1 || got.HedgesWon != 1 || got.Retries["failed"] != 1 {
			s.Errorf("%+v", got)
		}
	})
}

// Two instances hang: the third one is asked as well, and so it is if the first try has
// failed in the meantime.
func TestSecondHedge(t *testing.T) {
	t.Parallel()
	for _, first := range []reply{{}, {after: 12 * time.Millisecond, err: io.ErrUnexpectedEOF}} {
		calls := 0
		script := warmed(func(string, int, *http.Request) reply {
			switch calls++; calls {
			case 1:
				return first
			case 2:
				return reply{}
			}
			return reply{after: time.Millisecond, status: 200, body: "third"}
		})
		play(t, 4, script, func(s *stage) {
			s.warm()
			start := time.Now()
			if status, body, err := s.get(); err != nil || status != 200 || body != "third" {
				s.Errorf("%d %q, %v", status, body, err)
			}
			if took := time.Since(start); took < 2*hedgeAt || took > 3*hedgeAt {
				s.Errorf("it took %v", took)
			}
			if got := s.stats(); got.Attempts != 53 || got.Hedges != 2 || got.HedgesWon != 1 {
				s.Errorf("%+v", got)
			}
		})
	}
}

// A budget that has nothing left at first only makes the hedge come later.
func TestHedgeWaitsForTheBudget(t *testing.T) {
	t.Parallel()
	budget, err := retry.NewBudget(retry.BudgetOptions{Ratio: 0.5, Reserve: 1, PerSecond: -1})
	if err != nil {
		t.Fatal(err)
	}
	play(t, 2, two(reply{}, reply{status: 200}), func(s *stage) {
		s.warm()
		budget.Withdraw()
		time.AfterFunc(50*time.Millisecond, func() { budget.Deposit(); budget.Deposit() })
		start := time.Now()
		status, _, err := s.get()
		if took := time.Since(start); err != nil || status != 200 || took < 50*time.Millisecond || took > 100*time.Millisecond {
			s.Errorf("%d, %v after %v", status, err, took)
		}
		if budget.Refused() != 2 {
			s.Errorf("the budget was asked in vain %d times, want 2: after once and three times the usual", budget.Refused())
		}
	}, client.WithRetry(retry.Policy{Budget: budget}))
}

// The winner's body is the caller's for as long as it likes.
func TestWinnersBodyStaysReadable(t *testing.T) {
	t.Parallel()
	for _, script := range []func(string, int, *http.Request) reply{
		two(reply{}, reply{status: 200}),
		two(reply{after: 12 * time.Millisecond, status: 200}, reply{}),
	} {
		play(t, 2, script, func(s *stage) {
			s.warm()
			resp, err := s.tr.RoundTrip(request(s.T, "GET", "http://users/", nil))
			if err != nil {
				s.Fatal(err)
			}
			defer resp.Body.Close()
			time.Sleep(time.Hour)
			if b, err := io.ReadAll(resp.Body); err != nil || len(b) != 1 {
				s.Errorf("%q, %v", b, err)
			}
		})
	}
}

func TestCallerLeavesARace(t *testing.T) {
	t.Parallel()
	play(t, 2, two(reply{}, reply{}), func(s *stage) {
		s.warm()
		ctx, cancel := context.WithTimeout(s.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
		if kindOf(err) != client.Timeout || time.Since(start) != 50*time.Millisecond {
			s.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// An instance that hangs, whose every call a hedge rescues, is found out all the same;
// one that only stalls for a moment stays. And the time after which hedges come does not
// run away because of it.
func TestLosers(t *testing.T) {
	t.Parallel()
	for name, hung := range map[string]bool{"hung": true, "stalls": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stalled time.Time
			script := warmed(func(host string, _ int, _ *http.Request) reply {
				if stalled.IsZero() {
					stalled = time.Now()
				}
				if host == "0" && (hung || time.Since(stalled) < 800*time.Millisecond) {
					return reply{}
				}
				return reply{after: 5 * time.Millisecond, status: 200}
			})
			generous := client.WithBudget(retry.BudgetOptions{Ratio: 1, Reserve: 1000})
			play(t, 3, script, func(s *stage) {
				s.warm()
				for range 150 {
					if status, _, err := s.get(); err != nil || status != 200 {
						s.Fatalf("%d, %v", status, err)
					}
				}
				got := s.stats()
				if ejected := got.Outlier.Ejections; hung != (ejected[0]+ejected[1]+ejected[2] > 0) {
					s.Errorf("ejections: %v", ejected)
				}
				if got.HedgeAfter > 2*usual {
					s.Errorf("hedges come after %v by now", got.HedgeAfter)
				}
			}, generous)
		})
	}
}

// Whatever two instances do, the caller gets one answer, or one error, and nothing is
// left over.
func TestRaceProperties(t *testing.T) {
	t.Parallel()
	drawn := rapid.Custom(func(t *rapid.T) reply {
		after := time.Duration(rapid.IntRange(0, 30).Draw(t, "after")) * time.Millisecond
		switch rapid.IntRange(0, 4).Draw(t, "reply") {
		case 0:
			return reply{} // hangs
		case 1:
			return reply{after: after, err: io.ErrUnexpectedEOF}
		case 2:
			return reply{after: after, status: 503}
		}
		return reply{after: after, status: 200}
	})
	rapid.Check(t, func(rt *rapid.T) {
		replies := map[string]reply{"0": drawn.Draw(rt, "0"), "1": drawn.Draw(rt, "1"), "2": drawn.Draw(rt, "2")}
		gone := time.Duration(rapid.IntRange(1, 300).Draw(rt, "gone")) * time.Millisecond
		var wrong []string
		play(t, 3, warmed(func(host string, _ int, _ *http.Request) reply {
			r := replies[host]
			r.body = host
			return r
		}), func(s *stage) {
			s.warm()
			ctx, cancel := context.WithTimeout(s.Context(), gone)
			defer cancel()
			start := time.Now()
			status, body, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
			took := time.Since(start)
			report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
			if took > gone {
				report("%v after the caller had gone", took-gone)
			}
			if err == nil && status != replies[body].status {
				report("status %d is not that of instance %s", status, body)
			}
			if err != nil && kindOf(err) == 0 && took < gone { // else the body came too late
				report("no *client.Error: %v", err)
			}
			good := 0
			for _, r := range replies {
				if r.status == 200 {
					good++
				}
			}
			// Two tries of 30 ms, a backoff or two of 75 ms in all, and the hedge's delay.
			if gone > 200*time.Millisecond && good > 0 && status != 200 {
				report("%d, %v after %v, although %d instances are well", status, err, took, good)
			}
			if n := s.total() - 50; n < 1 || n > client.DefaultAttempts {
				report("%d attempts", n)
			}
		})
		if len(wrong) > 0 {
			rt.Fatal(wrong)
		}
	})
}

// Many races at once: for the race detector.
func TestManyRaces(t *testing.T) {
	t.Parallel()
	script := warmed(func(_ string, n int, _ *http.Request) reply {
		return reply{after: time.Duration(n%4) * 7 * time.Millisecond, status: []int{200, 200, 503}[n%3]}
	})
	play(t, 5, script, func(s *stage) {
		s.warm()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				for range 5 {
					ctx, cancel := context.WithTimeout(s.Context(), time.Duration(1+i%40)*time.Millisecond)
					_, _, _ = s.do(request(s.T, "GET", fmt.Sprintf("http://users/%d", i), nil).WithContext(ctx))
					cancel()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if got := s.stats(); got.Requests != 1050 || got.Hedges == 0 || got.HedgesWon > got.Hedges {
			s.Errorf("%+v", got)
		}
	}, client.WithBudget(retry.BudgetOptions{Ratio: 1, Reserve: 1000}), client.WithPicker(balance.Random), client.WithoutBreaker())
}
