//go:build linux || darwin

package supervise_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/supervise"
)

func TestRealRestart(t *testing.T) {
	t.Parallel()
	r := start(t, patience, child("restarted", "serve"), child("bystander", "serve"))
	r.awaitReady(t)
	first, other := r.List()[0].Process, r.List()[1].Process
	ready.Delete("restarted")
	if err := r.Restart(t.Context(), "restarted"); err != nil {
		t.Fatal(err)
	}
	st := r.List()[0]
	if st.Process == first || !st.Process.LeadsGroup() || st.State != supervise.Healthy || st.Restarts != 0 || *st.Exit != (supervise.Exit{}) {
		t.Errorf("after the restart %+v", st)
	}
	if first.Alive() || r.List()[1].Process != other {
		t.Error("the old process lives, or another one was replaced too")
	}
	if err := r.stop(t); err != nil {
		t.Error(err)
	}
}

// All that a restarted process had started goes with it.
func TestRealRestartKillsTheGroup(t *testing.T) {
	t.Parallel()
	r := start(t, 100*time.Millisecond, child("restarted-stubborn", "stubborn"))
	r.awaitReady(t)
	pids := r.pids(t, "restarted-stubborn")
	ready.Delete("restarted-stubborn")
	if err := r.Restart(t.Context(), "restarted-stubborn"); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pids...)
	if err := r.stop(t); !errors.Is(err, supervise.ErrKilled) {
		t.Errorf("error %v, want ErrKilled", err)
	}
}

// Restarts, crashes, programs that are replaced and the end of everything, all
// at once: nothing hangs, nothing is left, and no start finds its program busy.
func TestRealRestartsAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	replace := func() {
		err := os.Link(os.Args[0], program+".new")
		if err == nil {
			err = os.Rename(program+".new", program)
		}
		if err == nil {
			err = os.RemoveAll(program + ".new") // a link to itself is not renamed
		}
		if err != nil {
			t.Error(err)
		}
	}
	replace()
	c := child("hectic", "serve")
	c.Command = []string{program}
	c.Healthy = func(context.Context) error { return nil }
	r := start(t, patience, c)
	r.awaitReady(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var restarting, replacing sync.WaitGroup
	for range 4 {
		restarting.Go(func() {
			for {
				err := r.Restart(ctx, "hectic")
				if e, ok := errors.AsType[*supervise.StartError](err); ok && !e.Ended {
					t.Errorf("a process could not be started: %v", err)
				}
				if errors.Is(err, supervise.ErrStopped) {
					return
				}
			}
		})
	}
	replacing.Go(func() {
		for ctx.Err() == nil {
			replace()
		}
	})
	var seen []process.ID
	await(t, "some restarts", func() bool {
		if id := r.List()[0].Process; len(seen) == 0 || seen[len(seen)-1] != id {
			seen = append(seen, id)
		}
		return len(seen) > 20
	})
	if err := r.stop(t); err != nil {
		t.Error(err)
	}
	restarting.Wait()
	cancel()
	replacing.Wait()
	for _, id := range seen {
		if id.Alive() {
			t.Errorf("%+v is left", id)
		}
	}
}
