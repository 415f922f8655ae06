package concurrency_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keelson-go/keelson/concurrency"
)

// Three times what a server can do: with the limiter it does what it can, in time
// for those who wait; without, it works for people who have left.
func TestOverload(t *testing.T) {
	t.Parallel()
	queued := func(n int) server { return make(workers, n) }
	shared := func(n int) server { return &cpus{n: int64(n)} }
	for _, tt := range []struct {
		name     string
		server   func(n int) server // in whose bubble of time it is
		n        int
		d        time.Duration // a call's work
		times    float64       // the load, by what the server can do
		patience time.Duration
		within   time.Duration // nearly all that are served
	}{
		{"workers", queued, 8, 20 * ms, 3, 500 * ms, 250 * ms},
		{"just too much", queued, 8, 20 * ms, 1.2, 500 * ms, 300 * ms},
		{"far too much", queued, 8, 20 * ms, 10, 500 * ms, 250 * ms},
		{"many quick ones", queued, 20, 5 * ms, 3, 250 * ms, 200 * ms},
		{"impatient callers", queued, 20, 5 * ms, 3, 150 * ms, 150 * ms},
		{"one at a time", queued, 1, 10 * ms, 3, time.Second, 300 * ms},
		{"a few slow ones", queued, 4, 100 * ms, 3, time.Second, 700 * ms},
		{"many slow ones", queued, 100, 300 * ms, 3, 2 * time.Second, 1200 * ms},
		{"CPUs", shared, 4, 20 * ms, 3, 500 * ms, 450 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			capacity := float64(tt.n) / tt.d.Seconds()
			run := func(limited bool) (good, recovered score) {
				play(t, limited, func(s *sim) {
					server := tt.server(tt.n)
					call := func() { s.call("GET /", normal, tt.patience, server.work(tt.d)) }
					s.arrive(capacity/2, 5*time.Second, call)
					s.arrive(capacity*tt.times, 10*time.Second, call) // it takes a while to find the limit
					s.score()
					s.arrive(capacity*tt.times, 10*time.Second, call)
					good = s.score()
					if !limited {
						return
					}
					s.arrive(capacity/2, 5*time.Second, call)
					s.score()
					s.arrive(capacity/2, 5*time.Second, call)
					recovered = s.score()
				})
				return good, recovered
			}
			got, after := run(true)
			if share := float64(got.good) / (capacity * 10); share < 0.8 || got.p99 > tt.within {
				t.Errorf("%.0f %% of what it can do, p99 %v, want 80 %% within %v: %+v", 100*share, got.p99, tt.within, got)
			}
			if after.refused > 0 || after.late > 0 {
				t.Errorf("afterwards: %+v", after)
			}
			if tt.name != "workers" {
				return // once is enough
			}
			if got, _ := run(false); float64(got.good) > capacity*10*0.2 {
				t.Errorf("without a limiter: %+v", got)
			}
		})
	}
}

// The limit is found within seconds, from a cold start too.
func TestOverloadFromTheStart(t *testing.T) {
	t.Parallel()
	play(t, true, func(s *sim) {
		w := make(workers, 8)
		s.arrive(1200, 15*time.Second, func() { s.call("GET /", normal, 500*ms, w.work(20*ms)) })
		if got := s.score(); got.good < 15*400*8/10 {
			t.Errorf("%+v, want 80 %% of 6000", got)
		}
	})
}

// When there is too much, the important comes through.
func TestOverloadByPriority(t *testing.T) {
	t.Parallel()
	play(t, true, func(s *sim) {
		w := make(workers, 8)
		next := 0
		// Low and normal calls are each more than what can be done, critical half.
		mix := func() {
			p := []concurrency.Priority{low, normal, low, normal, low, normal, critical}[next%7]
			next++
			s.call("GET /", p, 500*ms, w.work(20*ms))
		}
		s.arrive(200, 5*time.Second, mix)
		s.arrive(1400, 10*time.Second, mix)
		s.score()
		s.arrive(1400, 20*time.Second, mix)
		got := s.score()
		if p := got.byPriority; p[2] < 0.95 || p[1] < 0.1 || p[0] > p[1] || got.good < 20*400*8/10 {
			t.Errorf("%+v, want nearly all critical calls, and fewer low than normal ones", got)
		}
	})
}

// Those who only hang about neither hide overload nor are counted as it.
func TestOverloadBesideLongPolls(t *testing.T) {
	t.Parallel()
	play(t, true, func(s *sim) {
		w := make(workers, 8)
		mix := func(rate, polls float64) func() {
			return func() {
				if s.rand.Float64() < polls/rate {
					s.call("GET /poll", normal, time.Hour, sleeps(time.Duration(s.rand.Int64N(int64(40*time.Second)))))
					return
				}
				s.call("GET /", normal, 500*ms, w.work(20*ms))
			}
		}
		s.arrive(200, time.Minute, mix(200, 20))
		if got := s.score(); got.refused > 0 {
			t.Errorf("before: %+v", got)
		}
		s.arrive(1200, 15*time.Second, mix(1200, 20))
		s.score()
		s.arrive(1200, 30*time.Second, mix(1200, 20))
		if got := s.score(); float64(got.good) < 0.7*400*30 || got.p50 > 300*ms {
			t.Errorf("in overload: %+v, want 70 %% of 12000", got)
		}
		s.arrive(200, 10*time.Second, mix(200, 20))
		s.score()
		s.arrive(200, 20*time.Second, mix(200, 20))
		if got := s.score(); got.refused > 0 {
			t.Errorf("afterwards: %+v", got)
		}
	})
}

// A call that was dropped for lack of room elsewhere speaks of overload, however
// quickly it failed; one nobody learns from does not.
func TestOverloadedElsewhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		end   func(concurrency.Token)
		lower bool
	}{{concurrency.Token.Overloaded, true}, {concurrency.Token.Ignore, false}, {concurrency.Token.Success, false}} {
		play(t, true, func(s *sim) {
			l := newLimiter(s.T, concurrency.Adaptive(concurrency.AdaptiveOptions{Max: 1000}))
			lowest := 1000
			s.arrive(5000, 2*time.Second, func() {
				token, err := l.TryAcquire(normal)
				if err != nil {
					return
				}
				lowest = min(lowest, l.Snapshot().Limit)
				s.all.Go(func() {
					sleeps(20 * ms)()
					tt.end(token)
				})
			})
			if tt.lower != (lowest < 1000) {
				t.Errorf("the lowest limit was %d, want it lower: %t", lowest, tt.lower)
			}
		})
	}
}

// The limit follows what the server can do.
func TestLimitFollowsCapacity(t *testing.T) {
	t.Parallel()
	play(t, true, func(s *sim) {
		small, large := make(workers, 4), make(workers, 16)
		s.arrive(100, 5*time.Second, func() { s.call("GET /", normal, time.Second, small.work(20*ms)) })
		for round, server := range []workers{small, large, small} {
			call := func() { s.call("GET /", normal, time.Second, server.work(20*ms)) }
			s.arrive(2400, 20*time.Second, call)
			s.score()
			s.arrive(2400, 10*time.Second, call)
			got, can := s.score(), float64(cap(server))*50*10
			if float64(got.good) < 0.8*can || got.p99 > 400*ms {
				t.Errorf("round %d: %+v, limit %d; want 80 %% of %.0f", round, got, s.limiter.Snapshot().Limit, can)
			}
		}
	})
}

// Without a proof that it helps, a limit does not stay for long.
func TestSlowForAnotherReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ before, after time.Duration }{
		{10 * ms, 300 * ms}, {10 * ms, 2 * time.Second}, {100 * ms, time.Second},
	} {
		t.Run(fmt.Sprintf("%v to %v", tt.before, tt.after), func(t *testing.T) {
			t.Parallel()
			play(t, true, func(s *sim) {
				s.arrive(300, 10*time.Second, func() { s.call("GET /", normal, time.Hour, sleeps(tt.before)) })
				after := func() { s.call("GET /", normal, time.Hour, sleeps(tt.after)) }
				s.arrive(300, time.Minute, after)
				// A trial or two: what is under way halves, and the rest ends.
				if got := s.score(); float64(got.refused) > 300*4*tt.after.Seconds() {
					t.Errorf("at first: %+v", got)
				}
				s.arrive(300, time.Minute, after)
				if got := s.score(); got.refused > 0 {
					t.Errorf("and then: %+v", got)
				}
			})
		})
	}
}

// When no call ends any more, whatever the limit was then is not kept: it was found
// for calls that do, and those of another kind may be well.
func TestLimitWhenCallsHang(t *testing.T) {
	t.Parallel()
	for name, overload := range map[string]time.Duration{"on trial": 300 * ms, "proved": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, true, func(s *sim) {
				w := make(workers, 8)
				s.arrive(200, 5*time.Second, func() { s.call("GET /", normal, time.Hour, w.work(20*ms)) })
				for end := time.Now().Add(overload); time.Now().Before(end) || s.limiter.Snapshot().Limit > 1000; {
					s.arrive(1200, 10*ms, func() { s.call("GET /", normal, time.Hour, w.work(20*ms)) })
				}
				hang := func() { s.call("GET /", normal, time.Hour, sleeps(10*time.Minute)) }
				s.arrive(200, 30*time.Second, hang)
				s.score()
				s.arrive(20, 10*time.Second, func() { s.call("GET /other", normal, time.Hour, sleeps(10*ms)) })
				sleeps(time.Second)()
				if got := s.score(); got.refused > 0 {
					t.Errorf("%+v, limit %+v", got, s.limiter.Snapshot())
				}
			})
		})
	}
}
