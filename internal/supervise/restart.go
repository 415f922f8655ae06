//go:build unix

package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What [Supervisor.Restart] can't do.
var (
	// ErrUnknown says that there is no such instance.
	ErrUnknown = errors.New("supervise: no such instance")
	// ErrStopped says that the child has stopped for good.
	ErrStopped = errors.New("supervise: it has stopped for good")
)

// Restart replaces the instance's process: SIGTERM to its group, SIGKILL after
// the grace period, and a new process at once. It returns nil when a process
// that was started after the call is healthy. A child that waits after a crash
// is started at once; one that was not started yet is waited for.
//
// If the new process ends, or is not healthy within the start timeout, the
// error is a [StartError]. A child that was healthy once is then started again
// and again, as after a crash; only one that never was ends the whole Run.
//
// It fails with [ErrUnknown], with [ErrStopped] if everything stops, and with
// ctx's error if that ends first; the restart goes on then. Several calls may
// be answered by one restart. Before Run it waits for Run.
func (s *Supervisor) Restart(ctx context.Context, instance string) error {
	i := slices.IndexFunc(s.children, func(c *child) bool { return c.spec.Instance == instance })
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrUnknown, instance)
	}
	select {
	case err := <-s.children[i].ask():
		return err
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", instance, context.Cause(ctx))
	}
}

// ask notes that somebody wants a new process. The channel gets the answer, and
// has room for it.
func (c *child) ask() <-chan error {
	answer := make(chan error, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		answer <- ErrStopped
		return answer
	}
	c.asked = append(c.asked, answer)
	select {
	case c.poke <- struct{}{}:
	default: // it is poked already
	}
	return answer
}

// claim makes the process that is now to be started that of all who have asked
// so far.
func (c *child) claim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = append(c.serving, c.asked...)
	c.asked = nil
	select {
	case <-c.poke:
	default:
	}
}

// answer tells those whose process is the present one what became of it.
func (c *child) answer(err *StartError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.serving {
		if err != nil {
			a <- err
			continue
		}
		a <- nil
	}
	c.serving = nil
}

// refuse answers everybody, from now on too, that there is no process any more.
func (c *child) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, a := range append(c.serving, c.asked...) {
		a <- ErrStopped
	}
	c.serving, c.asked = nil, nil
}
