package middleware

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/problem"
)

// A ShedOption changes what [Shed] does.
type ShedOption func(*shedding)

type shedding struct {
	limiter  *concurrency.Limiter
	priority func(*http.Request) concurrency.Priority
	exempt   func(*http.Request) bool
}

// PriorityBy tells a request's priority in place of [HeaderPriority], such as by
// its route or by who sent it. It must be safe for concurrent use.
func PriorityBy(of func(*http.Request) concurrency.Priority) ShedOption {
	return func(s *shedding) { s.priority = of }
}

// HeaderPriority is the priority that the header X-Request-Priority says, or
// Normal if it says none or nonsense. Anybody can set it: where strangers call,
// something before must remove or replace it, as the gateway does, or [PriorityBy]
// must tell priorities otherwise.
func HeaderPriority(r *http.Request) concurrency.Priority {
	said := r.Header[concurrency.Header]
	if len(said) == 0 {
		return concurrency.Normal
	}
	p, _ := concurrency.ParsePriority(said[0]) // of nonsense it is Normal
	return p
}

// NeverShed admits the requests it says yes to, whatever the load, and does not
// count them, in place of those for /livez, /readyz, /health and /metrics: a probe
// that is refused would have the instance restarted for being busy. It must be
// safe for concurrent use.
func NeverShed(exempt func(*http.Request) bool) ShedOption {
	return func(s *shedding) { s.exempt = exempt }
}

func isProbe(r *http.Request) bool {
	switch r.URL.Path {
	case "/livez", "/readyz", "/health", "/metrics":
		return true
	}
	return false
}

// Shed refuses requests that l has no room for, at once and before any work is
// done for them, so that the others are served in time: 503 with the code
// problem.CodeOverloaded and a Retry-After of 1 to 3 seconds at random. With a
// concurrency.Queue they may wait for room first. A request whose deadline is over
// by then is not begun: 504. Put Shed inside [Timeout], which sets deadlines, and
// [AccessLog] and [Metrics], which see what was refused.
//
// The request's priority is in its context, for the calls made on the way. A nil
// limiter refuses nothing, and only does that.
//
// How long requests take is compared by route, see concurrency.Token.Of; a client
// that left counts as one that had to wait too long, if it waited for longer than
// is usual. What streams does not count as under way once it has begun to: a
// text/event-stream when it is flushed, a connection that is hijacked, such as a
// WebSocket, and what [BeginStream] was called for.
func Shed(l *concurrency.Limiter, opts ...ShedOption) Middleware {
	s := &shedding{limiter: l, priority: HeaderPriority, exempt: isProbe}
	for _, set := range opts {
		set(s)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(next, w, r) })
	}
}

func (s *shedding) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	inner, priority := r, s.priority(r)
	if priority != concurrency.Normal {
		inner = r.WithContext(concurrency.ContextWithPriority(r.Context(), priority))
	}
	if s.exempt(r) {
		pass(next, w, r, inner)
		return
	}
	token, err := s.limiter.Acquire(r.Context(), priority)
	if err != nil {
		refuse(w, r, err)
		return
	}
	rec := record(w, r)
	if rec.place.taken { // by a Shed further out
		rec = &recorder{w: rec, head: rec.head, base: rec.base}
	}
	rec.place = place{token: token, taken: true}
	if s.limiter != nil {
		// Requests that have arrived and only lack a CPU go first, as far as to here.
		// Otherwise a service whose handlers do nothing but compute would have all its
		// queue in front of the limiter, which would see a few at a time and never
		// more. It costs 0.1 µs when nobody waits.
		runtime.Gosched()
	}
	returned := false
	defer func() {
		if rec.place.taken {
			rec.place.taken = false
			s.end(token, rec, r, returned)
		}
	}()
	pass(next, rec, r, inner)
	returned = true
}

// Kinds of requests whose latency is not that of their route: they failed early,
// or late.
const (
	kindRefused = "4xx"
	kindFailed  = "5xx"
)

// end gives the request's place back with what is to be learned from it.
func (s *shedding) end(token concurrency.Token, rec *recorder, r *http.Request, returned bool) {
	kind := cmp.Or(r.Pattern, rec.pattern)
	switch {
	case r.Context().Err() != nil:
		token.Of(kind).Abandoned()
	case !returned:
		token.Ignore() // a panic: how long it took means nothing
	case rec.status >= http.StatusInternalServerError:
		token.Of(kindFailed).Success()
	case rec.status >= http.StatusBadRequest:
		token.Of(kindRefused).Success()
	default:
		token.Of(kind).Success()
	}
}

// refuse answers a request that was not admitted.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		Fail(w, r, problem.New(http.StatusGatewayTimeout, problem.CodeDeadline,
			"The time for this request was over before there was room to begin it."))
		return
	}
	rec := record(w, r)
	after, code := time.Second, problem.CodeUnavailable
	detail := "The service is stopping; try again." // or the client left, and nobody reads it
	if limit, ok := errors.AsType[*concurrency.LimitError](err); ok {
		after, code = limit.RetryAfter(), problem.CodeOverloaded
		detail = "More requests are under way than the service can answer in time; try again later."
		rec.shed = true
	}
	// Whole seconds, rounded: the times are spread evenly, and stay so.
	rec.Header().Set("Retry-After", strconv.Itoa(int(after.Round(time.Second)/time.Second)))
	Fail(rec, r, problem.New(http.StatusServiceUnavailable, code, detail))
}

// place is a request's place among those under way.
type place struct {
	token concurrency.Token
	taken bool
}

// leave gives the place back without having learned anything.
func (p *place) leave() {
	if p.taken {
		p.taken = false
		p.token.Ignore()
	}
}

// BeginStream tells that what follows on w has no end of its own, or mostly waits,
// such as a long poll: the request does not count any more for [Shed]. w may be
// wrapped, if the wrapper has Unwrap. It is for the goroutine that writes the
// response.
func BeginStream(w http.ResponseWriter) {
	for {
		if rec, ok := w.(*recorder); ok {
			rec.place.leave()
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = wrapper.Unwrap()
	}
}
