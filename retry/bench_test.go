package retry_test

import (
	"context"
	"testing"
	"time"

	"github.com/keelson-go/keelson/retry"
)

// both runs f alone and in parallel.
func both(b *testing.B, f func()) {
	b.Run("single", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f()
			}
		})
	})
}

func viaDo(p retry.Policy) func() {
	ctx := context.Background()
	return func() { _ = retry.Do(ctx, p, succeeds) }
}

func BenchmarkDo(b *testing.B) { both(b, viaDo(retry.Policy{})) }

func BenchmarkDoBudget(b *testing.B) {
	both(b, viaDo(retry.Policy{Budget: newBudget(b, retry.BudgetOptions{})}))
}

func BenchmarkDoAttemptTimeout(b *testing.B) {
	both(b, viaDo(retry.Policy{AttemptTimeout: time.Minute}))
}

func BenchmarkDoValue(b *testing.B) {
	ctx := context.Background()
	both(b, func() {
		_, _ = retry.DoValue(ctx, retry.Policy{}, func(context.Context) (int, error) { return 1, nil })
	})
}

func BenchmarkDepositFull(b *testing.B) {
	both(b, newBudget(b, retry.BudgetOptions{}).Deposit)
}

func BenchmarkDepositAndWithdraw(b *testing.B) {
	budget := newBudget(b, retry.BudgetOptions{Reserve: 1_000_000})
	both(b, func() {
		budget.Deposit()
		budget.Withdraw()
	})
}

func TestAllocations(t *testing.T) {
	budget := newBudget(t, retry.BudgetOptions{Ratio: 1})
	for name, f := range map[string]func(){
		"Do":             viaDo(retry.Policy{Budget: budget}),
		"Do, no retries": viaDo(retry.Policy{MaxAttempts: 1}),
		"DoValue": func() {
			_, _ = retry.DoValue(context.Background(), retry.Policy{Budget: budget}, func(context.Context) (int, error) { return 1, nil })
		},
		"budget": func() { budget.Deposit(); budget.Withdraw(); budget.Left() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations a call", name, n)
		}
	}
}
