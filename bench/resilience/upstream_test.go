package resilience

import (
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// upstream is an instance of the service that is called. What it does can change
// while it runs.
type upstream struct {
	server *httptest.Server
	calls  atomic.Int64
	behave atomic.Pointer[http.HandlerFunc]
}

func newUpstream(tb testing.TB, h http.HandlerFunc) *upstream {
	u := &upstream{}
	u.does(h)
	u.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.calls.Add(1)
		(*u.behave.Load())(w, r)
	}))
	u.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	u.server.Start()
	tb.Cleanup(func() {
		u.server.CloseClientConnections()
		u.server.Close()
	})
	return u
}

func (u *upstream) does(h http.HandlerFunc) { u.behave.Store(&h) }

// fleet starts an instance for each of behaviours.
func fleet(tb testing.TB, behaviours ...http.HandlerFunc) []*upstream {
	ups := make([]*upstream, len(behaviours))
	for i, h := range behaviours {
		ups[i] = newUpstream(tb, h)
	}
	return ups
}

func addresses(ups []*upstream) []string {
	as := make([]string, len(ups))
	for i, u := range ups {
		as[i] = u.server.URL
	}
	return as
}

// served is how many attempts have reached the instances.
func served(ups []*upstream) (n int64) {
	for _, u := range ups {
		n += u.calls.Load()
	}
	return n
}

func answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":"7","name":"Ada"}`)
}

// sleep waits for d, or until the caller has gone.
func sleep(r *http.Request, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// healthy answers after 1 to 3 ms.
func healthy(w http.ResponseWriter, r *http.Request) {
	sleep(r, time.Millisecond+rand.N(2*time.Millisecond))
	answer(w)
}

// failing is healthy half of the time, and else answers 500 at once.
func failing(w http.ResponseWriter, r *http.Request) {
	if rand.N(2) == 0 {
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	healthy(w, r)
}

// hung takes calls and never answers.
func hung(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// slow takes ten times as long as healthy does.
func slow(w http.ResponseWriter, r *http.Request) {
	sleep(r, 10*(time.Millisecond+rand.N(2*time.Millisecond)))
	answer(w)
}

// unavailable is what a balancer in front of a dead service says.
func unavailable(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "down", http.StatusServiceUnavailable)
}
