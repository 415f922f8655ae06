package idempotency

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
)

// The codes of the problems a client may be told.
const (
	CodeKeyRequired   = "idempotency_key_required"    // 400
	CodeKeyInvalid    = "idempotency_key_invalid"     // 400
	CodeInProgress    = "idempotency_in_progress"     // 409, the Retry-After header says when to come back
	CodeAnswerNotKept = "idempotency_answer_not_kept" // 409, it was carried out; look for what came of it
	CodeKeyReused     = "idempotency_key_reused"      // 422
)

const (
	// storePeriod bounds each question to the store, and all tries to keep an
	// answer: a client waits meanwhile, and a store that fails over takes seconds.
	storePeriod = 5 * time.Second
	// releasePeriod is less, since the lease ends by itself.
	releasePeriod = time.Second
	// firstRead is what most bodies fit into, in bytes: nothing is copied for them.
	firstRead = 16 << 10
	// retryAfter is in seconds, the least that can be said.
	retryAfter = "1"
)

func (g *guard) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		next.ServeHTTP(w, r)
		return
	}
	key, err := ParseKey(r.Header.Values(Header))
	switch {
	case err != nil:
		refuse(w, r, problem.New(http.StatusBadRequest, CodeKeyInvalid, "The header Idempotency-Key must be there once, with 1 to 255 visible ASCII characters."))
		return
	case key == "" && g.required && (r.Method == http.MethodPost || r.Method == http.MethodPatch):
		refuse(w, r, problem.New(http.StatusBadRequest, CodeKeyRequired, "This request needs the header Idempotency-Key: a new random value, such as a UUID, for each operation, and the same one each time it is tried again."))
		return
	case key == "":
		next.ServeHTTP(w, r)
		return
	}
	body, p := g.read(r)
	if p != nil {
		if p.Status == http.StatusRequestEntityTooLarge && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // the rest of the body is not read
		}
		refuse(w, r, p)
		return
	}
	c := Claim{
		Key: storeKey(g.scope(r), g.route(r), key), Fingerprint: fingerprint(r, body), Owner: rand.Text(),
		Lease: g.lease, TTL: g.ttl,
	}
	outcome, err := g.claim(r.Context(), c)
	switch {
	case err != nil:
		refuse(w, r, g.unavailable(r.Context(), err))
	case outcome.State == Claimed:
		g.carryOut(next, w, r, body, c)
	case outcome.Fingerprint != c.Fingerprint:
		refuse(w, r, problem.New(http.StatusUnprocessableEntity, CodeKeyReused, "This Idempotency-Key was used for another request. Use a new one for each operation."))
	case outcome.State == InProgress:
		w.Header().Set("Retry-After", retryAfter)
		p := problem.New(http.StatusConflict, CodeInProgress, "A request with this Idempotency-Key is being carried out. Try again later to get its answer.")
		p.Retryable = true
		refuse(w, r, p)
	case outcome.Answer.Omitted || outcome.Answer.Status < 200:
		refuse(w, r, problem.New(http.StatusConflict, CodeAnswerNotKept, "The request with this Idempotency-Key was carried out, but its answer was not kept. Look for what came of it."))
	default:
		replay(w, outcome.Answer)
	}
}

// refuse writes a problem that names the request's trace.
func refuse(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	if t, ok := telemetry.TraceFrom(r.Context()); ok {
		p.TraceID = t.TraceIDString()
	}
	problem.Write(w, r, p)
}

// read reads the whole body, which is a part of the fingerprint.
func (g *guard) read(r *http.Request) ([]byte, *problem.Problem) {
	if r.ContentLength > g.maxRequest {
		return nil, problem.From(&http.MaxBytesError{Limit: g.maxRequest})
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	// What a client says it will send is no reason to set much aside for it.
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), firstRead)+bytes.MinRead))
	n, err := body.ReadFrom(io.LimitReader(r.Body, g.maxRequest+1))
	if err == nil && n > g.maxRequest {
		err = &http.MaxBytesError{Limit: g.maxRequest}
	}
	if err == nil {
		return body.Bytes(), nil
	}
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	if tooLarge || errors.Is(err, context.DeadlineExceeded) {
		return nil, problem.From(err)
	}
	return nil, problem.New(http.StatusBadRequest, problem.CodeBadRequest, "The request body could not be read to its end.")
}

// claim asks for the key, and while somebody else has it, again for as long as
// the request may wait.
func (g *guard) claim(ctx context.Context, c Claim) (Outcome, error) {
	patience := time.Now().Add(g.wait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		outcome, err := g.ask(ctx, c)
		if err != nil || outcome.State != InProgress || outcome.Fingerprint != c.Fingerprint {
			return outcome, err
		}
		left := time.Until(patience)
		if left <= 0 {
			return outcome, nil
		}
		// Spread, so that those who wait for one answer do not all ask at once.
		if !sleep(ctx, min(left, pause/2+mathrand.N(pause))) {
			return outcome, nil // a refusal that goes to nobody, or says the same as a timeout
		}
	}
}

// ask is one claim. One that failed may have been made: it is given back, so that
// the next try need not wait for the lease to end.
func (g *guard) ask(ctx context.Context, c Claim) (Outcome, error) {
	asking, cancel := context.WithTimeout(ctx, storePeriod)
	defer cancel()
	outcome, err := g.store.Claim(asking, c)
	if err == nil {
		return outcome, nil
	}
	if releaseErr := g.release(ctx, c); releaseErr != nil {
		err = errors.Join(err, releaseErr)
	}
	return Outcome{}, err
}

func (g *guard) release(ctx context.Context, c Claim) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePeriod)
	defer cancel()
	return g.store.Release(ctx, c)
}

// unavailable is what the client is told of a store that failed.
func (g *guard) unavailable(ctx context.Context, err error) *problem.Problem {
	switch {
	case errors.Is(ctx.Err(), context.Canceled): // it reads no answer
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return problem.From(ctx.Err())
	default:
		g.log.ErrorContext(ctx, "the idempotency key could not be claimed, so the request was refused", "error", err)
	}
	return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "The store for idempotency keys can't be used at the moment. Nothing was done.")
}

// carryOut has the handler answer, keeps the answer and sends it. However the
// handler ends, the claim is completed or given back.
func (g *guard) carryOut(next http.Handler, w http.ResponseWriter, r *http.Request, body []byte, c Claim) {
	ctx, cancel := context.WithCancelCause(ContextWithClaim(r.Context(), c))
	inner := r.WithContext(ctx)
	if body != nil {
		inner.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp := newResponse(w, g.maxAnswer)
	stop := g.hold(ctx, cancel, c)
	ended := false
	defer func() {
		// What others look for in their own copy of the request.
		r.Pattern, r.MultipartForm = inner.Pattern, inner.MultipartForm
		stop()
		cancel(nil)
		if !ended { // a panic goes on, with nothing sent
			g.giveBack(r.Context(), c)
		}
	}()
	next.ServeHTTP(resp, inner)
	stop()
	ended = true
	if resp.cut(ctx) || !g.keep(resp.final()) {
		g.giveBack(r.Context(), c)
	} else {
		g.complete(r.Context(), c, resp.answer(ctx))
	}
	resp.finish()
}

// giveBack is release for when there is nothing else to do about a failure.
func (g *guard) giveBack(ctx context.Context, c Claim) {
	if err := g.release(ctx, c); err != nil {
		g.log.WarnContext(ctx, "an idempotency key could not be given back; the next request with it has to wait for the lease to end", "lease", c.Lease, "error", err)
	}
}

// complete keeps the answer, and tries again while the store is away. If all is in
// vain the answer is sent nevertheless: it is true, and who gets it won't ask again.
func (g *guard) complete(ctx context.Context, c Claim, a Answer) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), storePeriod)
	defer cancel()
	for pause := 25 * time.Millisecond; ; pause *= 2 {
		// An answer may get lost with a connection; another try comes through the next.
		try, done := context.WithTimeout(bounded, storePeriod/3)
		err := g.store.Complete(try, c, a)
		done()
		if err == nil {
			return
		}
		if errors.Is(err, ErrLost) || !sleep(bounded, pause) {
			g.log.ErrorContext(ctx, "the answer to a request with an idempotency key could not be kept; the request may be carried out once more", "error", err)
			return
		}
	}
}

// hold renews the claim until stop is called, which waits. If that fails until the
// lease may have ended, the handler is told by its context.
func (g *guard) hold(ctx context.Context, cancel context.CancelCauseFunc, c Claim) (stop func()) {
	// The client may leave; the handler has the claim for as long as it runs.
	holding, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.renew(holding, cancel, c)
	}()
	return func() {
		end()
		<-ended
	}
}

func (g *guard) renew(ctx context.Context, cancel context.CancelCauseFunc, c Claim) {
	held := time.Now() // the lease lasts from here at least
	for pause := c.Lease / 3; sleep(ctx, pause); {
		asked := time.Now()
		bounded, done := context.WithDeadline(ctx, held.Add(c.Lease))
		err := g.store.Renew(bounded, c)
		done()
		switch {
		case err == nil:
			held, pause = asked, c.Lease/3
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrLost), time.Since(held) >= c.Lease:
			cancel(lost(err))
			g.log.ErrorContext(ctx, "the claim on an idempotency key was lost while its request was carried out", "error", err)
			return
		default:
			pause = min(c.Lease/20, time.Until(held.Add(c.Lease)))
		}
	}
}

// lost makes err an ErrLost, if it is none.
func lost(err error) error {
	if errors.Is(err, ErrLost) {
		return err
	}
	return errors.Join(ErrLost, err)
}

// sleep reports whether d went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
