//go:build unix

package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

const (
	groupPoll = 20 * time.Millisecond
	// pipeWait is how long the output of a process that has ended is read
	// on, in case one that left the group holds it open.
	pipeWait = time.Second
)

// system starts real processes.
type system struct {
	guard  *guard
	starts chan startRequest
	wg     sync.WaitGroup
}

type startRequest struct {
	cmd *exec.Cmd
	err chan error
}

func openSystem() (host, error) {
	g, err := startGuard()
	if err != nil {
		return nil, err
	}
	sys := &system{guard: g, starts: make(chan startRequest)}
	sys.wg.Go(func() {
		// Linux sends the parent-death signal when the thread that started
		// the process ends, not the process of that thread. So one thread
		// starts them all, and does nothing else until all have gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for r := range sys.starts {
			r.err <- r.cmd.Start()
		}
	})
	return sys, nil
}

func (sys *system) close() {
	close(sys.starts)
	sys.wg.Wait()
	sys.guard.close()
}

func (sys *system) start(c Child, emit func(Stream, string)) (running, error) {
	//nolint:noctx,gosec // Stops go to the group, in order, which no context can do; the command is the user's own.
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	cmd.SysProcAttr = childAttr()

	stdout, outEnd, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Command[0], err)
	}
	stderr, errEnd, err := os.Pipe()
	if err != nil {
		_, _ = stdout.Close(), outEnd.Close()
		return nil, fmt.Errorf("start %s: %w", c.Command[0], err)
	}
	cmd.Stdout, cmd.Stderr = outEnd, errEnd

	r := startRequest{cmd: cmd, err: make(chan error)}
	sys.starts <- r
	err = <-r.err
	_, _ = outEnd.Close(), errEnd.Close() // the child has its own
	if err != nil {
		_, _ = stdout.Close(), stderr.Close()
		return nil, err // names the command
	}
	sys.guard.add(cmd.Process.Pid)

	p := &realProcess{cmd: cmd, guard: sys.guard, ended: make(chan struct{}), killed: make(chan struct{}), asked: make(chan struct{})}
	// Asked before anybody waits for the process, so it has its id still. One
	// that has ended already is known by its id alone, and never as alive.
	if p.ident, err = process.Identify(cmd.Process.Pid); err != nil {
		p.ident = process.ID{PID: cmd.Process.Pid}
	}
	var readers sync.WaitGroup
	readers.Go(func() { readLines(stdout, func(s string) { emit(Stdout, s) }) })
	readers.Go(func() { readLines(stderr, func(s string) { emit(Stderr, s) }) })
	go p.wait(&readers, stdout, stderr) // until done is closed, which everybody who starts one waits for
	return p, nil
}

// realProcess is a process with the group it leads.
type realProcess struct {
	cmd   *exec.Cmd
	guard *guard
	ident process.ID

	asked, killed     chan struct{}
	askOnce, killOnce sync.Once
	ended             chan struct{}
	how               Exit // before ended is closed
}

func (p *realProcess) id() process.ID        { return p.ident }
func (p *realProcess) done() <-chan struct{} { return p.ended }
func (p *realProcess) exit() Exit            { return p.how }

func (p *realProcess) terminate() {
	p.askOnce.Do(func() { close(p.asked) })
	p.signal(syscall.SIGTERM)
}

func (p *realProcess) kill() {
	p.killOnce.Do(func() { close(p.killed) })
	p.signal(syscall.SIGKILL)
}

// signal can only fail for a group that is somebody else's, which nothing
// here can change; wait finds out when ours has gone.
func (p *realProcess) signal(sig syscall.Signal) {
	select {
	case <-p.ended: // its id may be another's by now
	default:
		_ = process.SignalGroup(p.ident.PID, sig)
	}
}

// wait closes ended when the process, its group and its output have ended.
func (p *realProcess) wait(readers *sync.WaitGroup, pipes ...*os.File) {
	_ = p.cmd.Wait() // the error says the same as ProcessState
	p.how = exitOf(p.cmd.ProcessState)
	p.endGroup()
	p.guard.remove(p.ident.PID)

	read := make(chan struct{})
	go func() { readers.Wait(); close(read) }()
	select {
	case <-read:
	case <-time.After(pipeWait):
		for _, f := range pipes {
			_ = f.SetReadDeadline(time.Now())
		}
		<-read
	}
	for _, f := range pipes {
		_ = f.Close()
	}
	close(p.ended)
}

// endGroup returns when what the process left behind in its group has gone:
// killed at once if it ended by itself, else given the rest of its grace. The
// kernel gives a group's id to nobody while the group has a process, and to
// others only after it went round all ids.
func (p *realProcess) endGroup() {
	var giveUp <-chan time.Time
	select {
	case <-p.asked: // whoever asked kills when the grace is over
	default:
		_ = process.SignalGroup(p.ident.PID, syscall.SIGKILL)
		giveUp = time.After(killWait) // what we may not signal can't hold us up for ever
	}
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	for process.GroupAlive(p.ident.PID) {
		select {
		case <-tick.C:
		case <-giveUp:
			return
		case <-p.killed:
			_ = process.SignalGroup(p.ident.PID, syscall.SIGKILL)
			return
		}
	}
}
