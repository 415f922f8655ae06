package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/resilience"
	"github.com/keelson-go/keelson/retry"
)

// step is one call and how its tries go.
type step struct {
	pause, takes time.Duration
	ends         []string // one for each try
	patience     time.Duration
}

func drawSteps(p *rapid.T, name string) []step {
	ms := func(p *rapid.T, most int, name string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(p, name)) * time.Millisecond
	}
	return rapid.SliceOfN(rapid.Custom(func(p *rapid.T) step {
		return step{
			pause:    ms(p, 30, "pause"),
			takes:    ms(p, 40, "takes"),
			patience: 1 + ms(p, 200, "patience"),
			ends:     rapid.SliceOfN(rapid.SampledFrom([]string{"well", "badly", "badly", "hangs", "panic", "Goexit"}), 5, 5).Draw(p, "ends"),
		}
	}), 5, 20).Draw(p, name)
}

// Whatever the dependency and the callers do: no more calls at once than the limit,
// no more retries than were paid for, no call longer than its time, every error with
// a reason, and in the end no place taken, no goroutine left and nothing wedged.
func TestChainKeepsItsPromises(t *testing.T) {
	t.Parallel()
	const (
		reserve = 3
		ratio   = 0.5
		timeout = 150 * time.Millisecond
	)
	rapid.Check(t, func(p *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(p, "limit")
		queue := rapid.IntRange(0, 3).Draw(p, "queue")
		attemptTimeout := time.Duration(rapid.SampledFrom([]int{0, 20, 60}).Draw(p, "attempt timeout")) * time.Millisecond
		callers := make([][]step, rapid.IntRange(2, 8).Draw(p, "callers"))
		for i := range callers {
			callers[i] = drawSteps(p, fmt.Sprint("caller ", i))
		}
		var mu sync.Mutex
		var bad []string
		synctest.Test(t, func(t *testing.T) {
			check := func(ok bool, format string, args ...any) {
				if !ok {
					mu.Lock()
					defer mu.Unlock()
					bad = append(bad, fmt.Sprintf(format, args...))
				}
			}
			opts := []concurrency.Option{concurrency.Fixed(limit)}
			if queue > 0 {
				opts = append(opts, concurrency.Queue(queue, 50*time.Millisecond))
			}
			var requests, retries, underWay atomic.Int64
			c := resilience.Chain{
				Breaker: newBreaker(t, breaker.ConsecutiveFailures(4), breaker.OpenTime(50*time.Millisecond)),
				Limiter: newLimiter(t, opts...),
				Timeout: timeout,
				Retry: &retry.Policy{
					MaxAttempts:    4,
					AttemptTimeout: attemptTimeout,
					Budget:         newBudget(t, retry.BudgetOptions{Reserve: reserve, Ratio: ratio, PerSecond: -1}),
					OnRetry:        func(retry.Event) { retries.Add(1) },
				},
			}
			call := func(s step) {
				ctx, cancel := context.WithTimeout(t.Context(), s.patience)
				defer cancel()
				requests.Add(1)
				tries := 0
				start := time.Now()
				err := c.Do(ctx, func(ctx context.Context) error {
					n := underWay.Add(1)
					defer underWay.Add(-1)
					check(int(n) <= limit, "%d calls at once, the limit is %d", n, limit)
					ends := s.ends[tries]
					tries++
					if ends == "hangs" {
						<-ctx.Done()
						return ctx.Err()
					}
					timer := time.NewTimer(s.takes)
					defer timer.Stop()
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-timer.C:
					}
					switch ends {
					case "badly":
						return errDown
					case "panic":
						panic("boom")
					case "Goexit":
						runtime.Goexit()
					}
					return nil
				})
				took := time.Since(start)
				check(took <= min(timeout, s.patience), "took %v of %v", took, s.patience)
				check(tries <= 4, "%d tries", tries)
				known := err == nil
				for _, reason := range []error{errDown, context.DeadlineExceeded, breaker.ErrOpen, concurrency.ErrLimit} {
					known = known || errors.Is(err, reason)
				}
				check(known, "error without a reason: %v", err)
				if e, ok := errors.AsType[*retry.Error](err); ok {
					check(e.Attempts == tries && tries > 0, "%d tries, told of %d", tries, e.Attempts)
				}
			}
			var wg sync.WaitGroup
			for _, steps := range callers {
				wg.Go(func() {
					for _, s := range steps {
						time.Sleep(s.pause)
						var one sync.WaitGroup // a goroutine of its own, as Goexit ends it
						one.Add(1)
						go func() {
							defer one.Done()
							defer func() { _ = recover() }()
							call(s)
						}()
						one.Wait()
					}
				})
			}
			wg.Wait()
			check(float64(retries.Load()) <= reserve+ratio*float64(requests.Load()), "%d retries of %d requests", retries.Load(), requests.Load())
			check(c.Limiter.Snapshot().InFlight == 0, "%d places taken at the end", c.Limiter.Snapshot().InFlight)
			left := c.Retry.Budget.Left()
			check(left >= 0 && left <= reserve, "%v left of the budget", left)

			time.Sleep(time.Minute)
			err := c.Do(t.Context(), succeeds)
			check(err == nil, "wedged: %v", err)
		})
		if len(bad) > 0 {
			p.Fatal(bad)
		}
	})
}
