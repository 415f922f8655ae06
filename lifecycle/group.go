package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

var (
	// ErrStopTimeout is wrapped in the error of everything that had not stopped
	// when its time was over.
	ErrStopTimeout = errors.New("the time to stop is over")
	// ErrForced is returned, wrapped, when the stop was cut short (see [ForceOn]).
	ErrForced = errors.New("stopped by force")
	// ErrReturned is wrapped in the error of a component that returned nil before
	// it was told to stop.
	ErrReturned = errors.New("returned before it was told to stop")
	// ErrRan is returned by [Group.Run] when it is called a second time.
	ErrRan = errors.New("lifecycle: Run was called before")
)

const (
	defaultStopTimeout = 10 * time.Second
	// grace is how long Run waits, after the time to stop is over, for those it
	// has just told so.
	grace = time.Second
)

// A Group is the components of one process. Make it with [New].
type Group struct {
	stopTimeout time.Duration
	logger      *slog.Logger
	forced      <-chan struct{}

	mu    sync.Mutex
	parts []part
	bad   []error // what was wrong with calls of Add and OnStop
	ran   bool
}

// part is a component (run is set) or a stop hook (hook is set).
type part struct {
	name    string
	run     func(ctx context.Context, ready func()) error
	hook    func(ctx context.Context) error
	timeout time.Duration
}

// An Option changes a Group as it is made.
type Option func(*Group)

// StopTimeout is the time for the whole stop, all components and hooks together:
// 10 s by default, and for 0 or less.
func StopTimeout(d time.Duration) Option {
	return func(g *Group) {
		if d > 0 {
			g.stopTimeout = d
		}
	}
}

// Logger has every start and stop logged, at debug level. Errors are returned,
// not logged. Nil means no log.
func Logger(l *slog.Logger) Option {
	return func(g *Group) {
		if l != nil {
			g.logger = l
		}
	}
}

// ForceOn cuts the group short when c is closed: Run ends the contexts of all that
// still runs, does not wait for it, calls no more hooks and returns at once an
// error that wraps [ErrForced]. [Signals] gives such a channel.
func ForceOn(c <-chan struct{}) Option { return func(g *Group) { g.forced = c } }

// New returns an empty group.
func New(opts ...Option) *Group {
	g := &Group{stopTimeout: defaultStopTimeout, logger: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(g)
	}
	return g
}

// Add appends a component. run gets a context of its own, which carries the
// values of Run's and ends when it is this component's turn to stop. run must call
// ready once it can serve (more calls do nothing, from any goroutine), and return
// when its context has ended and its work is done; an error that is
// [context.Canceled] is then as good as nil.
//
// A run that returns earlier, ready or not, with an error or not, stops the whole
// group: a process that lacks a part should not linger. A panic in run is not
// caught, it ends the process.
//
// An empty name or a nil run is told by Run. Add must not be called after Run: it
// panics.
func (g *Group) Add(name string, run func(ctx context.Context, ready func()) error) {
	g.add(part{name: name, run: run}, run == nil)
}

// OnStop appends a stop hook: f is called on the way down, after the components
// added later have stopped and before those added earlier are told to. It is not
// called if the group stops before it has come up to this place.
//
// f's context ends after timeout (0 or less: no limit of its own), and in any case
// when the time for the whole stop is over. A hook that goes on regardless is
// named in the error and not waited for any longer. When the whole time is over,
// the hooks that are left are still called, all at once, with a context that has
// ended.
//
// An empty name or a nil f is told by Run. OnStop must not be called after Run: it
// panics.
func (g *Group) OnStop(name string, timeout time.Duration, f func(ctx context.Context) error) {
	g.add(part{name: name, hook: f, timeout: timeout}, f == nil)
}

func (g *Group) add(p part, isNil bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ran {
		panic("lifecycle: Add or OnStop was called after Run")
	}
	switch {
	case p.name == "":
		g.bad = append(g.bad, fmt.Errorf("lifecycle: part %d has no name: give it one", len(g.parts)+1))
	case isNil:
		g.bad = append(g.bad, fmt.Errorf("lifecycle: %s has no function: give it one", p.name))
	}
	g.parts = append(g.parts, p)
}

// Run starts the components in order, each when the one before is ready, and
// keeps them running until ctx ends or one of them returns. Then it stops what was
// started, in reverse order, each when the one before has stopped, and returns
// when all have.
//
// It returns nil if ctx ended and everything stopped well. Otherwise the error
// joins, in this order, what made the group stop and what went wrong while
// stopping; each names its component.
//
// If the time to stop (see [StopTimeout]) is over, all that is left is told to
// stop at once, and Run returns at most a second later, also if something still
// runs. Everything late is named with [ErrStopTimeout].
//
// Run may be called once; after that the error is [ErrRan].
func (g *Group) Run(ctx context.Context) error {
	g.mu.Lock()
	ran := g.ran
	g.ran = true
	g.mu.Unlock()
	if ran {
		return ErrRan
	}
	if len(g.bad) > 0 {
		return errors.Join(g.bad...)
	}
	r := &running{Group: g, base: context.WithoutCancel(ctx), returned: make(chan *task, len(g.parts))}
	cause := r.serve(ctx)
	return errors.Join(cause, r.stop())
}
