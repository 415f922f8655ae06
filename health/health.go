package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Status is the state of a process, or of one thing it depends on.
type Status string

// The states of a process. A dependency is [Healthy], [Unhealthy] or [Unknown].
const (
	Starting  Status = "starting"  // not able to serve yet
	Healthy   Status = "healthy"   // serving
	Degraded  Status = "degraded"  // serving, with something not critical missing
	Unhealthy Status = "unhealthy" // not able to serve
	Draining  Status = "draining"  // finishing what it has, taking nothing new
	Unknown   Status = "unknown"   // a check that has not run yet
)

// Serving reports whether requests should be sent there: healthy or degraded.
func (s Status) Serving() bool { return s == Healthy || s == Degraded }

// ErrDuplicate is returned, wrapped, for a name that is taken.
var ErrDuplicate = errors.New("the name is taken")

// ErrRan is returned by [Health.Run] when it is called a second time.
var ErrRan = errors.New("health: Run was called before")

// A Health is the state of one process. Make it with [New].
type Health struct {
	version  string
	began    time.Time
	defaults []CheckOption
	added    chan struct{} // cap 1: unstarted has something for Run

	mu         sync.Mutex // held for bookkeeping only, never while foreign code runs
	ran        bool
	started    bool
	left       bool // has left Starting, for good
	draining   bool
	dead       string // the reason, "" while alive
	status     Status
	deps       map[string]*dependency
	unstarted  []*dependency
	details    map[string]func() any
	listeners  []func(from, to Status)
	pending    []transition
	delivering bool
	wake       chan struct{} // closed at the next update; nil if nobody waits
}

// dependency is a check, or a condition somebody reports (run is nil then).
type dependency struct {
	name     string
	run      Check
	critical bool
	timeout  time.Duration
	interval time.Duration

	// Guarded by Health.mu.
	ran     bool   // has a result
	passed  bool   // has passed once
	failure string // what the last result said, "" for a pass
	took    time.Duration
	at      time.Time
}

type transition struct {
	from, to  Status
	listeners []func(from, to Status)
}

// An Option changes a Health as it is made.
type Option func(*Health)

// Defaults gives options for every check, applied before the check's own.
func Defaults(opts ...CheckOption) Option {
	return func(h *Health) { h.defaults = append(h.defaults, opts...) }
}

// New returns a Health that is Starting. Uptime counts from here. version is
// shown as it is.
func New(version string, opts ...Option) *Health {
	h := &Health{
		version: version,
		began:   time.Now(),
		added:   make(chan struct{}, 1),
		status:  Starting,
		deps:    map[string]*dependency{},
		details: map[string]func() any{},
	}
	for _, o := range opts {
		o(h)
	}
	return h
}

// Add adds a check. It first runs when [Health.Run] starts, or at once if Run is
// under way. A check added after the process has left Starting counts from its
// first result on.
//
// An empty or taken name (ErrDuplicate), a nil check and an option out of range
// are errors, and nothing is added.
func (h *Health) Add(name string, c Check, opts ...CheckOption) error {
	d := &dependency{name: name, run: c, timeout: defaultTimeout, interval: defaultInterval}
	for _, o := range slices.Concat(h.defaults, opts) {
		o(d)
	}
	if err := h.add(d); err != nil {
		return fmt.Errorf("health: add check %q: %w", name, err)
	}
	select {
	case h.added <- struct{}{}:
	default: // Run has been told already and has not looked yet
	}
	return nil
}

func (h *Health) add(d *dependency) error {
	switch {
	case d.name == "":
		return errors.New("the name is empty: give it one, like \"database\"")
	case d.run == nil:
		return errors.New("the check is nil: give a function")
	case d.timeout <= 0:
		return fmt.Errorf("Timeout is %v: give more than 0", d.timeout)
	case d.interval <= 0:
		return fmt.Errorf("Interval is %v: give more than 0", d.interval)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deps[d.name] != nil {
		return ErrDuplicate
	}
	h.deps[d.name] = d
	h.unstarted = append(h.unstarted, d)
	return nil
}

// Set reports a condition the process knows by itself, like "registration": nil
// means it holds. The first report of a name makes the condition; a later one
// replaces it, critical included. Conditions count in the status, but neither
// Starting nor [Health.WaitReady] waits for them.
//
// If name is a check, err stands in for its result until it runs next, and
// critical is ignored.
func (h *Health) Set(name string, err error, critical bool) {
	failure := oneLine(err)
	h.update(func() {
		d := h.deps[name]
		if d == nil {
			d = &dependency{name: name}
			h.deps[name] = d
		}
		if d.run == nil {
			d.critical = critical
		}
		d.record(failure, 0)
	})
}

// record notes a result; Health.mu is held.
func (d *dependency) record(failure string, took time.Duration) {
	d.ran, d.passed = true, d.passed || failure == ""
	d.failure, d.took, d.at = failure, took, time.Now()
}

// Started says that the process can serve from its own side. The status leaves
// Starting as soon as every critical check has passed once.
func (h *Health) Started() { h.update(func() { h.started = true }) }

// Drain makes the status Draining, for good.
func (h *Health) Drain() { h.update(func() { h.draining = true }) }

// Dead says that the process is beyond repair and should be replaced:
// [Health.Live] fails from now on, and the status is Unhealthy (or Draining).
// The first reason stays; a nil one is given a text.
func (h *Health) Dead(reason error) {
	text := cmp.Or(oneLine(reason), "no reason given")
	h.update(func() { h.dead = cmp.Or(h.dead, text) })
}

// Status returns the status now.
func (h *Health) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

// OnChange has f called at every change of status from now on. Calls come one at
// a time, in the order of the changes, from the goroutine of one who made a
// change, with no lock held: f may call any method, and what it changes is told
// after it has returned. A change may be over when f hears of it, and a method
// that changes the status may return before f was called. f should be quick:
// the next change waits for it.
func (h *Health) OnChange(f func(from, to Status)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A pending transition keeps the slice at its old length, so f does not hear it.
	h.listeners = append(h.listeners, f)
}

// WaitReady returns nil once every critical check has passed and every other
// check has run, both at least once. When ctx ends first, the error wraps ctx's
// and names the checks that were waited for. It needs Run to be under way.
func (h *Health) WaitReady(ctx context.Context) error {
	for {
		h.mu.Lock()
		missing := h.missing()
		if len(missing) == 0 {
			h.mu.Unlock()
			return nil
		}
		if h.wake == nil {
			h.wake = make(chan struct{})
		}
		wake := h.wake
		h.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("health: waiting for %s: %w", strings.Join(missing, ", "), ctx.Err())
		}
	}
}

// missing names the checks WaitReady waits for, with what they said; h.mu is held.
func (h *Health) missing() []string {
	var names []string
	for _, d := range h.deps {
		switch {
		case d.run == nil, d.passed, d.ran && !d.critical:
		case d.ran:
			names = append(names, d.name+" ("+d.failure+")")
		default:
			names = append(names, d.name)
		}
	}
	slices.Sort(names)
	return names
}

// update changes the state under the lock, works out the status anew, and tells
// the listeners outside the lock.
func (h *Health) update(change func()) {
	h.mu.Lock()
	change()
	if to := h.evaluate(); to != h.status {
		h.pending = append(h.pending, transition{h.status, to, h.listeners})
		h.status = to
	}
	if h.wake != nil {
		close(h.wake)
		h.wake = nil
	}
	h.mu.Unlock()
	h.deliver()
}

// evaluate works out the status; h.mu is held.
func (h *Health) evaluate() Status {
	if h.draining {
		return Draining
	}
	if h.dead != "" {
		return Unhealthy
	}
	if !h.left {
		for _, d := range h.deps {
			if d.run != nil && d.critical && !d.passed {
				return Starting
			}
		}
		if !h.started {
			return Starting
		}
		h.left = true
	}
	status := Healthy
	for _, d := range h.deps {
		if d.failure == "" {
			continue
		}
		if d.critical {
			return Unhealthy
		}
		status = Degraded
	}
	return status
}

// deliver tells pending transitions to the listeners. Only one goroutine does so
// at a time, which keeps the order; others leave theirs to it. So a listener
// that changes the status itself comes straight back.
func (h *Health) deliver() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.delivering {
		return
	}
	h.delivering = true
	defer func() { h.delivering = false }()
	for len(h.pending) > 0 {
		t := h.pending[0]
		h.pending = h.pending[1:]
		h.tell(t)
	}
}

// tell calls t's listeners with h.mu released, and takes it back after.
func (h *Health) tell(t transition) {
	h.mu.Unlock()
	defer h.mu.Lock()
	for _, f := range t.listeners {
		f(t.from, t.to)
	}
}
