package concurrency_test

import (
	"testing"
	"time"
)

// What is no overload: nobody is refused.
func TestHealthyIsNotShed(t *testing.T) {
	t.Parallel()
	// mixed has one call in n of the slow kind.
	mixed := func(s *sim, rate float64, length time.Duration, n int, slow func()) {
		i := 0
		s.arrive(rate, length, func() {
			if i++; i%n == 0 {
				slow()
				return
			}
			s.call("GET /fast", normal, time.Hour, sleeps(5*ms))
		})
	}
	burst := func(s *sim, n int, work func()) {
		for range n {
			s.call("GET /", normal, time.Hour, work)
		}
	}
	overload := func(s *sim, w workers) {
		s.arrive(200, 2*time.Second, func() { s.call("GET /", normal, time.Hour, w.work(20*ms)) })
		s.arrive(1200, 10*time.Second, func() { s.call("GET /", normal, time.Hour, w.work(20*ms)) })
		if got := s.score(); got.refused == 0 {
			s.Errorf("there was no overload: %+v", got)
		}
	}
	for name, story := range map[string]func(s *sim){
		"a slow route is called more and more": func(s *sim) {
			slow := func() { s.call("GET /slow", normal, time.Hour, sleeps(2*time.Second)) }
			for _, n := range []int{11, 4, 2, 1} {
				mixed(s, 500, 10*time.Second, n, slow)
			}
		},
		"slow and fast calls of one kind": func(s *sim) {
			slow := func() { s.call("GET /fast", normal, time.Hour, sleeps(2*time.Second)) }
			for _, n := range []int{20, 6, 3} {
				mixed(s, 500, 20*time.Second, n, slow)
			}
		},
		"long polls": func(s *sim) {
			mixed(s, 600, 80*time.Second, 6, func() {
				s.call("GET /poll", normal, time.Hour, sleeps(time.Duration(s.rand.Int64N(int64(30*time.Second)))))
			})
		},
		"bursts from a cold start": func(s *sim) {
			w := make(workers, 50)
			for range 5 {
				burst(s, 2000, w.work(10*ms))
				sleeps(2 * time.Second)()
			}
		},
		"a slow cold start": func(s *sim) {
			s.arrive(300, 5*time.Second, func() { s.call("GET /", normal, time.Hour, sleeps(2*time.Second)) })
			s.arrive(300, 20*time.Second, func() { s.call("GET /", normal, time.Hour, sleeps(10*ms)) })
		},
		"nearly all it can do": func(s *sim) {
			w := make(workers, 8)
			s.arrive(370, time.Minute, func() { s.call("GET /", normal, time.Hour, w.work(20*ms)) })
		},
		"a burst after overload and a rest": func(s *sim) {
			w := make(workers, 8)
			overload(s, w)
			sleeps(30 * time.Second)()
			burst(s, 500, w.work(20*ms))
		},
		"a burst after overload and little to do": func(s *sim) {
			w := make(workers, 8)
			overload(s, w)
			s.arrive(50, 8*time.Second, func() { s.call("GET /", normal, time.Hour, w.work(20*ms)) })
			s.score()
			burst(s, 500, w.work(20*ms))
		},
		"pauses": func(s *sim) {
			s.arrive(1000, time.Minute, func() {
				s.call("GET /", normal, time.Hour, func() {
					if in := time.Duration(time.Now().UnixNano()) % (2 * time.Second); in < 300*ms {
						sleeps(300*ms - in)()
					}
					sleeps(10 * ms)()
				})
			})
		},
		"many clients that wait for their answers": func(s *sim) {
			w := make(workers, 8)
			s.arrive(100, 5*time.Second, func() { s.call("GET /", normal, time.Hour, w.work(5*ms)) })
			for range 100 { // as a load test does it
				s.all.Go(func() {
					for range 300 {
						token, err := s.limiter.TryAcquire(normal)
						if err != nil {
							s.Error(err)
							return
						}
						w.work(5 * ms)()
						token.Of("GET /").Success()
					}
				})
			}
		},
		"it grows slower over an hour": func(s *sim) {
			for i := range 60 {
				s.arrive(50, time.Minute, func() { s.call("GET /", normal, time.Hour, sleeps(time.Duration(10+10*i)*ms)) })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, true, func(s *sim) {
				story(s)
				if got := s.score(); got.refused > 0 || got.late > 0 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}
