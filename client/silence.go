package client

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stall is for how long an instance may lose every race before that counts as
	// failing: longer than a garbage collection or a throttled CPU takes, shorter than a
	// caller's patience.
	stall = time.Second

	// watched bounds how many instances are kept in mind.
	watched = 64
)

// losers keeps in mind which instances have lost races and answered nothing since. A
// hung instance whose calls are all rescued by hedges would else look fine for ever,
// since each of its tries is cut short. It is safe for concurrent use.
type losers struct {
	n  atomic.Int32 // of since
	mu sync.Mutex
	// since is when an instance lost for the first time after its last answer.
	since map[string]time.Time
}

// lost takes in a lost race, and reports whether the instance had lost before without an
// answer since then, and whether that has been so for so long that it counts as failing.
func (l *losers) lost(id string, now time.Time) (again, failing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, ok := l.since[id]; ok {
		return true, now.Sub(first) >= stall
	}
	if l.since == nil || len(l.since) >= watched {
		l.since = make(map[string]time.Time)
	}
	l.since[id] = now
	l.n.Store(int32(len(l.since)))
	return false, false
}

// answered takes in an answer, of whatever kind.
func (l *losers) answered(id string) {
	if l.n.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.since, id)
	l.n.Store(int32(len(l.since)))
}
