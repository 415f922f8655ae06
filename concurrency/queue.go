package concurrency

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// queue is where calls wait for room, those of higher priority in front, else in
// the order they came.
type queue struct {
	size int
	wait time.Duration

	length atomic.Int64 // of all lists; changed with mu held
	mu     sync.Mutex
	lists  [priorities]list.List // of *waiter
}

// waiter is a call that waits.
type waiter struct {
	priority int
	place    *list.Element // nil when it waits no more
	decided  chan bool     // whether it may begin; room for the one answer
}

func newQueue(size int, wait time.Duration) *queue { return &queue{size: size, wait: wait} }

// waiting returns how many wait; of no queue 0.
func (q *queue) waiting() int {
	if q == nil {
		return 0
	}
	return int(q.length.Load())
}

// join puts a call into the queue, or returns nil if it is full of calls that are
// no less important. If it is full of others, the last of the least important has
// to leave. q.mu must be held.
func (q *queue) join(priority int) *waiter {
	if q.waiting() >= q.size {
		least := 0
		for least < priority && q.lists[least].Len() == 0 {
			least++
		}
		if least == priority {
			return nil
		}
		q.decide(q.lists[least].Back().Value.(*waiter), false)
	}
	w := &waiter{priority: priority, decided: make(chan bool, 1)}
	w.place = q.lists[priority].PushBack(w)
	q.length.Add(1)
	return w
}

// isBehind reports whether a call of that priority would have others in front of it.
// q.mu must be held.
func (q *queue) isBehind(priority int) bool {
	for i := priority; i < priorities; i++ {
		if q.lists[i].Len() > 0 {
			return true
		}
	}
	return false
}

// leave takes w out, and reports whether it was still in. q.mu must be held.
func (q *queue) leave(w *waiter) bool {
	if w.place == nil {
		return false
	}
	q.lists[w.priority].Remove(w.place)
	w.place = nil
	q.length.Add(-1)
	return true
}

// decide takes w out and tells it what became of it. q.mu must be held.
func (q *queue) decide(w *waiter, begins bool) {
	q.leave(w)
	w.decided <- begins
}

// await waits in the queue for room.
func (l *Limiter) await(ctx context.Context, priority int) (Token, error) {
	q := l.queue
	q.mu.Lock()
	// Those who wait may be unable to use what room there is. A call that can must
	// not drive one of them out of a full queue first.
	l.admitFirst()
	if !q.isBehind(priority) && l.take(priority) {
		q.mu.Unlock()
		return l.begin(), nil
	}
	w := q.join(priority)
	// Now that it is in the queue, who makes room looks for it. It may have been
	// made just before.
	l.admitFirst()
	q.mu.Unlock()
	if w == nil {
		return Token{}, l.refuse(priority)
	}
	patience := time.NewTimer(q.wait)
	defer patience.Stop()
	var begins bool
	select {
	case begins = <-w.decided:
	case <-patience.C:
		begins = l.giveUp(w)
	case <-ctx.Done():
		begins = l.giveUp(w)
	}
	switch err := ctx.Err(); {
	case err != nil && begins: // both at once
		l.begin().Ignore()
		fallthrough
	case err != nil:
		return Token{}, fmt.Errorf("concurrency: not begun after waiting for room: %w", err)
	case !begins:
		return Token{}, l.refuse(priority)
	}
	return l.begin(), nil
}

// giveUp ends w's wait, and reports whether it was let in just then.
func (l *Limiter) giveUp(w *waiter) bool {
	l.queue.mu.Lock()
	left := l.queue.leave(w)
	l.queue.mu.Unlock()
	return !left && <-w.decided
}

// admitWaiting lets calls in that wait, as far as there is room.
func (l *Limiter) admitWaiting() {
	l.queue.mu.Lock()
	l.admitFirst()
	l.queue.mu.Unlock()
}

// admitFirst is admitWaiting for who holds the queue's lock.
func (l *Limiter) admitFirst() {
	for priority := priorities - 1; priority >= 0; priority-- {
		for q := l.queue; q.lists[priority].Len() > 0; {
			if !l.take(priority) {
				return // and there is less room for those below
			}
			q.decide(q.lists[priority].Front().Value.(*waiter), true)
		}
	}
}
