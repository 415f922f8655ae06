package concurrency_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/concurrency"
)

const ms = time.Millisecond

// sim plays calls against a server in virtual time.
type sim struct {
	*testing.T
	limiter *concurrency.Limiter // nil for none
	rand    *rand.Rand
	all     sync.WaitGroup

	mu      sync.Mutex
	good    [3][]time.Duration // latencies of the calls answered in time, by priority
	late    int                // answered when the caller had gone
	refused [3]int
}

// play runs a story against a limiter of the default kind, or none.
func play(t *testing.T, limited bool, story func(s *sim)) {
	synctest.Test(t, func(t *testing.T) {
		s := &sim{T: t, rand: rand.New(rand.NewPCG(1, 2))}
		if limited {
			s.limiter = newLimiter(t)
		}
		story(s)
		s.all.Wait()
		if n := s.limiter.Snapshot().InFlight; n != 0 {
			t.Errorf("%d in flight in the end", n)
		}
	})
}

// call makes one call: work is done for it, whether or not somebody still waits.
func (s *sim) call(kind string, p concurrency.Priority, patience time.Duration, work func()) {
	s.all.Go(func() {
		began := time.Now()
		token, err := s.limiter.TryAcquire(p)
		if err != nil {
			s.mu.Lock()
			s.refused[p+1]++
			s.mu.Unlock()
			return
		}
		work()
		took := time.Since(began)
		s.mu.Lock()
		defer s.mu.Unlock()
		if took > patience {
			s.late++
			token.Of(kind).Abandoned()
			return
		}
		s.good[p+1] = append(s.good[p+1], took)
		token.Of(kind).Success()
	})
}

// arrive makes calls at random moments, on average rate a second.
func (s *sim) arrive(rate float64, length time.Duration, call func()) {
	for end := time.Now().Add(length); ; {
		time.Sleep(time.Duration(s.rand.ExpFloat64() / rate * float64(time.Second)))
		if time.Now().After(end) {
			return
		}
		call()
	}
}

// score is what became of calls.
type score struct {
	good, late, refused int
	byPriority          [3]float64 // the share that was answered in time
	p50, p99            time.Duration
}

// score returns what was since the last one.
func (s *sim) score() score {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := score{late: s.late}
	var all []time.Duration
	for i, good := range s.good {
		all = append(all, good...)
		r.refused += s.refused[i]
		r.byPriority[i] = float64(len(good)) / float64(max(len(good)+s.refused[i], 1))
	}
	if r.good = len(all); r.good > 0 {
		slices.Sort(all)
		r.p50, r.p99 = all[r.good/2], all[r.good*99/100]
	}
	s.good, s.late, s.refused = [3][]time.Duration{}, 0, [3]int{}
	return r
}

// sleeps is work that others do not slow down.
func sleeps(d time.Duration) func() { return func() { time.Sleep(d) } }

// workers are a server that does so many calls at once, in the order they came.
type workers chan struct{}

func (w workers) work(d time.Duration) func() {
	return func() {
		w <- struct{}{}
		time.Sleep(d)
		<-w
	}
}

// cpus are a server that does all calls at once, each the slower for it.
type cpus struct {
	n    int64
	busy atomic.Int64
}

func (c *cpus) work(d time.Duration) func() {
	return func() {
		c.busy.Add(1)
		defer c.busy.Add(-1)
		const slice = 2 * ms
		for left := d; left > 0; left -= time.Duration(float64(slice) * min(1, float64(c.n)/float64(c.busy.Load()))) {
			time.Sleep(slice)
		}
	}
}

// server is workers or cpus.
type server interface{ work(d time.Duration) func() }
