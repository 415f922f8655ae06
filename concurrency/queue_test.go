package concurrency_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/concurrency"
)

// line is calls that wait in a queue, in virtual time.
type line struct {
	t       *testing.T
	limiter *concurrency.Limiter
	first   concurrency.Token

	mu     sync.Mutex
	story  []string
	tokens []concurrency.Token
}

// newLine returns a queue before a limiter of one that is taken.
func newLine(t *testing.T, size int, wait time.Duration) *line {
	l := &line{t: t, limiter: newLimiter(t, concurrency.Fixed(1), concurrency.Queue(size, wait))}
	var err error
	if l.first, err = l.limiter.Acquire(t.Context(), normal); err != nil {
		t.Fatal(err)
	}
	return l
}

// wait has a call wait, and returns when it does or has its answer.
func (l *line) wait(ctx context.Context, name string, p concurrency.Priority) {
	go func() {
		token, err := l.limiter.Acquire(ctx, p)
		l.mu.Lock()
		defer l.mu.Unlock()
		switch {
		case err == nil:
			l.tokens = append(l.tokens, token)
			l.story = append(l.story, name)
		case errors.Is(err, concurrency.ErrLimit):
			l.story = append(l.story, name+" refused")
		case errors.Is(err, context.DeadlineExceeded):
			l.story = append(l.story, name+" too late")
		case errors.Is(err, context.Canceled):
			l.story = append(l.story, name+" gone")
		}
	}()
	synctest.Wait()
}

// end ends the call that has the place, and returns when the next has it.
func (l *line) end() {
	l.mu.Lock()
	token := l.first
	l.first = concurrency.Token{}
	if n := len(l.tokens); n > 0 {
		token, l.tokens = l.tokens[n-1], l.tokens[:n-1]
	}
	l.mu.Unlock()
	token.Success()
	synctest.Wait()
}

func (l *line) want(story ...string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if diff := cmp.Diff(story, l.story); diff != "" {
		l.t.Error(diff)
	}
}

func TestQueueByPriority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10, time.Second)
		ctx := t.Context()
		for i, p := range []concurrency.Priority{low, normal, critical, low, normal, critical} {
			l.wait(ctx, fmt.Sprint(p, i), p)
		}
		if s := l.limiter.Snapshot(); s.Queued != 6 || s.InFlight != 1 {
			t.Errorf("%+v", s)
		}
		for range 6 {
			l.end()
		}
		l.want("critical 2", "critical 5", "normal 1", "normal 4", "low 0", "low 3")
		l.end()
		if s := l.limiter.Snapshot(); s.Queued != 0 || s.InFlight != 0 || s.Admitted.Total() != 7 {
			t.Errorf("%+v", s)
		}
	})
}

// A queue that is full lets go of the last of the least important for one that is
// more important, and of nobody for one that is not.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 3, time.Second)
		ctx := t.Context()
		l.wait(ctx, "low a", low)
		l.wait(ctx, "low b", low)
		l.wait(ctx, "normal a", normal)
		l.wait(ctx, "low c", low)
		l.wait(ctx, "normal b", normal)
		l.wait(ctx, "critical a", critical)
		l.wait(ctx, "normal c", normal)
		l.wait(ctx, "critical b", critical)
		l.want("low c refused", "low b refused", "low a refused", "normal c refused", "normal b refused")
		if s := l.limiter.Snapshot(); s.Queued != 3 || s.Rejected != (concurrency.Counts{Low: 3, Normal: 2}) {
			t.Errorf("%+v", s)
		}
		for range 4 {
			l.end()
		}
		l.want("low c refused", "low b refused", "low a refused", "normal c refused", "normal b refused", "critical a", "critical b", "normal a")
	})
}

func TestQueueEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10, time.Second)
		short, cancelShort := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancelShort()
		gone, cancel := context.WithCancel(t.Context())
		l.wait(t.Context(), "patient", normal)
		l.wait(short, "short", normal)
		l.wait(gone, "caller", normal)
		cancel()
		synctest.Wait()
		l.want("caller gone")
		time.Sleep(600 * time.Millisecond)
		l.wait(t.Context(), "second", normal)
		l.want("caller gone", "short too late")
		time.Sleep(600 * time.Millisecond)
		l.want("caller gone", "short too late", "patient refused")
		l.end()
		l.end()
		l.want("caller gone", "short too late", "patient refused", "second")
		if s := l.limiter.Snapshot(); s.Queued != 0 || s.InFlight != 0 || s.Admitted.Total() != 2 || s.Rejected.Total() != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A place that falls to a call whose caller goes at the same moment is not lost.
func TestPlaceForACallerThatGoes(t *testing.T) {
	t.Parallel()
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			l := newLine(t, 10, time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			l.wait(ctx, "caller", normal)
			go cancel()
			go l.first.Success()
			synctest.Wait()
			for range len(l.tokens) {
				l.end()
			}
			if s := l.limiter.Snapshot(); s.Queued != 0 || s.InFlight != 0 {
				t.Fatalf("%+v", s)
			}
		})
	}
}

// Low calls wait where more important ones go ahead, and neither blocks the other.
func TestQueueWithShares(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := newLimiter(t, concurrency.Fixed(4), concurrency.Queue(10, time.Second))
		var held []concurrency.Token
		for range 3 {
			token, err := limiter.Acquire(t.Context(), low)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, token)
		}
		l := &line{t: t, limiter: limiter}
		l.wait(t.Context(), "low", low)
		l.want()
		l.wait(t.Context(), "normal", normal)
		l.want("normal")
		held[0].Success()
		synctest.Wait()
		l.want("normal") // three are in use, which is all that low may
		held[1].Success()
		synctest.Wait()
		l.want("normal", "low")
	})
}

// Random calls with random patience: nobody waits when there is room, and nobody
// is left behind.
func TestQueueIsLive(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			limit := 1 + random.IntN(5)
			l := newLimiter(t, concurrency.Fixed(limit), concurrency.Queue(1+random.IntN(10), 50*time.Millisecond))
			var all sync.WaitGroup
			var mu sync.Mutex
			var waits []time.Duration
			for range 500 {
				p := concurrency.Priority(random.IntN(3) - 1)
				patience, work := time.Duration(1+random.IntN(100))*time.Millisecond, time.Duration(random.IntN(20))*time.Millisecond
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					began := time.Now()
					token, err := l.Acquire(ctx, p)
					mu.Lock()
					waits = append(waits, time.Since(began))
					mu.Unlock()
					if err != nil {
						return
					}
					time.Sleep(work)
					token.Success()
				})
				time.Sleep(time.Duration(random.IntN(6)) * time.Millisecond)
				synctest.Wait()
				if s := l.Snapshot(); s.InFlight > limit || s.Queued > 0 && s.InFlight < limit-limit/4 {
					t.Fatalf("seed %d: %+v", seed, s)
				}
			}
			all.Wait()
			if s := l.Snapshot(); s.InFlight != 0 || s.Queued != 0 || slices.Max(waits) > 50*time.Millisecond {
				t.Errorf("seed %d: %+v, waited up to %v", seed, s, slices.Max(waits))
			}
		})
	}
}

// Who finds room drives nobody out of a full queue of those for whom there is none.
func TestFullQueueAndRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &line{t: t, limiter: newLimiter(t, concurrency.Fixed(4), concurrency.Queue(1, time.Second))}
		var held []concurrency.Token
		for range 3 {
			token, err := l.limiter.Acquire(t.Context(), low)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, token)
		}
		l.wait(t.Context(), "low", low)
		l.wait(t.Context(), "critical", critical)
		l.want("critical")
		held[0].Success()
		held[1].Success()
		synctest.Wait()
		l.want("critical", "low")
	})
}
