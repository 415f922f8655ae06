package client_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/client"
)

// The fleets here live in virtual time, where a machine that is busy changes nothing:
// 20,000 calls that take 20 s are over in a moment, and what takes 2 ms takes 2 ms.
// They run alone, because package balance has one clock for all of the process: that of
// another bubble, or real time, would be seen in between.

// sim is a service in memory: its instances are called instead of a network.
type sim struct {
	instances map[string]instance // by host
	served    atomic.Int64
}

// instance answers one request, with a status or an error.
type instance func(req *http.Request) (status int, err error)

func (s *sim) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	s.served.Add(1)
	if req.Body != nil {
		_ = req.Body.Close()
	}
	status, err := s.instances[req.URL.Host](req)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok")), ContentLength: 2, Request: req,
	}, nil
}

// sound answers after least to three times that.
func sound(least time.Duration) instance {
	return func(req *http.Request) (int, error) {
		t := time.NewTimer(least + rand.N(2*least))
		defer t.Stop()
		select {
		case <-t.C:
			return http.StatusOK, nil
		case <-req.Context().Done():
			return 0, req.Context().Err()
		}
	}
}

// halfBroken is sound half of the time, and else fails at once.
func halfBroken(req *http.Request) (int, error) {
	if rand.N(2) == 0 {
		return http.StatusInternalServerError, nil
	}
	return sound(time.Millisecond)(req)
}

// frozen never answers.
func frozen(req *http.Request) (int, error) {
	<-req.Context().Done()
	return 0, req.Context().Err()
}

// down answers 503 at once.
func down(*http.Request) (int, error) { return http.StatusServiceUnavailable, nil }

// gone refuses connections.
func gone(*http.Request) (int, error) {
	return 0, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

// newSim returns a transport to a service whose instances do as told.
func newSim(t *testing.T, instances []instance, opts ...client.Option) (*client.Transport, *sim) {
	t.Helper()
	s := &sim{instances: map[string]instance{}}
	var at []string
	for i, do := range instances {
		host := "127.0.0." + string(rune('1'+i)) + ":80"
		s.instances[host] = do
		at = append(at, "http://"+host)
	}
	f, _ := users(at...)
	tr, err := client.New(f, append(opts, client.WithBase(s))...)
	if err != nil {
		t.Fatal(err)
	}
	return tr, s
}

// result is what became of one call.
type result struct {
	due, took time.Duration // due since the flood began
	ok        bool
	status    int
	err       error
}

// flood makes a call each gap for so long, whatever becomes of them. Who calls waits for
// patience at most. edit may change the request of call i.
func flood(t *testing.T, rt http.RoundTripper, long, gap, patience time.Duration, edit func(i int, req *http.Request)) []result {
	t.Helper()
	results := make([]result, long/gap)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range results {
		time.Sleep(time.Until(began.Add(time.Duration(i) * gap)))
		wg.Go(func() {
			due := time.Since(began)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/7", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if edit != nil {
				edit(i, req)
			}
			r := result{due: due}
			resp, err := rt.RoundTrip(req)
			if r.err = err; err == nil {
				_, r.err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				r.status = resp.StatusCode
				r.ok = r.err == nil && r.status == http.StatusOK
			}
			r.took = time.Since(began) - due
			results[i] = r
		})
	}
	wg.Wait()
	return results
}

func failed(results []result) (n int) {
	for _, r := range results {
		if !r.ok {
			n++
		}
	}
	return n
}

// since returns the calls that were due from that time on.
func since(results []result, from time.Duration) []result {
	i := slices.IndexFunc(results, func(r result) bool { return r.due >= from })
	return results[i:]
}

// lastFailure returns when the last call that failed was due; 0 if none did.
func lastFailure(results []result) time.Duration {
	for _, r := range slices.Backward(results) {
		if !r.ok {
			return r.due
		}
	}
	return 0
}

// slowest returns what the given share of the calls took at most.
func slowest(results []result, share float64) time.Duration {
	took := make([]time.Duration, len(results))
	for i, r := range results {
		took[i] = r.took
	}
	slices.Sort(took)
	return took[int(share*float64(len(took)-1))]
}

// explain logs the first failures, for who has to find out why a test failed.
func explain(t *testing.T, tr *client.Transport, results []result) {
	t.Helper()
	shown := 0
	for _, r := range results {
		if !r.ok && shown < 20 {
			t.Logf("call at %v: %d %v after %v", r.due, r.status, r.err, r.took)
			shown++
		}
	}
	for service, stats := range tr.Services() {
		t.Logf("%s: %+v", service, stats)
	}
}

// Of five instances one fails half of its calls, one hangs and one is ten times slower
// than the other two: callers notice next to nothing, and the instances have hardly more to
// do. Chance decides which instance gets which call, so it is looked at three times.
func TestSickFleet(t *testing.T) {
	failures, calls, served := 0, 0, int64(0)
	for range 3 {
		synctest.Test(t, func(t *testing.T) {
			ok := sound(time.Millisecond)
			tr, s := newSim(t, []instance{halfBroken, frozen, sound(10 * time.Millisecond), ok, ok})
			results := flood(t, tr, 20*time.Second, time.Millisecond, 2*time.Second, nil)
			failures += failed(results)
			calls += len(results)
			served += s.served.Load()
			// 30 ms is what the slow instance takes at most, where a sound one takes 3 ms.
			if p99 := slowest(results, 0.99); p99 > 30*time.Millisecond {
				t.Errorf("1 %% of the calls took more than %v", p99)
			}
			if n := failed(since(results, 5*time.Second)); n > 10 {
				t.Errorf("%d of 15,000 calls failed after the first 5 s", n)
			}
			if t.Failed() {
				explain(t, tr, results)
			}
		})
	}
	if failures*1000 > calls {
		t.Errorf("%d of %d calls failed, more than one in a thousand", failures, calls)
	}
	if extra := float64(served)/float64(calls) - 1; extra > 0.1 {
		t.Errorf("the instances had %.1f %% more to do, want 10 %% at most", 100*extra)
	}
}

// A frozen instance beside a sound one must not hurt for longer than it takes to notice.
func TestOneOfTwoFreezes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &switchable{does: sound(time.Millisecond)}
		tr, _ := newSim(t, []instance{one.answer, sound(time.Millisecond)})
		time.AfterFunc(5*time.Second, func() { one.to(frozen) })
		results := flood(t, tr, 25*time.Second, 2*time.Millisecond, time.Second, nil)
		if n := failed(results); n > len(results)/500 {
			t.Errorf("%d of %d calls failed, want one in 500 at most", n, len(results))
			explain(t, tr, results)
		}
	})
}

// switchable is an instance that changes.
type switchable struct {
	mu   sync.Mutex
	does instance
}

func (s *switchable) to(does instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.does = does
}

func (s *switchable) answer(req *http.Request) (int, error) {
	s.mu.Lock()
	does := s.does
	s.mu.Unlock()
	return does(req)
}

// queue is an instance that serves three calls at a time, 10 ms each, in the order they
// came, whether their callers still wait or not.
type queue struct {
	places chan struct{}

	mu   sync.Mutex
	open chan struct{} // closed unless it is frozen
}

func newQueue() *queue {
	q := &queue{places: make(chan struct{}, 3), open: make(chan struct{})}
	q.thaw()
	return q
}

func (q *queue) freeze() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = make(chan struct{})
}

func (q *queue) thaw() { close(q.gate()) }

func (q *queue) gate() chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open
}

func (q *queue) answer(req *http.Request) (int, error) {
	done := make(chan struct{})
	go func() {
		q.places <- struct{}{}
		<-q.gate()
		time.Sleep(10 * time.Millisecond)
		<-q.places
		close(done)
	}()
	select {
	case <-done:
		return http.StatusOK, nil
	case <-req.Context().Done():
		return 0, req.Context().Err()
	}
}

// A whole service goes away for three seconds and comes back. Callers must not make it
// worse with their retries, nor keep it from recovering, nor notice for long afterwards.
//
// A frozen one comes back with all that has queued up. It can serve 900 calls a second,
// and gets 400: if all were tried three times, it would get more than it can ever serve.
func TestStorm(t *testing.T) {
	const (
		gap     = 2500 * time.Microsecond
		calm    = 3 * time.Second
		back    = calm + 3*time.Second
		total   = back + 10*time.Second
		notices = 3 * time.Second
	)
	for _, kind := range []string{"down", "refusing", "frozen"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				queues := []*queue{newQueue(), newQueue(), newQueue()}
				var switches []*switchable
				var instances []instance
				for _, q := range queues {
					s := &switchable{does: q.answer}
					switches, instances = append(switches, s), append(instances, s.answer)
				}
				tr, s := newSim(t, instances, client.WithAttemptTimeout(300*time.Millisecond))
				var before, during int64
				time.AfterFunc(calm, func() {
					before = s.served.Load()
					for i := range queues {
						switch kind {
						case "down":
							switches[i].to(down)
						case "refusing":
							switches[i].to(gone)
						default:
							queues[i].freeze()
						}
					}
				})
				time.AfterFunc(back, func() {
					during = s.served.Load() - before
					for i, q := range queues {
						if kind == "frozen" {
							q.thaw()
						}
						switches[i].to(q.answer)
					}
				})
				results := flood(t, tr, total, gap, time.Second, nil)
				attempts := float64(during) / float64((back-calm)/gap)
				noticed := lastFailure(results) - back
				// The budget alone would keep it at 1.2; the breaker keeps most calls away.
				if attempts > 0.5 {
					t.Errorf("%.2f attempts a call during the outage, want half of one at most", attempts)
				}
				if noticed > notices {
					t.Errorf("a call failed %v after the service was back", noticed)
				}
				if n := failed(results[:calm/gap-400]); n > 0 {
					t.Errorf("%d calls failed before the outage", n)
				}
				if t.Failed() {
					explain(t, tr, since(results, back))
				}
			})
		})
	}
}

// Instances restart one after the other, as in each deployment: no call may fail, not even
// those that must not be repeated, since nothing was sent.
func TestRollingRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var instances []instance
		for i := range 4 {
			s := &switchable{does: sound(time.Millisecond)}
			instances = append(instances, s.answer)
			begin := time.Duration(1+3*i) * time.Second
			time.AfterFunc(begin, func() { s.to(gone) })
			time.AfterFunc(begin+2*time.Second, func() { s.to(sound(time.Millisecond)) })
		}
		tr, _ := newSim(t, instances)
		results := flood(t, tr, 15*time.Second, time.Millisecond, 2*time.Second, func(i int, req *http.Request) {
			if i%2 == 0 {
				req.Method = http.MethodPost
				req.Body = io.NopCloser(strings.NewReader("an order"))
			}
		})
		if n := failed(results); n > 0 {
			t.Errorf("%d of %d calls failed", n, len(results))
			explain(t, tr, results)
		}
	})
}

// Somebody sends requests that make every instance fail. The others must not pay for it.
func TestPoisonousCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sick := func(req *http.Request) (int, error) {
			if req.Header.Get("Poison") != "" {
				return http.StatusInternalServerError, nil
			}
			return sound(time.Millisecond)(req)
		}
		tr, s := newSim(t, []instance{sick, sick, sick})
		results := flood(t, tr, 20*time.Second, time.Millisecond, 2*time.Second, func(i int, req *http.Request) {
			if i%5 == 0 {
				req.Header.Set("Poison", "1")
			}
		})
		var others []result
		for i, r := range results {
			if i%5 != 0 {
				others = append(others, r)
			}
		}
		if n := failed(others); n > 0 {
			t.Errorf("%d of %d calls of others failed", n, len(others))
			explain(t, tr, others)
		}
		if extra := float64(s.served.Load())/float64(len(results)) - 1; extra > 0.12 {
			t.Errorf("the instances had %.1f %% more to do, want a tenth", 100*extra)
		}
	})
}
