package client

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keelson-go/keelson/balance"
)

// race is a try that gets company if it takes long: a hedge, the same request to another
// instance, and after as long again one more, as far as tries and budget go. The first
// answer that is no failure wins, and all other tries are cancelled. A hedge that fails
// while the first try still waits goes on to another instance. If the budget has nothing
// left it is asked again later, less and less often: who waits longest by far is a call
// that has come to an instance which hangs.
//
// The first try runs in the caller's goroutine. A hedge has the timer's goroutine, which
// exists only once the timer fires and ends with the hedge: when that is lost, its
// context is over. Who is second to know that a try has lost gets rid of its answer. As it
// may be a moment longer under way than the call, it has a copy of the request.
type race struct {
	c      *call
	after  time.Duration
	cancel context.CancelCauseFunc // of the first try
	timer  *time.Timer

	mu     sync.Mutex
	pause  time.Duration // before the budget is asked again
	broke  bool          // it has just refused
	over   bool          // the caller's goroutine goes on: nothing of c may be touched
	failed bool          // the first try has
	hedges []*hedge
	active int           // hedges under way
	best   *hedge        // the one that has won, else one that has failed with an answer, else any that has failed
	told   chan struct{} // holds one signal: active or best has changed
}

// hedge is one more try of a race, or several in turn.
type hedge struct {
	ep   *balance.Endpoint
	req  *http.Request
	give context.CancelCauseFunc // ends it
	end  outcome
}

// race tries ep, and other instances as well if there is no answer after a time.
func (c *call) race(ep *balance.Endpoint, after time.Duration) outcome {
	ctx, cancel := context.WithCancelCause(c.req.Context())
	r, ok := c.up.races.Get().(*race)
	if !ok {
		r = new(race)
	}
	r.c, r.after, r.pause, r.cancel = c, after, after, cancel
	r.mu.Lock() // start may come before the timer is known
	if r.timer == nil {
		r.timer = time.AfterFunc(after, r.start)
	} else {
		r.timer.Reset(after)
	}
	r.mu.Unlock()
	returned := false
	defer func() {
		if !returned { // a panic goes up
			r.leave()
		}
	}()
	first := c.send(ctx, cancel, ep, nil)
	returned = true
	return r.finish(first)
}

// leave ends the race for a caller who does not wait for its end.
func (r *race) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.timer.Stop()
	r.giveUp(nil)
	if r.best != nil {
		drop(r.best.end.resp)
	}
}

// start runs a hedge; the timer calls it.
func (r *race) start() {
	r.mu.Lock()
	ctx, h := r.enter()
	switch {
	case h != nil:
		r.active++
		r.c.up.hedges.Add(1)
		r.timer.Reset(r.after)
	case r.broke:
		r.pause *= 2
		r.timer.Reset(r.pause)
	}
	r.mu.Unlock()
	for h != nil {
		ctx, h = r.proceed(h, r.c.send(ctx, h.give, h.ep, h.req))
	}
}

// enter decides whether there is one more try, and which instance gets it. r.mu is held.
func (r *race) enter() (context.Context, *hedge) {
	c := r.c
	r.broke = false
	if r.over || r.won() || c.req.Context().Err() != nil || c.attempts+len(r.hedges) >= c.retry.MaxAttempts {
		return nil, nil
	}
	if !worth(c.left(time.Now()), 0) {
		return nil, nil
	}
	tried := slices.Clone(c.tried)
	for _, h := range r.hedges {
		tried = append(tried, h.ep)
	}
	rotation := c.up.rotation(c.discover.Endpoints(c.up.name))
	ep := balance.PickExcept(c.up.picker, rotation, tried)
	if ep == nil {
		return nil, nil
	}
	if r.broke = !c.up.budget.Withdraw(); r.broke {
		return nil, nil
	}
	if r.told == nil {
		r.told = make(chan struct{}, 1)
	}
	ctx, give := context.WithCancelCause(c.req.Context())
	h := &hedge{ep: ep, req: c.req.Clone(c.req.Context()), give: give}
	r.hedges = append(r.hedges, h)
	return ctx, h
}

// won reports whether a hedge has. r.mu is held.
func (r *race) won() bool { return r.best != nil && r.best.end.fate.wins() }

// proceed takes the end of a hedge. If it has failed, it may go on with another instance.
func (r *race) proceed(h *hedge, end outcome) (context.Context, *hedge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.failed && end.fate.means().repeat != never && r.c.wanted(&end) { // if it has, it is the caller's business: see plan
		if ctx, next := r.enter(); next != nil {
			r.c.up.retries[end.fate].Add(1)
			drop(end.resp)
			return ctx, next
		}
	}
	h.end = end
	r.active--
	switch {
	case r.over || r.best != nil && choose(r.best.end, end) == 0:
		drop(end.resp)
		return nil, nil
	case r.best != nil:
		drop(r.best.end.resp)
	}
	if r.best = h; r.won() {
		r.cancel(errLost)
		r.giveUp(h)
	}
	select {
	case r.told <- struct{}{}:
	default: // there is a signal that was not heard yet
	}
	return nil, nil
}

// giveUp ends all hedges but one. r.mu is held.
func (r *race) giveUp(but *hedge) {
	why := errLost
	if gone := context.Cause(r.c.req.Context()); gone != nil { // which may not have reached them yet
		why = gone
	}
	for _, h := range r.hedges {
		if h != but {
			h.give(why)
		}
	}
}

// finish takes the first try's end and returns the race's.
func (r *race) finish(first outcome) outcome {
	c := r.c
	r.mu.Lock()
	if len(r.hedges) == 0 {
		r.over = true
		r.mu.Unlock()
		if r.timer.Stop() { // nobody else has ever seen this race
			r.c, r.cancel, r.over = nil, nil, false
			c.up.races.Put(r)
		}
		return first
	}
	r.failed = !first.fate.wins()
	// A failed try waits for the others, unless there is nobody to wait.
	for r.failed && r.active > 0 && !r.won() && c.req.Context().Err() == nil {
		r.mu.Unlock()
		select {
		case <-r.told:
		case <-c.req.Context().Done():
		}
		r.mu.Lock()
	}
	r.over = true
	won, best := r.won(), r.best
	var taken *hedge
	if won || best != nil && choose(first, best.end) == 1 {
		taken = best
	}
	r.giveUp(taken)
	for _, h := range r.hedges {
		c.tried = append(c.tried, h.ep)
	}
	c.attempts += len(r.hedges)
	r.mu.Unlock()
	r.timer.Stop()

	if taken == nil {
		if best != nil {
			drop(best.end.resp)
		}
		return first
	}
	drop(first.resp)
	if won {
		c.up.hedgesWon.Add(1)
	}
	if first.fate == lost {
		// Its time is unknown but for this: recorded as long as it took, an instance
		// that hangs would make the hedges come later and later.
		c.up.answers.record(r.after)
	}
	return taken.end
}

// choose says which of two tries is the better one, the first (0) or the second (1): an
// answer before a failure, a failure with an answer before one without; the first if
// there is no difference.
func choose(first, second outcome) int {
	switch {
	case first.fate.wins():
		return 0
	case second.fate.wins(), first.resp == nil && second.resp != nil:
		return 1
	}
	return 0
}

// drop closes an answer that lost; its context is over, so its connection is, too.
func drop(resp *http.Response) {
	if resp != nil {
		_ = resp.Body.Close()
	}
}

// hedgeAfter returns how long a try is waited for before it is hedged; 0 is for ever.
func (t *Transport) hedgeAfter(u *upstream) time.Duration {
	usual := u.answers.usual()
	if !t.hedges || usual == 0 {
		return 0
	}
	return max(usual, t.hedging.MinDelay)
}
