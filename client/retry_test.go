package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/retry"
)

// first makes the first instance reply so, the first few times, and every other one
// answer.
func first(r reply, times int) func(string, int, *http.Request) reply {
	return func(host string, n int, req *http.Request) reply {
		if host == "0" && n <= times {
			return r
		}
		return fine(host, n, req)
	}
}

func all(r reply) func(string, int, *http.Request) reply {
	return func(string, int, *http.Request) reply { return r }
}

func TestAnswersThatAreRetried(t *testing.T) {
	t.Parallel()
	soon := http.Header{"Retry-After": {"1"}}
	keyed := http.Header{"Idempotency-Key": {"1"}}
	grpc := http.Header{"Content-Type": {"application/grpc"}, "Idempotency-Key": {"1"}}
	for _, tt := range []struct {
		name   string
		reply  reply
		method string
		header http.Header
		want   string // the body: "1" if the other instance was asked
		reason string
	}{
		{"500", reply{status: 500}, "GET", nil, "1", "failed"},
		{"502", reply{status: 502}, "GET", nil, "1", "failed"},
		{"503", reply{status: 503}, "GET", nil, "1", "failed"},
		{"504", reply{status: 504}, "GET", nil, "1", "failed"},
		{"429", reply{status: 429}, "GET", nil, "1", "throttled"},
		{"503 with Retry-After", reply{status: 503, header: soon}, "GET", nil, "1", "overloaded"},
		{"refused", reply{err: refusal()}, "POST", nil, "1", "refused"},
		{"broken", reply{err: io.ErrUnexpectedEOF}, "GET", nil, "1", "broken"},
		{"put", reply{status: 503}, "PUT", nil, "1", "failed"},
		{"delete", reply{status: 503}, "DELETE", nil, "1", "failed"},
		{"post with a key", reply{status: 503}, "POST", keyed, "1", "failed"},
		{"grpc unavailable with a key", reply{status: 200, header: http.Header{"Grpc-Status": {"14"}}}, "POST", grpc, "1", "failed"},
		{"grpc exhausted with a key", reply{status: 200, header: http.Header{"Grpc-Status": {"8"}}}, "POST", grpc, "1", "overloaded"},
		{"grpc exhausted for good", reply{status: 200, header: http.Header{"Grpc-Status": {"8"}, "Grpc-Retry-Pushback-Ms": {"-1"}}}, "POST", grpc, "", ""},
		{"post without", reply{status: 503, body: "sorry"}, "POST", nil, "sorry", ""},
		{"patch without", reply{status: 503, body: "sorry"}, "PATCH", nil, "sorry", ""},
		{"400", reply{status: 400, body: "no"}, "GET", nil, "no", ""},
		{"404", reply{status: 404, body: "no"}, "GET", nil, "no", ""},
		{"501", reply{status: 501, body: "no"}, "GET", nil, "no", ""},
		{"507", reply{status: 507, body: "no"}, "GET", nil, "no", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, 2, first(tt.reply, 1), func(s *stage) {
				req := request(s.T, tt.method, "http://users/", nil)
				if tt.header != nil {
					req.Header = tt.header
				}
				status, body, err := s.do(req)
				if err != nil || body != tt.want {
					s.Errorf("%d %q, %v; want %q", status, body, err, tt.want)
				}
				want := map[string]uint64{}
				if tt.reason != "" {
					want[tt.reason] = 1
				}
				if diff := cmp.Diff(want, s.stats().Retries); diff != "" {
					s.Errorf("retries (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What was tried in vain is not hidden: the last answer comes as it is.
func TestLastAnswerIsReturned(t *testing.T) {
	t.Parallel()
	script := func(host string, n int, _ *http.Request) reply {
		return reply{status: 503, body: "no. " + host, header: http.Header{"X-From": {host}}}
	}
	play(t, 5, script, func(s *stage) {
		resp, err := s.tr.RoundTrip(request(s.T, "GET", "http://users/", nil))
		if err != nil {
			s.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 503 || string(body) != "no. "+resp.Header.Get("X-From") {
			s.Errorf("%d %q, %v", resp.StatusCode, body, err)
		}
		for host, n := range s.calls {
			if n != 1 {
				s.Errorf("instance %s was asked %d times, although others were not asked at all", host, n)
			}
		}
		if s.total() != client.DefaultAttempts {
			s.Errorf("%d attempts", s.total())
		}
	})
}

func TestOneInstanceIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		reply   reply
		timeout time.Duration
		status  int
		waited  time.Duration // at least
		calls   int
	}{
		{"after a backoff", reply{status: 503}, 0, 200, 0, 2},
		{"refused too", reply{err: refusal()}, 0, 200, 0, 2},
		{"after Retry-After", reply{status: 503, header: http.Header{"Retry-After": {"1"}}}, 0, 200, time.Second, 2},
		{"not if that is too long", reply{status: 503, header: http.Header{"Retry-After": {"3"}}}, 0, 503, 0, 1},
		{"nor if it is longer than the caller waits", reply{status: 503, header: http.Header{"Retry-After": {"1"}}}, 900 * time.Millisecond, 503, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			play(t, 1, first(tt.reply, 1), func(s *stage) {
				ctx := s.Context()
				if tt.timeout > 0 {
					within, cancel := context.WithTimeout(ctx, tt.timeout)
					defer cancel()
					ctx = within
				}
				start := time.Now()
				status, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
				took := time.Since(start)
				if err != nil || status != tt.status || s.total() != tt.calls {
					s.Errorf("%d, %v after %d calls; want %d after %d", status, err, s.total(), tt.status, tt.calls)
				}
				if took < tt.waited || took > tt.waited+retry.DefaultBase {
					s.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	tight := client.WithBudget(retry.BudgetOptions{Reserve: 1, PerSecond: -1})
	play(t, 3, all(reply{status: 503, body: "sorry"}), func(s *stage) {
		for range 2 {
			if status, body, err := s.get(); err != nil || status != 503 || body != "sorry" {
				s.Errorf("%d %q, %v", status, body, err)
			}
		}
		if got := s.stats(); got.Attempts != 3 || got.BudgetRefused != 2 {
			s.Errorf("%d attempts, %d refused by the budget; want 3 and 2", got.Attempts, got.BudgetRefused)
		}
	}, tight)
	cut := &http.MaxBytesError{Limit: 7} // any error that can be told again
	play(t, 3, all(reply{err: cut}), func(s *stage) {
		_, _, err := s.get()
		if !errors.Is(err, retry.ErrBudget) || !errors.Is(err, cut) || kindOf(err) != client.Broken {
			s.Errorf("%v is not both: the budget and the cause", err)
		}
		if !strings.Contains(err.Error(), "attempt 2") {
			s.Errorf("%v", err)
		}
	}, tight)
	// Nothing was sent, so it costs nothing to go elsewhere.
	play(t, 2, func(host string, n int, req *http.Request) reply {
		if host == "0" {
			return reply{err: refusal()}
		}
		return fine(host, n, req)
	}, func(s *stage) {
		for range 10 {
			if _, _, err := s.get(); err != nil {
				s.Error(err)
			}
		}
	}, tight, client.WithoutOutlier())
	// One that is shared holds for all.
	shared, err := retry.NewBudget(retry.BudgetOptions{Reserve: 1, PerSecond: -1})
	if err != nil {
		t.Fatal(err)
	}
	shared.Withdraw()
	play(t, 3, all(reply{status: 503}), func(s *stage) {
		if _, _, err := s.get(); err != nil || s.total() != 1 {
			s.Errorf("%v, %d calls", err, s.total())
		}
	}, client.WithRetry(retry.Policy{Budget: shared}))
}

// The body goes along each time, whole.
func TestBodyIsSentAgain(t *testing.T) {
	t.Parallel()
	var got []string
	script := func(host string, n int, req *http.Request) reply {
		got = append(got, req.Header.Get("X-Body"))
		if len(got) < 3 {
			return reply{status: 503}
		}
		return fine(host, n, req)
	}
	play(t, 3, script, func(s *stage) {
		base := s.world
		tr := newTransport(s.T, fleetOf(s.eps), client.WithBase(carrier(func(req *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(req.Body)
			if err != nil {
				s.Error(err)
			}
			_ = req.Body.Close()
			req.Body = nil
			req.Header.Set("X-Body", string(b))
			return base.RoundTrip(req)
		})))
		req := request(s.T, "PUT", "http://users/", bytes.NewReader([]byte("whole")))
		resp, err := tr.RoundTrip(req)
		if err != nil {
			s.Fatal(err)
		}
		_ = resp.Body.Close()
		if diff := cmp.Diff([]string{"whole", "whole", "whole"}, got); diff != "" || resp.StatusCode != 200 {
			s.Errorf("%d, bodies (-want +got):\n%s", resp.StatusCode, diff)
		}
	})
	// A body that was read and can't be had again: the answer is handed on.
	play(t, 3, all(reply{status: 503, body: "sorry"}), func(s *stage) {
		body := &once{Reader: strings.NewReader("x")}
		status, text, err := s.do(request(s.T, "PUT", "http://users/", body))
		if err != nil || status != 503 || text != "sorry" || s.total() != 1 || body.closed.Load() != 1 {
			s.Errorf("%d %q, %v, %d calls, closed %d times", status, text, err, s.total(), body.closed.Load())
		}
		if got := s.stats(); got.BudgetLeft < 10 {
			s.Errorf("%v left in the budget: a retry that can't be made was paid for", got.BudgetLeft)
		}
	})
}

func TestCancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	play(t, 1, all(reply{status: 503, header: http.Header{"Retry-After": {"1"}}}), func(s *stage) {
		ctx, cancel := context.WithCancelCause(s.Context())
		time.AfterFunc(300*time.Millisecond, func() { cancel(nil) })
		start := time.Now()
		_, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
		if kindOf(err) != client.Canceled || !errors.Is(err, context.Canceled) || time.Since(start) != 300*time.Millisecond {
			s.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// Who has gone by the time a try fails gets what there is; no retry is paid for.
func TestCancelledBeforeTheRetry(t *testing.T) {
	t.Parallel()
	var leave context.CancelFunc
	script := func(string, int, *http.Request) reply {
		time.AfterFunc(time.Millisecond, leave)
		return reply{status: 503}
	}
	told := client.WithRetry(retry.Policy{OnRetry: func(e retry.Event) { t.Errorf("told of a retry: %+v", e) }})
	play(t, 2, script, func(s *stage) {
		ctx, cancel := context.WithCancel(s.Context())
		defer cancel()
		leave = cancel
		tr := newTransport(s.T, fleetOf(s.eps), told, client.WithBase(carrier(func(req *http.Request) (*http.Response, error) {
			resp, err := s.world.RoundTrip(req)
			<-ctx.Done() // the answer was on its way
			return resp, err
		})))
		resp, err := tr.RoundTrip(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
		if err != nil || resp.StatusCode != 503 {
			s.Fatal(resp, err)
		}
		_ = resp.Body.Close()
		for _, got := range tr.Services() {
			if got.Attempts != 1 || len(got.Retries) != 0 || got.BudgetLeft < 10 {
				s.Errorf("%+v", got)
			}
		}
	})
}

// Nor is a try made for whom there is next to no time left.
func TestNoTimeForARetry(t *testing.T) {
	t.Parallel()
	play(t, 2, all(reply{after: 99500 * time.Microsecond, err: refusal()}), func(s *stage) {
		ctx, cancel := context.WithTimeout(s.Context(), 100*time.Millisecond)
		defer cancel()
		_, _, err := s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
		if kindOf(err) != client.Refused || s.total() != 1 {
			s.Errorf("%v after %d calls", err, s.total())
		}
	})
}

// A dial that took too long has sent nothing: even a POST goes elsewhere.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	_, slow := (&net.Dialer{Timeout: 1}).Dial("tcp", "127.0.0.1:9")
	if !errors.Is(slow, context.DeadlineExceeded) {
		t.Fatal(slow)
	}
	play(t, 2, first(reply{after: client.DialTimeout, err: slow}, 1), func(s *stage) {
		status, body, err := s.do(request(s.T, "POST", "http://users/", strings.NewReader("x")))
		if err != nil || status != 200 || body != "1" || s.stats().Retries["refused"] != 1 {
			s.Errorf("%d %q, %v", status, body, err)
		}
	})
	// If it was the caller's time that ended, that is what is told.
	play(t, 2, all(reply{after: time.Second, err: slow}), func(s *stage) {
		ctx, cancel := context.WithTimeout(s.Context(), time.Second)
		defer cancel()
		_, _, err := s.do(request(s.T, "POST", "http://users/", strings.NewReader("x")).WithContext(ctx))
		if kindOf(err) != client.Timeout || s.total() != 1 {
			s.Errorf("%v after %d calls", err, s.total())
		}
	})
}

func TestAttemptTimeout(t *testing.T) {
	t.Parallel()
	play(t, 2, first(reply{}, 1), func(s *stage) {
		start := time.Now()
		status, body, err := s.get()
		if took := time.Since(start); err != nil || status != 200 || body != "1" || took < time.Second || took > time.Second+retry.DefaultBase {
			s.Errorf("%d %q, %v after %v", status, body, err, took)
		}
	}, client.WithAttemptTimeout(time.Second))
	// All of it hangs.
	play(t, 3, all(reply{}), func(s *stage) {
		_, _, err := s.get()
		if kindOf(err) != client.Timeout || !errors.Is(err, context.DeadlineExceeded) || s.total() != 3 {
			s.Errorf("%v after %d calls", err, s.total())
		}
		start := time.Now()
		_, _, err = s.do(request(s.T, "POST", "http://users/", nil))
		if kindOf(err) != client.Timeout || s.total() != 4 || time.Since(start) != time.Second {
			s.Errorf("post: %v after %v and %d calls", err, time.Since(start), s.total()-3)
		}
	}, client.WithAttemptTimeout(time.Second))
	// The total bounds tries and waits together.
	play(t, 3, all(reply{}), func(s *stage) {
		start := time.Now()
		_, _, err := s.get()
		if took := time.Since(start); kindOf(err) != client.Timeout || took < 1400*time.Millisecond || took > 1500*time.Millisecond || s.total() != 2 {
			s.Errorf("%v after %v and %d calls", err, took, s.total())
		}
	}, client.WithRetry(retry.Policy{AttemptTimeout: time.Second, TotalTimeout: 1500 * time.Millisecond}))
	// The body may take longer than the head.
	play(t, 1, all(reply{status: 200, body: "slow"}), func(s *stage) {
		resp, err := s.tr.RoundTrip(request(s.T, "GET", "http://users/", nil))
		if err != nil {
			s.Fatal(err)
		}
		defer resp.Body.Close()
		<-time.After(time.Minute)
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "slow" {
			s.Errorf("%q, %v", b, err)
		}
	}, client.WithAttemptTimeout(time.Second))
}

func TestRetryHooks(t *testing.T) {
	t.Parallel()
	var events []string
	policy := retry.Policy{
		RetryIf: func(err error) bool {
			e, ok := errors.AsType[*client.Error](err)
			return ok && e.Kind == client.Answered && e.Status == 503
		},
		OnRetry: func(e retry.Event) { events = append(events, e.Err.Error()) },
	}
	play(t, 3, first(reply{status: 503}, 1), func(s *stage) {
		if status, _, err := s.get(); err != nil || status != 200 {
			s.Errorf("%d, %v", status, err)
		}
	}, client.WithRetry(policy))
	play(t, 3, all(reply{status: 500}), func(s *stage) {
		if status, _, err := s.get(); err != nil || status != 500 || s.total() != 1 {
			s.Errorf("%d, %v after %d calls", status, err, s.total())
		}
	}, client.WithRetry(policy))
	want := []string{"client: call users (attempt 1, instance users-0): answered 503 Service Unavailable"}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// A discarded answer whose body stalls holds nothing up.
func TestStalledBodyIsDiscarded(t *testing.T) {
	t.Parallel()
	play(t, 2, first(reply{status: 503}, 1), func(s *stage) {
		r, w := io.Pipe()
		defer w.Close()
		base := s.world
		tr := newTransport(s.T, fleetOf(s.eps), client.WithBase(carrier(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil && resp.StatusCode == 503 {
				_ = resp.Body.Close()
				resp.ContentLength, resp.Body = -1, r
			}
			return resp, err
		})))
		start := time.Now()
		resp, err := tr.RoundTrip(request(s.T, "GET", "http://users/", nil))
		if err != nil || resp.StatusCode != 200 || time.Since(start) > 50*time.Millisecond {
			s.Fatalf("%v after %v", err, time.Since(start))
		}
		_ = resp.Body.Close()
		if _, err := w.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			s.Errorf("the discarded body is not closed: %v", err)
		}
	})
}

// An instance that was taken out of rotation is still better than one that has just
// refused.
func TestLastResort(t *testing.T) {
	t.Parallel()
	script := func(host string, n int, req *http.Request) reply {
		if host == "0" && n <= 5 || host == "1" && n > 5 {
			return reply{err: &http.MaxBytesError{}}
		}
		if host == "1" && n == 5 {
			return reply{err: syscall.ECONNREFUSED}
		}
		return fine(host, n, req)
	}
	play(t, 2, script, func(s *stage) {
		for range 4 {
			if _, body, err := s.get(); err != nil || body != "1" {
				s.Errorf("%q, %v", body, err)
			}
		}
		if _, _, err := s.do(request(s.T, "POST", "http://users/", nil)); kindOf(err) != client.Broken {
			s.Error(err)
		}
		if got := s.stats(); got.Ejected != 1 || got.Endpoints != 2 || len(got.Outlier.Out) != 1 {
			s.Fatalf("%+v", got)
		}
		if _, body, err := s.do(request(s.T, "POST", "http://users/", nil)); err != nil || body != "0" {
			s.Errorf("%q, %v", body, err)
		}
	})
}
