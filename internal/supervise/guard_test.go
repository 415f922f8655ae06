//go:build linux || darwin

package supervise

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// TestGuard checks the guard alone, because on Linux the parent-death signal
// would hide that it doesn't work.
func TestGuard(t *testing.T) {
	t.Parallel()
	g, err := newGuard()
	if err != nil {
		t.Fatal(err)
	}
	var sleepers []*exec.Cmd
	for range 3 {
		cmd := exec.CommandContext(t.Context(), "sleep", "300")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sleepers = append(sleepers, cmd)
		g.add(cmd.Process.Pid)
	}
	g.remove(sleepers[1].Process.Pid)
	// What a Ctrl-C or a closing terminal may send must not end it.
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM} {
		if err := g.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	spared, err := process.Identify(sleepers[1].Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	g.close()
	for _, i := range []int{0, 2} {
		done := make(chan struct{})
		go func() { _ = sleepers[i].Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("group %d outlives the guard's input", i)
			_ = sleepers[i].Process.Kill()
			<-done
		}
	}
	if !spared.Alive() {
		t.Error("a group that was taken off the guard's list was killed")
	}
	_ = sleepers[1].Process.Kill()
	_ = sleepers[1].Wait()
	g.close() // once more does nothing
	g.add(1)  // nor does this
}
