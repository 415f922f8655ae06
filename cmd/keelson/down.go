package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
)

const (
	// forcedStop is how long a system may take after a second signal, and again
	// after it was killed.
	forcedStop = 10 * time.Second
	downPoll   = 20 * time.Millisecond
)

// stopped is what `keelson down` has done.
type stopped struct {
	Project string  `json:"project,omitempty"` // the folder
	PID     int     `json:"pid"`               // 0: nothing ran
	Seconds float64 `json:"seconds"`
	Forced  bool    `json:"forced"`
}

func (a *app) downCommand() *cobra.Command {
	var timeout time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the system that runs in this folder",
		Long: "Stop the `keelson up`, or the program with all in one process, that runs in this folder or the\n" +
			"nearest above, as Ctrl-C does, and wait until it has gone. Exit code 0: nothing runs any more,\n" +
			"or nothing did. 7: it takes longer than --timeout, and goes on stopping.",
		Example: "  keelson down\n  keelson down --timeout 5s --force",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.down(cmd.Context(), timeout, force) },
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&force, "force", false, "after that, don't let it drain any longer: end it")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func (a *app) down(ctx context.Context, timeout time.Duration, force bool) error {
	if timeout <= 0 {
		return &failure{code: exitUsage, message: fmt.Sprintf("--timeout is %v", timeout), hint: "give a time such as 60s"}
	}
	f, project, err := runningHere()
	if err != nil {
		return err
	}
	id := f.ID
	did := stopped{Project: project, PID: id.PID}
	if id == (process.ID{}) {
		fmt.Fprintln(a.stderr, "nothing runs in this folder")
		return a.told(did)
	}
	// Where the system can do it, this names the process and not just its number.
	p, err := os.FindProcess(id.PID)
	if err != nil || !id.Alive() { // it has ended just now
		return a.told(did)
	}
	defer p.Release() //nolint:errcheck // there is nothing to be done about it
	first := syscall.SIGTERM
	if f.Stopping {
		first = 0 // no signal: a second one would cut it short
		fmt.Fprintf(a.stderr, "what runs in %s (pid %d) is stopping already\n", project, id.PID)
	} else {
		fmt.Fprintf(a.stderr, "stopping what runs in %s (pid %d)\n", project, id.PID)
	}
	began := time.Now()
	gone, err := a.end(ctx, p, id, first, timeout)
	if err == nil && !gone && force {
		did.Forced = true
		fmt.Fprintf(a.stderr, "it is still there after %v; a second signal tells it not to drain any longer\n", timeout)
		gone, err = a.end(ctx, p, id, syscall.SIGTERM, forcedStop)
		if err == nil && !gone {
			fmt.Fprintln(a.stderr, "it is still there, and is killed")
			gone, err = a.end(ctx, p, id, syscall.SIGKILL, forcedStop)
		}
	}
	switch {
	case err != nil:
		return err
	case !gone:
		return &failure{
			code: exitTimeout, message: fmt.Sprintf("pid %d is still stopping after %v", id.PID, time.Since(began).Round(100*time.Millisecond)),
			hint: "`keelson down` waits on, or cut it short with `keelson down --force --timeout 1s`",
		}
	}
	did.Seconds = time.Since(began).Seconds()
	fmt.Fprintf(a.stderr, "it has stopped after %.1fs\n", did.Seconds)
	return a.told(did)
}

func (a *app) told(did stopped) error {
	if a.output != "json" {
		return nil
	}
	return writeJSON(a.stdout, did)
}

// end sends a signal, unless it is 0, and waits for the process to be gone.
func (a *app) end(ctx context.Context, p *os.Process, id process.ID, sig syscall.Signal, within time.Duration) (gone bool, err error) {
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, &failure{code: exitFailed, message: fmt.Sprintf("pid %d can't be stopped: %v", id.PID, err)}
	}
	draws := terminal(a.stderr)
	began := time.Now()
	over := time.NewTimer(within)
	defer over.Stop()
	tick := time.NewTicker(downPoll)
	defer tick.Stop()
	for id.Alive() {
		if draws {
			fmt.Fprintf(a.stderr, "\r\x1b[K%.1fs", time.Since(began).Seconds())
		}
		select {
		case <-tick.C:
			continue
		case <-over.C:
		case <-ctx.Done():
			err = interrupted()
		}
		break
	}
	if draws {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
	return !id.Alive(), err
}

// runningHere returns the run file of what runs in this folder, or the nearest
// above, and which folder that is; a file without an ID if nothing does.
func runningHere() (runfile.File, string, error) {
	path, err := runfile.Find(".")
	if errors.Is(err, fs.ErrNotExist) {
		return runfile.File{}, "", nil
	}
	if err != nil {
		return runfile.File{}, "", err
	}
	project := filepath.Dir(filepath.Dir(path))
	// It refuses another user's file, which could name any of our processes.
	f, err := runfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !f.Alive() {
		return runfile.File{}, project, nil
	}
	return f, project, err
}
