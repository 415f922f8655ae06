package outlier

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// The states of a member.
const (
	serving uint32 = iota
	ejected
	probing // back, but one call at a time
)

// judgeEvery is after how many calls an instance is judged, besides after failures in a
// row: rarely enough that it costs next to nothing, often enough that a bad instance
// has hardly more than MinCalls.
const judgeEvery = 16

// member is what is known of an instance.
type member struct {
	state atomic.Uint32 // changed with the detector's mu held
	last  atomic.Uint32 // the last 32 calls, the newest in the lowest bit; 1 = failed
	calls atomic.Uint64 // in the window: all << 32 | failed
	logs  atomic.Uint64 // the sum of log2 of the latencies of those that did not fail

	// Guarded by the detector's mu:
	endpoint *balance.Endpoint
	interval time.Duration // the number of the interval that calls and logs are about
	reason   Reason        // why it was last ejected
	since    time.Duration // when it entered its state
	until    time.Duration // when its ejection ends
	lasted   time.Duration // how long it was last ejected
	times    int           // ejections one soon after the other
	proven   int           // calls it did well as it was probing
	warm     time.Duration // when its slow start ends

	_ [8]byte // so that members, which are written by every call, share no cache line
}

// count takes a call into account and reports whether it is time to judge.
func (m *member) count(latency time.Duration, failed bool, consecutive int) bool {
	if failed {
		calls, row := m.calls.Add(1<<32|1), rowOf(m.shift(1))
		return (consecutive > 0 && row%consecutive == 0) || calls>>32%judgeEvery == 0
	}
	if m.last.Load() != 0 {
		m.shift(0)
	}
	// The call before its latency, and record reads them the other way round: what is
	// counted meanwhile makes an instance look a bit faster, not slow.
	calls := m.calls.Add(1 << 32)
	m.logs.Add(log2(latency))
	return calls>>32%judgeEvery == 0
}

// shift adds a call to the last ones and returns them.
func (m *member) shift(failed uint32) uint32 {
	for {
		last := m.last.Load()
		if next := last<<1 | failed; m.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

// rowOf returns how many of the last calls failed in a row, up to 32.
func rowOf(last uint32) int { return bits.TrailingZeros32(^last) }

// log2 returns the logarithm to the base 2 of d in nanoseconds, times 1024 and linear
// between whole numbers. The mean of logarithms, unlike that of latencies, is hardly
// moved by one call of 20 that takes a thousand times as long.
func log2(d time.Duration) uint64 {
	return (math.Float64bits(float64(max(d, 1))) - 1023<<52) >> 42
}

// exp2 is the inverse of log2.
func exp2(l uint64) time.Duration {
	return time.Duration(math.Float64frombits(l<<42 + 1023<<52))
}

// record is what the calls of a member in the window come to.
type record struct {
	calls, failures int
	typical         uint64 // the mean of log2 of the latencies; 0 = not known
}

// rate returns the share of failures.
func (r record) rate() float64 { return float64(r.failures) / float64(max(r.calls, 1)) }

// badness returns how often the instance seems to fail, at worst: in the window, of the
// last 32 or 16 calls, or just now. So whatever makes all instances fail is seen in all of them
// within a few calls.
func (m *member) badness(r record) float64 {
	last := m.last.Load()
	row := float64(rowOf(last))
	return max(r.rate(), float64(bits.OnesCount32(last))/32, float64(bits.OnesCount32(last&0xFFFF))/16, row/(row+1))
}

// read returns the record, in which what is older counts half for each interval since
// then. The detector's mu is held; calls go on to be counted meanwhile.
func (m *member) read(interval time.Duration) record {
	if past := min(interval-m.interval, 32); past > 0 {
		m.interval = interval
		before := m.record()
		for {
			c := m.calls.Load()
			if m.calls.CompareAndSwap(c, (c>>32)>>past<<32|(c&math.MaxUint32)>>past) {
				break
			}
		}
		after := m.record()
		m.logs.Store(before.typical * uint64(after.calls-after.failures)) // a call that ends just now may be lost
	}
	return m.record()
}

func (m *member) record() record {
	logs := m.logs.Load()
	c := m.calls.Load()
	r := record{calls: int(c >> 32), failures: int(c & math.MaxUint32)}
	if good := r.calls - r.failures; good > 0 {
		r.typical = logs / uint64(good)
	}
	return r
}

// forget begins a new record.
func (m *member) forget() {
	m.calls.Store(0)
	m.logs.Store(0)
	m.last.Store(0)
}
