package idempotency

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Defaults of [Middleware].
const (
	// DefaultTTL is how long an answer is kept: longer than any client goes on trying
	// without a person looking, and a day's keys still fit in a database.
	DefaultTTL = 24 * time.Hour
	// DefaultLease is how long a claim outlives its process. It has to bridge a
	// paused process and a store that fails over, and holds up the next try after a
	// crash for no longer than clients are used to wait.
	DefaultLease = 30 * time.Second
	// DefaultMaxAnswer and DefaultMaxRequest bound the memory a request takes. They
	// are what a service takes as a body by default.
	DefaultMaxAnswer  = 1 << 20 // bytes
	DefaultMaxRequest = 1 << 20 // bytes
)

// minLease is a second because stores count in seconds.
const minLease = time.Second

// Option changes a default of [Middleware].
type Option func(*guard)

// WithTTL sets how long answers are kept; [DefaultTTL] by default, a second at
// least.
func WithTTL(d time.Duration) Option { return func(g *guard) { g.ttl = d } }

// WithLease sets how long a claim outlives its process; [DefaultLease] by default,
// a second at least. It is renewed three times as often.
func WithLease(d time.Duration) Option { return func(g *guard) { g.lease = d } }

// WithWait has a request wait for that long while another one with its key is
// carried out, to get its answer instead of 409; 0, the default, is not at all. It
// helps clients that try again after a timeout of their own.
func WithWait(d time.Duration) Option { return func(g *guard) { g.wait = d } }

// WithRequired refuses POST and PATCH without a key.
func WithRequired() Option { return func(g *guard) { g.required = true } }

// WithScope sets who a key belongs to: each caller has keys of his own. By default
// it is the header X-Auth-Subject, in which the gateway tells the verified subject;
// all callers without one share their keys. It must name a caller in the same way
// when he tries again, so a token that gets renewed won't do.
func WithScope(f func(*http.Request) string) Option { return func(g *guard) { g.scope = f } }

// WithRoute sets which route a request is for: each has keys of its own. By default
// it is [http.Request.Pattern], which ServeMux sets for the handlers it calls. Around
// a mux it is "" for all, and a key used on two routes is 422; there
//
//	WithRoute(func(r *http.Request) string { _, pattern := mux.Handler(r); return pattern })
//
// gives the same as inside.
func WithRoute(f func(*http.Request) string) Option { return func(g *guard) { g.route = f } }

// WithKeep sets which answers are kept, by their status, instead of those the
// package documentation names. An answer that is not kept gives the claim back.
func WithKeep(f func(status int) bool) Option { return func(g *guard) { g.keep = f } }

// WithMaxAnswer sets the most bytes of an answer's body that are kept,
// [DefaultMaxAnswer] by default. Stores may have a lower limit of their own.
func WithMaxAnswer(n int) Option { return func(g *guard) { g.maxAnswer = n } }

// WithMaxRequest sets the most bytes a request with a key may have, since it is
// read before it is carried out; [DefaultMaxRequest] by default. Larger ones
// get 413.
func WithMaxRequest(n int64) Option { return func(g *guard) { g.maxRequest = n } }

// WithLogger sets where failures of the store are logged that the client is not
// told or can't be; slog.Default by default. Keys are never logged.
func WithLogger(l *slog.Logger) Option { return func(g *guard) { g.log = l } }

// guard is the middleware.
type guard struct {
	store      Store
	ttl, lease time.Duration
	wait       time.Duration
	required   bool
	scope      func(*http.Request) string
	route      func(*http.Request) string
	keep       func(int) bool
	maxAnswer  int
	maxRequest int64
	log        *slog.Logger
}

// Middleware carries out a request with an Idempotency-Key at most once, as the
// package documentation says, with the keys in store. The error names the option
// that is wrong.
//
// It belongs inside what identifies the caller and limits the body, and around what
// has effects. It hands the handler a ResponseWriter that keeps the answer back; it
// can't be hijacked, and [http.ResponseController] reaches the one beneath.
func Middleware(store Store, opts ...Option) (func(http.Handler) http.Handler, error) {
	g := &guard{
		store: store, ttl: DefaultTTL, lease: DefaultLease, maxAnswer: DefaultMaxAnswer, maxRequest: DefaultMaxRequest,
		scope: subject, route: func(r *http.Request) string { return r.Pattern }, keep: keeps,
		log: slog.Default(),
	}
	for _, o := range opts {
		o(g)
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(next, w, r) })
	}, nil
}

func (g *guard) check() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("idempotency: "+format, args...))
		}
	}
	wrong(g.store == nil, "store is nil: give one that all instances of the service share")
	wrong(g.ttl < minLease, "WithTTL(%v) is too short: give a second at least", g.ttl)
	wrong(g.lease < minLease, "WithLease(%v) is too short: give a second at least", g.lease)
	wrong(g.wait < 0, "WithWait(%v) is negative: give 0 for not waiting", g.wait)
	wrong(g.maxAnswer < 0, "WithMaxAnswer(%d) is negative: give a number of bytes", g.maxAnswer)
	wrong(g.maxRequest < 0, "WithMaxRequest(%d) is negative: give a number of bytes", g.maxRequest)
	wrong(g.scope == nil || g.route == nil || g.keep == nil || g.log == nil, "WithScope, WithRoute, WithKeep and WithLogger take no nil: leave them out for the defaults")
	return errors.Join(errs...)
}

// subject is the caller as the gateway has verified him.
func subject(r *http.Request) string { return r.Header.Get("X-Auth-Subject") }

// keeps is the default of [WithKeep]. A refusal (4xx) did nothing that must not be done
// again, and if it were kept, anybody could fill the store with them.
func keeps(status int) bool { return status >= 200 && status < 400 }
