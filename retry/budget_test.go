package retry_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/retry"
)

func TestBudgetErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		want    string
		options retry.BudgetOptions
	}{
		{"Ratio", retry.BudgetOptions{Ratio: 11}},
		{"Ratio", retry.BudgetOptions{Ratio: math.NaN()}},
		{"Reserve", retry.BudgetOptions{Reserve: -1}},
		{"Reserve", retry.BudgetOptions{Reserve: 1_000_001}},
		{"PerSecond", retry.BudgetOptions{PerSecond: math.Inf(1)}},
		{"PerSecond", retry.BudgetOptions{PerSecond: math.NaN()}},
		{"Ratio and PerSecond", retry.BudgetOptions{Ratio: -1, PerSecond: -1}},
	}
	for _, tt := range tests {
		b, err := retry.NewBudget(tt.options)
		if b != nil || err == nil || !strings.Contains(err.Error(), "BudgetOptions."+tt.want) || !strings.Contains(err.Error(), ": give ") {
			t.Errorf("error %v, want one about %s", err, tt.want)
		}
	}
}

func TestBudgetDefaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, retry.BudgetOptions{})
		take := func() (n int) {
			for b.Withdraw() {
				n++
			}
			return n
		}
		if left, n := b.Left(), take(); left != 10 || n != 10 || b.Left() != 0 || b.Refused() != 1 {
			t.Errorf("%v at first, %d taken, %v left, %d refused", left, n, b.Left(), b.Refused())
		}
		for range 25 {
			b.Deposit()
		}
		if n := take(); n != 2 || math.Abs(b.Left()-0.5) > 1e-9 {
			t.Errorf("25 requests pay for %d, %v left; want 2 and 0.5", n, b.Left())
		}
		time.Sleep(3 * time.Second)
		if math.Abs(b.Left()-3.5) > 1e-9 {
			t.Errorf("%v left after 3 s, want 3.5", b.Left())
		}
		if n := take(); n != 3 {
			t.Errorf("3 s pay for %d", n)
		}
		time.Sleep(100 * 365 * 24 * time.Hour)
		for range 1000 {
			b.Deposit()
		}
		if b.Left() != 10 || take() != 10 {
			t.Error("more was saved up than the reserve")
		}
	})
}

// Those who ask in vain, however often, do not use up the time that fills it.
func TestBudgetOfManyRefusals(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{0.0001, 0.003, 0.3, 1, 7} {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(t, retry.BudgetOptions{Reserve: 1, Ratio: -1, PerSecond: perSecond})
			b.Withdraw()
			start := time.Now()
			for range 10_000 {
				time.Sleep(173 * time.Nanosecond)
				if b.Withdraw() {
					t.Fatalf("%v a second: a retry after %v", perSecond, time.Since(start))
				}
			}
			time.Sleep(time.Millisecond)
			want := perSecond * time.Since(start).Seconds()
			if left := b.Left(); math.Abs(left-want) > want/100 {
				t.Errorf("%v a second: %v left, want %v", perSecond, left, want)
			}
		})
	}
}

func TestNilBudget(t *testing.T) {
	t.Parallel()
	var b *retry.Budget
	b.Deposit()
	if !b.Withdraw() || !math.IsInf(b.Left(), 1) || b.Refused() != 0 {
		t.Error("the nil budget does not allow everything")
	}
}

// The budget does what a plain bucket, filled by requests and by time, does.
func TestBudgetModel(t *testing.T) {
	t.Parallel()
	type step struct {
		what string
		wait time.Duration
	}
	steps := rapid.SliceOfN(rapid.Custom(func(p *rapid.T) step {
		return step{
			what: rapid.SampledFrom([]string{"deposit", "withdraw", "withdraw", "wait"}).Draw(p, "what"),
			wait: time.Duration(rapid.IntRange(1, 3000).Draw(p, "wait")) * time.Millisecond,
		}
	}), 50, 200)
	rapid.Check(t, func(p *rapid.T) {
		o := retry.BudgetOptions{
			Ratio:     rapid.SampledFrom([]float64{-1, 0.125, 0.5, 1, 4}).Draw(p, "ratio"),
			Reserve:   rapid.IntRange(1, 20).Draw(p, "reserve"),
			PerSecond: rapid.SampledFrom([]float64{0.25, 1, 8}).Draw(p, "per second"),
		}
		todo := steps.Draw(p, "steps")
		failed := ""
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(t, o)
			full := float64(o.Reserve)
			left, refused := full, uint64(0)
			for i, s := range todo {
				switch s.what {
				case "deposit":
					b.Deposit()
					left = min(full, left+max(o.Ratio, 0))
				case "withdraw":
					want := left >= 1
					if want {
						left--
					} else {
						refused++
					}
					if got := b.Withdraw(); got != want {
						failed = fmt.Sprintf("step %d: %v, the model says %v with %v left", i, got, want, left)
						return
					}
				case "wait":
					time.Sleep(s.wait)
					left = min(full, left+o.PerSecond*s.wait.Seconds())
					left = math.Round(left*1e6) / 1e6 // steps are exact to the microsecond
				}
				if got := b.Left(); math.Abs(got-left) > 1e-6 || b.Refused() != refused {
					failed = fmt.Sprintf("step %d: %v left, %d refused, the model says %v, %d", i, got, b.Refused(), left, refused)
					return
				}
			}
		})
		if failed != "" {
			p.Fatal(failed)
		}
	})
}

// However many use it at once, the budget is never below 0 nor above its reserve,
// and gives no more than it got.
func TestBudgetConcurrent(t *testing.T) {
	t.Parallel()
	const reserve, ratio, perSecond, each, many = 5, 0.25, 100.0, 20_000, 8
	start := time.Now()
	b := newBudget(t, retry.BudgetOptions{Reserve: reserve, Ratio: ratio, PerSecond: perSecond})
	var taken, refused, outside atomic.Int64
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			for range each {
				b.Deposit()
				if b.Withdraw() {
					taken.Add(1)
				} else {
					refused.Add(1)
				}
				if left := b.Left(); left < 0 || left > reserve {
					outside.Add(1)
				}
			}
		})
	}
	wg.Wait()
	got := reserve + ratio*each*many + perSecond*time.Since(start).Seconds()
	if n := outside.Load(); n > 0 {
		t.Errorf("%d times below 0 or above the reserve", n)
	}
	if n := float64(taken.Load()); n > got || n < ratio*each*many/2 {
		t.Errorf("%v retries allowed, %v paid for", n, got)
	}
	if b.Refused() != uint64(refused.Load()) {
		t.Errorf("%d refused, told of %d", refused.Load(), b.Refused())
	}
}
