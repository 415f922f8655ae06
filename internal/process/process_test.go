//go:build linux || darwin

package process_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startSleeper starts a shell with a child of its own, both in a new group.
func startSleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "sleep 300 & echo; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // both are there
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.SignalGroup(cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	cmd := startSleeper(t)
	pid := cmd.Process.Pid

	id, err := process.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	if id.PID != pid || !id.Alive() || !id.LeadsGroup() {
		t.Errorf("%+v: alive %t, leads its group %t", id, id.Alive(), id.LeadsGroup())
	}
	recycled := process.ID{PID: pid, Start: id.Start + "1"}
	if recycled.Alive() || recycled.LeadsGroup() {
		t.Error("another start time passes for the same process")
	}
	if (process.ID{PID: pid}).Alive() {
		t.Error("an ID without a start time passes for alive")
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); id.Alive(); { // a zombie now: nobody has waited
		if time.Now().After(deadline) {
			t.Fatal("a killed process still counts as alive")
		}
	}
	if _, err := process.Identify(pid); !errors.Is(err, process.ErrGone) {
		t.Errorf("Identify of a zombie: %v, want ErrGone", err)
	}
	_ = cmd.Wait()
	if _, err := process.Identify(pid); !errors.Is(err, process.ErrGone) {
		t.Errorf("Identify of a process gone: %v, want ErrGone", err)
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	cmd := startSleeper(t)
	pgid := cmd.Process.Pid
	if err := cmd.Process.Kill(); err != nil { // the leader only; its child lives on
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !process.GroupAlive(pgid) {
		t.Error("a group whose leader is gone counts as gone, with a process in it")
	}
	if err := process.SignalGroup(pgid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); process.GroupAlive(pgid); {
		if time.Now().After(deadline) {
			t.Fatal("the group outlives SIGKILL")
		}
	}
	if err := process.SignalGroup(pgid, syscall.SIGKILL); err != nil {
		t.Errorf("signal an empty group: %v", err)
	}
}

func TestGroupIDsThatMeanOthers(t *testing.T) {
	t.Parallel()
	for _, pgid := range []int{-5, -1, 0, 1} {
		if err := process.SignalGroup(pgid, 0); err == nil {
			t.Errorf("SignalGroup(%d) was let through", pgid)
		}
		if process.GroupAlive(pgid) {
			t.Errorf("GroupAlive(%d) = true", pgid)
		}
		if _, err := process.Identify(pgid); pgid < 1 && !errors.Is(err, process.ErrGone) {
			t.Errorf("Identify(%d): %v, want ErrGone", pgid, err)
		}
	}
}

func Example() {
	self, err := process.Self()
	if err != nil {
		fmt.Println(err)
		return
	}
	// Written to a file now, read by another process later.
	b, _ := json.Marshal(self)
	var later process.ID
	_ = json.Unmarshal(b, &later)
	fmt.Println(later.PID == os.Getpid(), later.Alive())
	// Output: true true
}
