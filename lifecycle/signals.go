package lifecycle

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Signals listens for SIGINT and SIGTERM. The first ends ctx (with the signal's
// name as its [context.Cause]), the second closes forced; further ones do nothing.
// ctx ends with parent too; a first signal after that still does not force.
//
// stop ends ctx and gives the signals back to their default, which ends the
// process; it returns when nothing of Signals runs any more. The caller must call
// it; more calls do nothing.
func Signals(parent context.Context) (ctx context.Context, forced <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2) // room for both, so that none is dropped
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	force := make(chan struct{})
	quit := make(chan struct{})
	var listening sync.WaitGroup
	listening.Go(func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("signal: %v", s))
		case <-quit:
			return
		}
		select {
		case <-signals:
			close(force)
		case <-quit:
		}
	})
	return ctx, force, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(quit)
		listening.Wait()
		cancel(nil)
	})
}
