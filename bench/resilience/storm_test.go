package resilience

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

const (
	calm   = 2 * time.Second // before
	outage = 3 * time.Second
	after  = 10 * time.Second
)

// BenchmarkStorm takes a whole service away for 3 s and brings it back, under 400
// calls a second.
//
//   - down: its instances answer 503 at once.
//   - frozen: they take calls and serve none; all that waited is served afterwards,
//     first come, first served, whether its caller is still there or not. They can
//     serve 900 calls a second. Callers who all try three times send 1,200.
//
// attempts/call is what reached the instances from the outage's begin to the end of the
// run, for each call made then; during-outage the same during it alone. recovered-s
// is how long after the service was back callers still noticed: see recovered. One
// iteration is the whole of it; run it with -benchtime 1x.
func BenchmarkStorm(b *testing.B) {
	for _, kind := range []string{"down", "frozen"} {
		for _, p := range peers {
			b.Run(kind+"/"+p.name, func(b *testing.B) {
				for b.Loop() {
					storm(b, p, kind == "frozen")
				}
			})
		}
	}
}

func storm(b *testing.B, p peer, freeze bool) {
	const rate = 400
	const back = calm + outage
	queues := make([]*queue, 3)
	ups := make([]*upstream, len(queues))
	for i := range ups {
		queues[i] = newQueue(3) // of 10 ms each: 300 calls a second
		ups[i] = newUpstream(b, queues[i].serve)
		b.Cleanup(queues[i].close) // before its server, which waits for those in the queue
	}
	var begun, during int64
	stop := func() {
		begun = served(ups)
		for i, q := range queues {
			if freeze {
				q.freeze()
			} else {
				ups[i].does(unavailable)
			}
		}
	}
	resume := func() {
		during = served(ups) - begun
		for i, q := range queues {
			if freeze {
				q.thaw()
			} else {
				ups[i].does(q.serve)
			}
		}
	}
	rt := p.dial(b, addresses(ups))
	var timers sync.WaitGroup
	timers.Add(2)
	time.AfterFunc(calm, func() { defer timers.Done(); stop() })
	time.AfterFunc(back, func() { defer timers.Done(); resume() })
	total := calm + outage + after
	o := load{rt: rt, calls: int(total.Seconds() * rate), rate: rate, deadline: patience}.run(b)
	timers.Wait()

	o.report(b)
	b.ReportMetric(float64(during)/(outage.Seconds()*rate), "during-outage-attempts/call")
	b.ReportMetric(float64(served(ups)-begun)/((outage+after).Seconds()*rate), "attempts/call")
	b.ReportMetric(o.recovered(back).Seconds(), "recovered-s")
	b.ReportMetric(o.between(back+after/2, total).success(), "success-5s-later-%")
}

// queue serves calls in the order they came, a few at a time, 10 ms each. As most
// services do, it works for callers who have gone, too.
type queue struct {
	places chan struct{}
	closed chan struct{}
	mu     sync.RWMutex // held for writing while it is frozen
}

func newQueue(places int) *queue {
	return &queue{places: make(chan struct{}, places), closed: make(chan struct{})}
}

func (q *queue) close() { close(q.closed) }

func (q *queue) serve(w http.ResponseWriter, _ *http.Request) {
	select {
	case q.places <- struct{}{}:
		defer func() { <-q.places }()
	case <-q.closed:
		return
	}
	q.mu.RLock()
	defer q.mu.RUnlock()
	time.Sleep(10 * time.Millisecond)
	answer(w)
}

func (q *queue) freeze() { q.mu.Lock() }
func (q *queue) thaw()   { q.mu.Unlock() }
