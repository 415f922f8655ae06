package client

import (
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/retry"
)

// The defaults of [WithRetry] that are not [retry.Policy]'s own.
const (
	// DefaultAttempts is how often one request may be sent, hedges included.
	DefaultAttempts = 3
	// DefaultMaxAfter is how long a Retry-After may be that is waited for. Somebody
	// waits for this call, and it holds a place of the service's limit meanwhile.
	DefaultMaxAfter = 2 * time.Second
)

// unbounded is the time a caller has that did not say.
const unbounded = time.Duration(math.MaxInt64)

// moment is all that decides about another try.
type moment struct {
	fate       fate
	attempts   int  // made so far
	idempotent bool // the request
	other      bool // there is an instance that was not tried
	pushback   pushback
	left       time.Duration // of the caller's time
	random     float64       // in [0, 1)
}

// free reports whether another try costs nobody anything: nothing was sent, and it goes
// elsewhere. Then a dead instance must not cost a call because many came upon it at the
// same moment and used up the budget. (gRPC calls this a transparent retry, and exempts
// it likewise.)
func (m moment) free() bool { return m.fate == refused && m.other }

// mayRepeat reports whether another try is allowed at all, wherever it goes.
func mayRepeat(f fate, idempotent bool, attempts, most int) bool {
	if attempts >= most {
		return false
	}
	r := f.means().repeat
	return r == always || r == idemponly && idempotent
}

// again decides whether there is another try, and after what wait. What it does not
// know of (the body, the budget, the user's RetryIf) may still forbid it.
//
// Another instance is tried at once if nothing was sent, and after a jittered backoff
// else, since what failed may be something all instances share. If there is none, the
// same one is asked again no sooner than it says.
func again(p *retry.Policy, m moment) (wait time.Duration, ok bool) {
	if !mayRepeat(m.fate, m.idempotent, m.attempts, p.MaxAttempts) || m.pushback.never {
		return 0, false
	}
	if m.free() {
		return 0, worth(m.left, 0)
	}
	wait = p.Backoff.Delay(m.attempts, m.random)
	if !m.other && m.pushback.asked {
		if m.pushback.after > p.MaxAfter {
			return 0, false
		}
		wait += m.pushback.after // added, lest all who were told the same moment come in it
	}
	return wait, worth(m.left, wait)
}

// worth reports whether a try after a wait leaves its instance any time: what would be
// told that there is none need not be asked.
func worth(left, wait time.Duration) bool {
	return left > wait && deadline.PassOn(left-wait) > 0
}

// streams reports whether a request asks for an answer that goes on, or for another
// protocol: then to have it twice is no way to have it sooner.
func streams(req *http.Request) bool {
	if req.Header["Upgrade"] != nil || isGRPC(req) {
		return true
	}
	for _, accept := range req.Header["Accept"] {
		if strings.Contains(accept, "text/event-stream") {
			return true
		}
	}
	return false
}

// hedgeable reports whether a request may be sent twice at the same time.
func hedgeable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return (req.Body == nil || req.Body == http.NoBody) && !streams(req)
	}
	return false
}
