package postgrestest_test

import (
	"bufio"
	"fmt"
	"os"
	osexec "os/exec"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// A test process that is killed takes its server with it, a paused one too.
func TestServerDiesWithTheTest(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"running", "paused"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			testServerDies(t, server)
		})
	}
}

func testServerDies(t *testing.T, as string) {
	cmd := osexec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asVictim+"="+as)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var pid int
	var dir string
	if _, scanErr := fmt.Sscan(line, &pid, &dir); err != nil || scanErr != nil {
		t.Fatalf("%q: %v, %v", line, err, cmd.Wait())
	}
	defer os.RemoveAll(dir)
	server, err := process.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(deadline); server.Alive(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the server lives on")
		}
	}
}
