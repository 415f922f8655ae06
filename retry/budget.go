package retry

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// The defaults of [BudgetOptions]. With 0.1 a whole fleet whose calls all fail gets
// 10 % more of them from retries, not three times as many. 10 in reserve see a
// service of few callers through the restart of what it calls. 1 a second is
// nothing to any server, but lets a caller that calls once a minute retry at all.
const (
	DefaultRatio     = 0.1
	DefaultReserve   = 10
	DefaultPerSecond = 1
)

// BudgetOptions says how many retries there may be. A zero field is its default.
type BudgetOptions struct {
	Ratio     float64 // retries allowed for each request, up to 10; the default is 0.1; below 0 is none
	Reserve   int     // so many can be saved up, and are there at first, 1 to 1,000,000; the default is 10
	PerSecond float64 // retries allowed for each second, up to 1,000,000, however few the requests are; the default is 1; below 0 is none
}

// Budget limits the retries of many calls together, so that retries do not become
// the load that keeps a service down. Every request pays a part of a retry into it
// and every retry takes a whole one out. Use [NewBudget] to make one, one for each
// dependency. The nil Budget allows everything. All methods are safe for concurrent
// use and none waits for another.
type Budget struct {
	ratio, limit int64 // in units
	perSecond    float64
	epoch        time.Time

	units   atomic.Int64 // what is left, 0 to limit
	paid    atomic.Int64 // nanoseconds since epoch that PerSecond has been paid for
	refused atomic.Uint64
}

// unit is a part of a retry. As many make a whole one as a second has nanoseconds,
// so that one retry a second is one unit a nanosecond, without rounding.
const unit = int64(time.Second)

// least is how much time has to have earned to be paid in: what is rounded off is
// then nothing, though a low PerSecond earns less than a unit between two of many
// callers.
const least = unit / 1_000_000

// NewBudget returns a full budget. The error says which field is wrong and what it
// may be.
func NewBudget(o BudgetOptions) (*Budget, error) {
	if o.Ratio == 0 {
		o.Ratio = DefaultRatio
	}
	if o.Reserve == 0 {
		o.Reserve = DefaultReserve
	}
	if o.PerSecond == 0 {
		o.PerSecond = DefaultPerSecond
	}
	const most = 1_000_000 // its units fit in an int64 with room to add some
	switch {
	case math.IsNaN(o.Ratio) || o.Ratio > 10:
		return nil, fmt.Errorf("retry: BudgetOptions.Ratio is %v: give up to 10, 0 for %v, or below 0 for none", o.Ratio, DefaultRatio)
	case o.Reserve < 1 || o.Reserve > most:
		return nil, fmt.Errorf("retry: BudgetOptions.Reserve is %d: give 1 to %d, or 0 for %d", o.Reserve, most, DefaultReserve)
	case math.IsNaN(o.PerSecond) || o.PerSecond > most:
		return nil, fmt.Errorf("retry: BudgetOptions.PerSecond is %v: give up to %d, 0 for %d, or below 0 for none", o.PerSecond, most, DefaultPerSecond)
	case o.Ratio < 0 && o.PerSecond < 0:
		return nil, errors.New("retry: BudgetOptions.Ratio and PerSecond are both below 0, so the budget would never fill again: give one of them")
	}
	b := &Budget{
		ratio:     int64(math.Round(max(o.Ratio, 0) * float64(unit))),
		limit:     int64(o.Reserve) * unit,
		perSecond: max(o.PerSecond, 0),
		epoch:     time.Now(),
	}
	b.units.Store(b.limit)
	return b, nil
}

// Deposit pays for one request; call it once for each, not for its retries. While
// the budget is full that is one read, so healthy callers do not disturb each other.
func (b *Budget) Deposit() {
	if b != nil && b.ratio > 0 {
		b.add(b.ratio)
	}
}

func (b *Budget) add(units int64) {
	for {
		left := b.units.Load()
		if left >= b.limit || b.units.CompareAndSwap(left, left+min(units, b.limit-left)) {
			return
		}
	}
}

// Withdraw asks for one retry or hedge, and reports whether it may be made.
func (b *Budget) Withdraw() bool {
	if b == nil {
		return true
	}
	if b.perSecond > 0 {
		paid, now := b.paid.Load(), int64(time.Since(b.epoch))
		// Who loses the swap leaves the time to the winner. It may then miss what
		// the winner has not added yet, which only matters to the last retry.
		if earned := b.earned(now - paid); earned >= least && b.paid.CompareAndSwap(paid, now) {
			b.add(earned)
		}
	}
	for {
		left := b.units.Load()
		if left < unit {
			b.refused.Add(1)
			return false
		}
		if b.units.CompareAndSwap(left, left-unit) {
			return true
		}
	}
}

// earned returns what PerSecond pays for so many nanoseconds, at most the limit.
func (b *Budget) earned(ns int64) int64 {
	return int64(min(float64(ns)*b.perSecond, float64(b.limit)))
}

// Left returns how many retries could be made now, a part of one included: 0 to
// the Reserve, or infinity for the nil Budget.
func (b *Budget) Left() float64 {
	if b == nil {
		return math.Inf(1)
	}
	// In this order: what is paid between the two reads is missed, not counted twice.
	left := b.units.Load()
	if ns := int64(time.Since(b.epoch)) - b.paid.Load(); ns > 0 {
		left += min(b.earned(ns), b.limit-left)
	}
	return float64(left) / float64(unit)
}

// Refused returns how often Withdraw said no.
func (b *Budget) Refused() uint64 {
	if b == nil {
		return 0
	}
	return b.refused.Load()
}
