package balance_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// What a newcomer is spared goes to those that take it best, not to the one that was
// drawn with it, which may be the worst of all.
func TestNewcomersCallsGoToTheBest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eps := begun(endpoints(3))
		bad := eps[0]
		bad.Begin()
		bad.End(10*time.Second, false)
		set := balance.NewSet(append(eps, balance.NewEndpoint("new", "")))
		if got := spread(balance.P2C(), set, 5*time.Second); got[bad.ID] > 0 {
			t.Errorf("the endpoint that takes 10 s got %d of 5000 calls, the others %v", got[bad.ID], got)
		}
	})
}
