package resilience

import (
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/platinummonkey/go-concurrency-limits/limit"
	"github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"
	gozero "github.com/zeromicro/go-zero/core/load"

	"github.com/keelson-go/keelson/service"
)

// shedders put a limit of concurrent requests around a service, each with its
// defaults.
var shedders = []struct {
	name   string
	around func(tb testing.TB, h http.HandlerFunc) http.Handler
}{
	{"none", func(tb testing.TB, h http.HandlerFunc) http.Handler {
		return keelsonService(tb, h, service.WithoutConcurrencyLimit())
	}},
	{"keelson", func(tb testing.TB, h http.HandlerFunc) http.Handler { return keelsonService(tb, h) }},
	{"failsafe-go-adaptive", func(_ testing.TB, h http.HandlerFunc) http.Handler {
		l := adaptivelimiter.NewWithDefaults[any]()
		return shedding(func() (end func(gone bool), ok bool) {
			p, ok := l.TryAcquirePermit()
			return func(gone bool) {
				if gone {
					p.Drop()
					return
				}
				p.Record()
			}, ok
		}, h)
	}},
	{"gradient2", func(tb testing.TB, h http.HandlerFunc) http.Handler {
		l, err := limit.NewGradient2Limit("users", 20, 1000, 20, nil, 0.2, 600, limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
		if err != nil {
			tb.Fatal(err)
		}
		d, err := limiter.NewDefaultLimiter(l, 1e9, 1e9, 1e5, 100, strategy.NewSimpleStrategy(20), limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
		if err != nil {
			tb.Fatal(err)
		}
		return shedding(func() (end func(gone bool), ok bool) {
			listener, ok := d.Acquire(tb.Context())
			return func(gone bool) {
				if gone {
					listener.OnDropped()
					return
				}
				listener.OnSuccess()
			}, ok
		}, h)
	}},
	{"go-zero", func(_ testing.TB, h http.HandlerFunc) http.Handler { // refuses when the CPUs are at 90 %
		s := gozero.NewAdaptiveShedder()
		return shedding(func() (end func(gone bool), ok bool) {
			p, err := s.Allow()
			return func(gone bool) {
				if gone {
					p.Fail()
					return
				}
				p.Pass()
			}, err == nil
		}, h)
	}},
}

// keelsonService is a whole service with h as its one route.
func keelsonService(tb testing.TB, h http.HandlerFunc, opts ...service.Option) http.Handler {
	s, err := service.New("users", append(opts, service.WithLogOutput(io.Discard))...)
	if err != nil {
		tb.Fatal(err)
	}
	s.Handle("GET /users/{id}", h)
	return s.Handler()
}

// shedding puts somebody else's limiter around h.
func shedding(begin func() (end func(gone bool), ok bool), h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		end, ok := begin()
		if !ok {
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
			return
		}
		defer func() { end(r.Context().Err() != nil) }()
		h(w, r)
	})
}

// backends are what a service spends its time with. Neither notices when a caller has
// gone.
var backends = []struct {
	name string
	can  int // calls a second; 0 if it must be measured
	make func() http.HandlerFunc
}{
	// Eight places of 20 ms, such as connections to a database: 400 calls a second.
	{"queue", 400, func() http.HandlerFunc {
		places := make(chan struct{}, 8)
		return func(w http.ResponseWriter, _ *http.Request) {
			places <- struct{}{}
			time.Sleep(20 * time.Millisecond)
			<-places
			answer(w)
		}
	}},
	// 5 ms of a CPU that nobody else needs just now.
	{"cpu", 0, func() http.HandlerFunc {
		turns := spin(5 * time.Millisecond)
		return func(w http.ResponseWriter, _ *http.Request) {
			burn(turns)
			answer(w)
		}
	}},
}

// BenchmarkOverload sends a service three times the calls it can serve, from callers
// that wait for half a second.
//
// goodput-% is what was answered in time, of what the service can do; p50 and p99 are of those calls. refused-% of all calls were told at once,
// and wasted-% of the work done was for callers who had left. One iteration is the
// whole of it; run it with -benchtime 1x.
func BenchmarkOverload(b *testing.B) {
	for _, backend := range backends {
		for _, s := range shedders {
			b.Run(backend.name+"/"+s.name, func(b *testing.B) {
				for b.Loop() {
					overload(b, backend.can, backend.make(), s.around)
				}
			})
		}
	}
}

func overload(b *testing.B, can int, work http.HandlerFunc, around func(testing.TB, http.HandlerFunc) http.Handler) {
	var begun, ended atomic.Int64
	h := around(b, func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		work(w, r)
		ended.Add(1)
	})
	up := newUpstream(b, h.ServeHTTP)
	base := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	b.Cleanup(base.CloseIdleConnections)
	rt := &observing{rt: spreading([]string{up.server.URL}, base)}

	if measured := capacity(b, rt); can == 0 {
		can = measured
	}
	load{rt: rt, calls: can, rate: can / 2, deadline: patience}.run(b) // 2 s of what is usual
	rt.refused.Store(0)
	before := begun.Load()
	const length = 15
	o := load{rt: rt, calls: 3 * can * length, rate: 3 * can, deadline: overloadPatience}.run(b)
	refused := rt.refused.Load()
	for ended.Load() < begun.Load() { // what is still worked on for nobody
		time.Sleep(10 * time.Millisecond)
	}
	served := outcome{}
	for _, c := range o.calls {
		if c.success {
			served.calls = append(served.calls, c)
		}
	}
	good, done := float64(len(served.calls)), float64(begun.Load()-before)
	b.ReportMetric(float64(can), "capacity/s")
	b.ReportMetric(100*good/float64(can*length), "goodput-%")
	b.ReportMetric(100*float64(refused)/float64(len(o.calls)), "refused-%")
	b.ReportMetric(100*(done-good)/max(done, 1), "wasted-%")
	if good > 0 {
		b.ReportMetric(served.quantile(0.50), "p50-ms")
		b.ReportMetric(served.quantile(0.99), "p99-ms")
	}
}

// overloadPatience is how long callers of an overloaded service wait.
const overloadPatience = 500 * time.Millisecond

// capacity measures how many calls a second are served to four callers who each
// make the next one when they have their answer: the best of three seconds.
func capacity(b *testing.B, rt http.RoundTripper) int {
	b.Helper()
	var best int64
	for range 3 {
		var served atomic.Int64
		var callers sync.WaitGroup
		end := time.Now().Add(time.Second)
		for range 4 {
			callers.Go(func() {
				for time.Now().Before(end) {
					if (load{rt: rt, deadline: patience}).call(b.Context()) {
						served.Add(1)
					}
				}
			})
		}
		callers.Wait()
		best = max(best, served.Load())
	}
	return int(best)
}

// observing counts the answers that say "too much".
type observing struct {
	rt      http.RoundTripper
	refused atomic.Int64
}

func (o *observing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.rt.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusServiceUnavailable {
		o.refused.Add(1)
	}
	return resp, err
}

// spin returns how many turns of burn take d on an idle CPU: the least of some.
func spin(d time.Duration) int {
	const turns = 1_000_000
	least := time.Hour
	for range 20 {
		began := time.Now()
		burn(turns)
		least = min(least, time.Since(began))
	}
	return int(float64(turns) * float64(d) / float64(least))
}

func burn(turns int) {
	x := uint64(1)
	for range turns {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	runtime.KeepAlive(x)
}
