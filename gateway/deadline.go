package gateway

import (
	"time"

	"github.com/keelson-go/keelson/middleware"
)

// headerRequestTimeout tells the upstream how many milliseconds there are left.
const headerRequestTimeout = middleware.HeaderRequestTimeout

// passOn is what of the time left the upstream is told: a margin of 5 %, 1 to
// 100 ms, is kept for the way back.
func passOn(left time.Duration) time.Duration {
	return max(left-min(max(left/20, time.Millisecond), 100*time.Millisecond), 0)
}
