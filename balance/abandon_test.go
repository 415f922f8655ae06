package balance_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// An endpoint whose calls are all given up is as silent as one whose calls hang.
func TestAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung, sound := balance.NewEndpoint("hung", ""), balance.NewEndpoint("sound", "")
		for _, e := range []*balance.Endpoint{hung, sound} {
			for range 10 {
				e.Begin()
				e.End(time.Millisecond, false)
			}
		}
		before := hung.Latency()
		set, picker := balance.NewSet([]*balance.Endpoint{hung, sound}), balance.P2C()
		picked := 0
		for range 1000 {
			e := picker.Pick(set)
			e.Begin()
			time.Sleep(time.Millisecond)
			if e == hung {
				picked++
				e.Abandon()
			} else {
				e.End(time.Millisecond, false)
			}
		}
		if picked > 20 {
			t.Errorf("picked %d times of 1000", picked)
		}
		if hung.InFlight() != 0 || hung.Latency() != before {
			t.Errorf("%d calls in flight, latency %v, want 0 and %v", hung.InFlight(), hung.Latency(), before)
		}
	})
}
