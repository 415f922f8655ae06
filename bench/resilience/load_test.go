package resilience

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// load is a stream of calls that goes on whatever becomes of them, as that of a
// service's users does: call i begins at its time, not when another one has ended.
type load struct {
	rt       http.RoundTripper
	calls    int
	rate     int           // a second
	deadline time.Duration // how long a caller waits
}

// call is what became of a call.
type call struct {
	due     time.Duration // since the load began
	took    time.Duration // from due on, so that waiting to begin counts
	success bool
}

// outcome is what became of all calls, and what they cost: CPU time and
// allocations are the whole process's, so those of the upstreams too.
type outcome struct {
	calls  []call
	cpu    time.Duration
	allocs uint64
}

// run sends all calls and waits for the last of them.
func (l load) run(tb testing.TB) outcome {
	tb.Helper()
	calls := make([]call, l.calls)
	gap := time.Second / time.Duration(l.rate)
	var wg sync.WaitGroup
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	allocs, used := mem.Mallocs, cpu()
	began := time.Now()
	for i := range calls {
		due := time.Duration(i) * gap
		time.Sleep(time.Until(began.Add(due)))
		wg.Go(func() {
			ok := l.call(tb.Context())
			calls[i] = call{due: due, took: time.Since(began) - due, success: ok}
		})
	}
	wg.Wait()
	used = cpu() - used
	runtime.ReadMemStats(&mem)
	return outcome{calls: calls, cpu: used, allocs: mem.Mallocs - allocs}
}

func (l load) call(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, l.deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/users/7", nil)
	if err != nil {
		panic(err)
	}
	resp, err := l.rt.RoundTrip(req)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err == nil && resp.StatusCode == http.StatusOK
}

// success is the share of the calls that succeeded, in percent.
func (o outcome) success() float64 {
	n := 0
	for _, c := range o.calls {
		if c.success {
			n++
		}
	}
	return 100 * float64(n) / float64(len(o.calls))
}

// quantile of how long calls took, in milliseconds, failed ones too.
func (o outcome) quantile(q float64) float64 {
	took := make([]time.Duration, len(o.calls))
	for i, c := range o.calls {
		took[i] = c.took
	}
	slices.Sort(took)
	return ms(took[int(q*float64(len(took)-1))])
}

// between returns the calls due from begin on and before end.
func (o outcome) between(begin, end time.Duration) outcome {
	var in []call
	for _, c := range o.calls {
		if begin <= c.due && c.due < end {
			in = append(in, c)
		}
	}
	return outcome{calls: in}
}

// recovered returns how long after the time back callers noticed nothing more:
// from then on 99 % of the calls of each tenth of a second succeeded. If that never
// came, it is all the time left.
func (o outcome) recovered(back time.Duration) time.Duration {
	const step = 100 * time.Millisecond
	end := o.calls[len(o.calls)-1].due
	at := end
	for at-step >= back && o.between(at-step, at).success() >= 99 {
		at -= step
	}
	return at - back
}

func (o outcome) report(b *testing.B) {
	b.ReportMetric(o.success(), "success-%")
	b.ReportMetric(o.quantile(0.50), "p50-ms")
	b.ReportMetric(o.quantile(0.99), "p99-ms")
	b.ReportMetric(float64(o.cpu.Microseconds())/float64(len(o.calls)), "cpu-us/call")
	b.ReportMetric(float64(o.allocs)/float64(len(o.calls)), "allocs/call")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
