package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// running is one Run of a group. Its fields belong to the goroutine in Run.
type running struct {
	*Group
	base     context.Context // Run's values, without its end
	tasks    []*task         // the way up so far, in order
	returned chan *task      // components as they return; holds them all
}

// task is a part in motion: a component from its start, a hook from the stop.
type task struct {
	part
	cancel   context.CancelFunc // nil until launched
	deadline time.Time          // when it must have stopped
	told     bool               // its error has been told
	ready    chan struct{}
	done     chan struct{}

	// Set before done is closed, read only after.
	err error
	at  time.Time
}

// launch calls f in a goroutine of its own.
func (t *task) launch(ctx context.Context, f func(ctx context.Context) error) {
	ctx, t.cancel = context.WithCancel(ctx)
	go func() {
		// Deferred, so that runtime.Goexit counts as a return too.
		defer func() {
			t.at = time.Now()
			close(t.done)
		}()
		t.err = f(ctx)
	}()
}

// serve starts the parts and returns when it is time to stop: with nil because ctx
// ended or force was used, else with the error of the component that returned.
func (r *running) serve(ctx context.Context) error {
	for _, p := range r.parts {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being told to stop is no failure
		}
		t := &task{part: p, ready: make(chan struct{}), done: make(chan struct{})}
		r.tasks = append(r.tasks, t)
		if p.hook != nil {
			continue
		}
		begin := time.Now()
		r.logger.Debug("starting", "component", p.name)
		ready := sync.OnceFunc(func() { close(t.ready) })
		t.launch(r.base, func(ctx context.Context) error {
			defer func() { r.returned <- t }()
			return p.run(ctx, ready)
		})
		if goOn, err := r.await(ctx, t.ready); !goOn {
			return err
		}
		r.logger.Debug("started", "component", p.name, "took", time.Since(begin))
	}
	_, err := r.await(ctx, nil)
	return err
}

// await waits until ready is closed (then goOn), or it is time to stop.
func (r *running) await(ctx context.Context, ready <-chan struct{}) (goOn bool, err error) {
	select {
	case <-ready:
		return true, nil
	case t := <-r.returned:
		return false, t.early()
	case <-ctx.Done():
	case <-r.forced:
	}
	return false, nil
}

// early is the error of a component that returned before it was told to stop.
func (t *task) early() error {
	<-t.done
	t.told = true
	err := t.err
	if err == nil {
		err = ErrReturned
	}
	select {
	case <-t.ready:
		return fmt.Errorf("%s: %w", t.name, err)
	default:
		return fmt.Errorf("start %s: %w", t.name, err)
	}
}

// stop takes the tasks down in reverse order and returns what went wrong.
func (r *running) stop() error {
	over, cancelOver := context.WithTimeout(r.base, r.stopTimeout)
	defer cancelOver() // reaches hooks that still run
	defer r.cancelAll()
	slices.Reverse(r.tasks)
	for _, t := range r.tasks {
		if !r.isForced() {
			r.stopOne(over, t)
		}
	}
	if r.isForced() {
		return r.cut()
	}
	// All have been told by now. Those that are late get a moment more.
	last, cancelLast := context.WithTimeout(r.base, grace)
	defer cancelLast()
	var errs []error
	for _, t := range r.tasks {
		select {
		case <-t.done:
		case <-last.Done():
		case <-r.forced:
			return r.cut()
		}
		errs = append(errs, t.stopped())
	}
	return errors.Join(errs...)
}

// stopOne tells a task to stop and waits until it has, its time is over (at once,
// if over has ended), or force is used.
func (r *running) stopOne(over context.Context, t *task) {
	begin := time.Now()
	r.logger.Debug("stopping", "component", t.name)
	limit, cancel := over, context.CancelFunc(func() {})
	if t.timeout > 0 {
		limit, cancel = context.WithTimeout(over, t.timeout)
	}
	defer cancel()
	t.deadline, _ = limit.Deadline()
	if t.hook != nil {
		t.launch(limit, t.hook)
	} else {
		t.cancel()
	}
	select {
	case <-t.done:
		r.logger.Debug("stopped", "component", t.name, "took", time.Since(begin))
	case <-limit.Done():
	case <-r.forced:
	}
}

// cancelAll ends the context of every task that was launched.
func (r *running) cancelAll() {
	for _, t := range r.tasks {
		if t.cancel != nil {
			t.cancel()
		}
	}
}

// stopped is what went wrong with a task's stop, seen after the last wait.
func (t *task) stopped() error {
	select {
	case <-t.done:
	default:
		return fmt.Errorf("stop %s: still running: %w", t.name, ErrStopTimeout)
	}
	err := t.err
	// One that returned before its turn, with force used since, has no deadline.
	late := !t.deadline.IsZero() && !t.at.Before(t.deadline)
	if t.told || t.run != nil && errors.Is(err, context.Canceled) || late && errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	switch {
	case late && err != nil:
		return fmt.Errorf("stop %s: %w: %w", t.name, ErrStopTimeout, err)
	case late:
		return fmt.Errorf("stop %s: %w", t.name, ErrStopTimeout)
	case err != nil:
		return fmt.Errorf("stop %s: %w", t.name, err)
	}
	return nil
}

func (r *running) isForced() bool {
	select {
	case <-r.forced:
		return true
	default:
		return false
	}
}

// cut is the end by force: it names what is left behind.
func (r *running) cut() error {
	errs := []error{ErrForced}
	for _, t := range r.tasks {
		if t.cancel == nil {
			errs = append(errs, fmt.Errorf("stop %s: not called", t.name))
			continue
		}
		select {
		case <-t.done:
			errs = append(errs, t.stopped())
		default:
			errs = append(errs, fmt.Errorf("stop %s: still running", t.name))
		}
	}
	return errors.Join(errs...)
}
