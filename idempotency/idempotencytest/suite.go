// Package idempotencytest is the suite that every [idempotency.Store] passes: the
// store's own contract, and the middleware on top of it.
//
//	func TestConformance(t *testing.T) {
//		idempotencytest.Run(t, func(t *testing.T) idempotencytest.Open { … })
//	}
package idempotencytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keelson-go/keelson/idempotency"
)

// Open opens the store under test once more, as another instance of the service
// would. What it opens ends with the test.
type Open func(t testing.TB) idempotency.Store

// Option changes how [Run] runs.
type Option func(*suite)

// InBubble runs each test in a bubble of testing/synctest, in virtual time. For
// stores that are entirely in memory.
func InBubble() Option { return func(s *suite) { s.bubble = true } }

type suite struct{ bubble bool }

// deadline is how long a test waits for what must happen.
const deadline = 30 * time.Second

const (
	// lease is the shortest there is, for tests that wait for its end.
	lease = time.Second
	// longLease is for tests that fail if it ends, on a machine that is busy.
	longLease = 3 * lease
)

// Run runs the suite. newStore is called for each test, and makes a fresh store.
func Run(t *testing.T, newStore func(t *testing.T) Open, opts ...Option) {
	var s suite
	for _, o := range opts {
		o(&s)
	}
	for _, c := range []struct {
		name string
		test func(t *testing.T, open Open)
	}{
		{"Claim", testClaim},
		{"Answers", testAnswers},
		{"LargeAnswer", testLargeAnswer},
		{"Release", testRelease},
		{"Renew", testRenew},
		{"LeaseExpires", testLeaseExpires},
		{"CompleteLate", testCompleteLate},
		{"AnswerExpires", testAnswerExpires},
		{"ContextEnds", testContextEnds},
		{"Race", testRace},
		{"RaceAtExpiry", testRaceAtExpiry},
		{"Model", testModel},
		{"OneExecution", testOneExecution},
		{"Stalled", testStalled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test := func(t *testing.T) { c.test(t, newStore(t)) }
			if s.bubble {
				synctest.Test(t, test)
				return
			}
			test(t)
		})
	}
}

// NewClaim returns a claim of a new owner on the key that name stands for, by the
// request that print stands for.
func NewClaim(name, print string) idempotency.Claim {
	c := idempotency.Claim{Owner: rand.Text(), Lease: time.Minute, TTL: time.Hour}
	c.Key = string(bytes.Repeat([]byte("0"), 64-2*len(name)))
	for _, b := range []byte(name) {
		c.Key += string([]byte{"0123456789abcdef"[b>>4], "0123456789abcdef"[b&15]})
	}
	copy(c.Fingerprint[:], print)
	return c
}

func short(c idempotency.Claim) idempotency.Claim {
	c.Lease = lease
	return c
}

// sameAnswer compares answers: no header is an empty one, no body an empty one.
var sameAnswer = cmpopts.EquateEmpty()

// expect claims and compares what comes of it.
func expect(t *testing.T, s idempotency.Store, c idempotency.Claim, want idempotency.Outcome) {
	t.Helper()
	got, err := s.Claim(t.Context(), c)
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	if diff := cmp.Diff(want, got, sameAnswer); diff != "" {
		t.Fatalf("Claim (-want +got):\n%s", diff)
	}
}

// claims is a claim that gets the key.
func claims(t *testing.T, s idempotency.Store, c idempotency.Claim) {
	t.Helper()
	expect(t, s, c, idempotency.Outcome{State: idempotency.Claimed})
}

// busy is a claim that finds by's.
func busy(t *testing.T, s idempotency.Store, c, by idempotency.Claim) {
	t.Helper()
	expect(t, s, c, idempotency.Outcome{State: idempotency.InProgress, Fingerprint: by.Fingerprint})
}

// does calls a method that must not fail.
func does(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func loses(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, idempotency.ErrLost) {
		t.Fatalf("%s = %v, want ErrLost", what, err)
	}
}

// claimsSoon claims until it gets the key, and tells how long that took.
func claimsSoon(t *testing.T, s idempotency.Store, c idempotency.Claim) time.Duration {
	t.Helper()
	started := time.Now()
	late := time.After(deadline)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		o, err := s.Claim(t.Context(), c)
		if err != nil {
			t.Fatalf("Claim: %v", err)
		}
		if o.State == idempotency.Claimed {
			return time.Since(started)
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the key is still %v", o.State)
		}
	}
}

var answer = idempotency.Answer{
	Status: http.StatusCreated,
	Header: http.Header{"Content-Type": {"application/json"}, "Location": {"/users/7"}},
	Body:   []byte(`{"id":7}`),
}

func testClaim(t *testing.T, open Open) {
	s, other := open(t), open(t)
	first, second := NewClaim("a", "one"), NewClaim("a", "two")
	claims(t, s, first)
	busy(t, s, second, first)
	busy(t, other, second, first)
	claims(t, s, first)                    // once more, as after an answer that got lost
	claims(t, other, NewClaim("b", "one")) // another key is another matter
	does(t, s.Complete(t.Context(), first, answer))
	for _, c := range []idempotency.Claim{first, second, NewClaim("a", "one")} {
		expect(t, other, c, idempotency.Outcome{State: idempotency.Completed, Fingerprint: first.Fingerprint, Answer: answer})
	}
}

func testAnswers(t *testing.T, open Open) {
	s, other := open(t), open(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, a := range map[string]idempotency.Answer{
		"empty":    {Status: http.StatusNoContent},
		"refusal":  {Status: http.StatusConflict, Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: []byte("{}")},
		"binary":   {Status: http.StatusOK, Header: http.Header{"X-Latin": {"caf\xe9"}, "Content-Type": {"image/png"}}, Body: every},
		"headers":  {Status: http.StatusOK, Header: http.Header{"Set-Cookie": {"a=1", "b=2"}, "X-Empty": {""}, "Vary": {"Accept, Origin"}}},
		"not kept": {Status: http.StatusOK, Omitted: true},
	} {
		c := NewClaim(name, "one")
		claims(t, s, c)
		does(t, s.Complete(t.Context(), c, a))
		does(t, s.Complete(t.Context(), c, a)) // again, as after an answer that got lost
		expect(t, other, NewClaim(name, "one"), idempotency.Outcome{State: idempotency.Completed, Fingerprint: c.Fingerprint, Answer: a})
	}
}

// The default limit is kept whole, or by its status alone.
func testLargeAnswer(t *testing.T, open Open) {
	s := open(t)
	for _, size := range []int{900 << 10, idempotency.DefaultMaxAnswer} {
		whole := idempotency.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain"}}, Body: bytes.Repeat([]byte("x"), size)}
		c := NewClaim(time.Duration(size).String(), "one")
		claims(t, s, c)
		does(t, s.Complete(t.Context(), c, whole))
		o, err := s.Claim(t.Context(), c)
		does(t, err)
		kept := bytes.Equal(o.Answer.Body, whole.Body) && cmp.Equal(o.Answer.Header, whole.Header) && !o.Answer.Omitted
		if size == idempotency.DefaultMaxAnswer && o.Answer.Omitted {
			kept = o.Answer.Body == nil && o.Answer.Header == nil
		}
		if o.State != idempotency.Completed || o.Answer.Status != http.StatusOK || !kept {
			t.Errorf("%d bytes: %v, status %d, omitted %t, %d bytes", size, o.State, o.Answer.Status, o.Answer.Omitted, len(o.Answer.Body))
		}
	}
}

func testRelease(t *testing.T, open Open) {
	s, other := open(t), open(t)
	first, second := NewClaim("a", "one"), NewClaim("a", "two")
	does(t, s.Release(t.Context(), first)) // nothing there
	claims(t, s, first)
	does(t, other.Release(t.Context(), second)) // not his
	busy(t, other, second, first)
	does(t, other.Release(t.Context(), first))
	claims(t, other, second)
	does(t, s.Release(t.Context(), first))
	busy(t, s, first, second)
	loses(t, "Renew", s.Renew(t.Context(), first))
	loses(t, "Complete", s.Complete(t.Context(), first, answer))
	busy(t, s, first, second)
	does(t, s.Complete(t.Context(), second, answer))
	does(t, s.Release(t.Context(), second)) // an answer stays
	expect(t, s, first, idempotency.Outcome{State: idempotency.Completed, Fingerprint: second.Fingerprint, Answer: answer})
	for range 3 { // a key may go to and fro
		c := NewClaim("b", "one")
		claims(t, s, c)
		does(t, s.Release(t.Context(), c))
	}
}

// A renewed claim outlasts its lease.
func testRenew(t *testing.T, open Open) {
	s, other := open(t), open(t)
	first, second := NewClaim("a", "one"), NewClaim("a", "two")
	first.Lease = longLease
	claims(t, s, first)
	tick := time.NewTicker(longLease / 8)
	defer tick.Stop()
	for range 12 {
		<-tick.C
		does(t, s.Renew(t.Context(), first))
		busy(t, other, second, first)
	}
	does(t, s.Complete(t.Context(), first, answer))
	expect(t, other, second, idempotency.Outcome{State: idempotency.Completed, Fingerprint: first.Fingerprint, Answer: answer})
}

// Whose lease expired can do no harm to who has the key then.
func testLeaseExpires(t *testing.T, open Open) {
	s, other := open(t), open(t)
	first, second := short(NewClaim("a", "one")), NewClaim("a", "two")
	started := time.Now()
	claims(t, s, first)
	claimsSoon(t, other, second)
	if took := time.Since(started); took < lease {
		t.Errorf("the lease of %v was over after %v", lease, took)
	}
	loses(t, "Renew", s.Renew(t.Context(), first))
	loses(t, "Complete", s.Complete(t.Context(), first, answer))
	does(t, s.Release(t.Context(), first))
	busy(t, s, first, second)
	does(t, other.Renew(t.Context(), second))
	does(t, other.Complete(t.Context(), second, answer))
	loses(t, "Complete", s.Complete(t.Context(), first, idempotency.Answer{Status: http.StatusTeapot}))
	expect(t, s, first, idempotency.Outcome{State: idempotency.Completed, Fingerprint: second.Fingerprint, Answer: answer})
}

// An answer that comes after the lease counts if nobody else has begun.
func testCompleteLate(t *testing.T, open Open) {
	s, other := open(t), open(t)
	first := short(NewClaim("a", "one"))
	claims(t, s, first)
	<-time.After(2 * lease)
	does(t, s.Complete(t.Context(), first, answer))
	expect(t, other, NewClaim("a", "two"), idempotency.Outcome{State: idempotency.Completed, Fingerprint: first.Fingerprint, Answer: answer})
}

func testAnswerExpires(t *testing.T, open Open) {
	s, other := open(t), open(t)
	first, second := NewClaim("a", "one"), NewClaim("a", "two")
	first.TTL = time.Second
	claims(t, s, first)
	does(t, s.Complete(t.Context(), first, answer))
	if took := claimsSoon(t, other, second); took > first.Lease/2 {
		t.Errorf("the answer was kept for %v", took)
	}
	does(t, other.Complete(t.Context(), second, answer))
	expect(t, s, first, idempotency.Outcome{State: idempotency.Completed, Fingerprint: second.Fingerprint, Answer: answer})
}

func testContextEnds(t *testing.T, open Open) {
	s := open(t)
	c := NewClaim("a", "one")
	claims(t, s, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Claim(ctx, NewClaim("b", "one"))
	for what, err := range map[string]error{
		"Claim": err, "Renew": s.Renew(ctx, c), "Complete": s.Complete(ctx, c, answer), "Release": s.Release(ctx, c),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", what, err)
		}
	}
	busy(t, s, NewClaim("a", "two"), c)
}

// Of many claims at once exactly one gets the key.
func testRace(t *testing.T, open Open) {
	stores := []idempotency.Store{open(t), open(t), open(t)}
	for round := range 8 {
		name := string(rune('a' + round))
		var won atomic.Int64
		race(12, func(i int) {
			o, err := stores[i%len(stores)].Claim(t.Context(), NewClaim(name, "one"))
			switch {
			case err != nil:
				t.Errorf("Claim: %v", err)
			case o.State == idempotency.Claimed:
				won.Add(1)
			case o.State != idempotency.InProgress:
				t.Errorf("it is %v", o.State)
			}
		})
		if won.Load() != 1 {
			t.Fatalf("%d claims got the key", won.Load())
		}
	}
}

// The same as a lease expires, which is where a claim replaces another.
func testRaceAtExpiry(t *testing.T, open Open) {
	stores := []idempotency.Store{open(t), open(t), open(t)}
	claims(t, stores[0], short(NewClaim("a", "one")))
	var won atomic.Int64
	late := time.Now().Add(deadline)
	race(8, func(i int) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for c := NewClaim("a", "two"); won.Load() == 0 && time.Now().Before(late); <-tick.C {
			o, err := stores[i%len(stores)].Claim(t.Context(), c)
			if err != nil {
				t.Errorf("Claim: %v", err)
				return
			}
			if o.State == idempotency.Claimed {
				won.Add(1)
				return
			}
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d claims got the key", won.Load())
	}
}

// race runs f n times at once, beginning together.
func race(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}
