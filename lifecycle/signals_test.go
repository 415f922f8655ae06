package lifecycle_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/lifecycle"
)

func send(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

func within[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
}

// Not parallel: signals are the whole process's.
func TestSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			// A second listener keeps a stray signal from ending the test process.
			guard := make(chan os.Signal, 8)
			signal.Notify(guard, s)
			defer signal.Stop(guard)

			ctx, forced, stop := lifecycle.Signals(t.Context())
			defer stop()
			if ctx.Err() != nil {
				t.Fatal("over before any signal")
			}
			send(t, s)
			within(t, "the end of ctx", ctx.Done())
			if got := context.Cause(ctx).Error(); got != "signal: "+s.String() {
				t.Errorf("cause %q", got)
			}
			select {
			case <-forced:
				t.Error("forced by the first signal")
			default:
			}
			send(t, s)
			within(t, "force", forced)
			send(t, s) // does nothing
			for range 3 {
				within(t, "a signal", guard)
			}
			stop()
			stop()
		})
	}
}

func TestSignalsStop(t *testing.T) {
	guard := make(chan os.Signal, 8)
	signal.Notify(guard, syscall.SIGTERM)
	defer signal.Stop(guard)

	ctx, forced, stop := lifecycle.Signals(t.Context())
	stop()
	within(t, "the end of ctx", ctx.Done())
	send(t, syscall.SIGTERM)
	send(t, syscall.SIGTERM)
	within(t, "a signal", guard)
	select {
	case <-forced:
		t.Error("forced after stop")
	default:
	}
}

// The end of parent is no signal: the first one after it does not force yet.
func TestSignalsParent(t *testing.T) {
	guard := make(chan os.Signal, 8)
	signal.Notify(guard, syscall.SIGTERM)
	defer signal.Stop(guard)

	parent, cancel := context.WithCancel(t.Context())
	ctx, forced, stop := lifecycle.Signals(parent)
	defer stop()
	cancel()
	within(t, "the end of ctx", ctx.Done())
	send(t, syscall.SIGTERM)
	within(t, "a signal", guard)
	select {
	case <-forced:
		t.Error("forced by the first signal")
	default:
	}
	send(t, syscall.SIGTERM)
	within(t, "force", forced)
}
