package balance

import "testing"

// Two calls begin at the same moment, and the later one has read the clock before the
// other: what hangs, or streams, is to be tried again all the same.
func TestSilenceOfCallsThatBeginTogether(t *testing.T) {
	t.Parallel()
	for _, first := range []uint32{0, 1, 1000} {
		var c cell
		c.begin(first)
		c.begin(first - 1)
		wait, age := silence(c.times.Load(), first+5000)
		if wait < 4999 || wait > 5001 || age < 4999 || age > 5001 {
			t.Errorf("from tick %d on: silent for %d ticks, left alone for %d; want 5000", first, wait, age)
		}
	}
}
