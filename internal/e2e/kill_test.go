//go:build linux

package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
)

// TestKilledUpLeavesNoChild, and the next one finds everything as it was.
func TestKilledUpLeavesNoChild(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	// The child of a child belongs to it.
	nested := fmt.Sprintf("  nested: {command: [sh, -c, \"sleep 1000 & exec %s plain\"]}\n", self)
	p.manifest(userRoute, userService(t, 2)+nested)
	up := p.up().ready()
	p.serving("user-service", 2)
	p.bearer()
	var acknowledged sync.Map
	var seen atomic.Int64
	writers := startLoad(2, p.writing(&acknowledged, &seen))
	writers.more(p, 30)
	up.note()
	p.kill(process.ID{PID: up.pid()}, syscall.SIGKILL)
	up.exit(patience)
	up.gone(5 * time.Second)
	writers.stop()

	again := p.up().ready()
	p.serving("user-service", 2)
	t.Logf("%d users after kill -9 of up", p.keeps(&acknowledged))
	f, err := runfile.Read(runfile.Path(p.dir))
	if err != nil || f.PID != again.pid() {
		t.Errorf("run.json: %+v (%v), want that of %d", f, err, again.pid())
	}
	again.signal(syscall.SIGINT)
	if code := again.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, again)
	}
	again.gone(patience)
}

// TestNextUpReapsWhatIsLeft: should a child live on in spite of all, the run
// file still has it.
func TestNextUpReapsWhatIsLeft(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, role(t, "orphan"))
	up := p.up().ready()
	orphan := p.child("orphan-1")
	up.note()
	for _, id := range up.survivors() {
		if id != orphan {
			p.kill(id, syscall.SIGKILL) // the guard
		}
	}
	p.kill(process.ID{PID: up.pid()}, syscall.SIGKILL)
	up.exit(patience)
	if !orphan.Alive() {
		t.Fatal("the orphan did not live on, so there is nothing to reap")
	}
	// It has the port that the next one needs.
	again := p.up().ready()
	if orphan.Alive() {
		t.Error("it was not reaped")
	}
	if !strings.Contains(again.err.String(), "ended 1 process") {
		t.Errorf("the reaping is not told:\n%s", again)
	}
}

// TestEverythingKilled is the power cut, less the disk.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))
	up := p.up().ready()
	p.serving("user-service", 2)
	p.bearer()
	var acknowledged sync.Map
	var seen atomic.Int64
	for round := range 3 {
		writers := startLoad(2, p.writing(&acknowledged, &seen))
		writers.more(p, 20)
		up.note()
		for _, id := range append(up.survivors(), process.ID{PID: up.pid()}) {
			_ = syscall.Kill(id.PID, syscall.SIGKILL) // some end with the first
		}
		up.exit(patience)
		up.gone(5 * time.Second)
		writers.stop()
		// One instance less: the other's record must go.
		n := 2 - round%2
		p.manifest(userRoute, userService(t, n))
		up = p.up().ready()
		p.serving("user-service", n)
		all, err := p.instances("user-service")
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range all {
			if in.RegisteredAt.Before(up.began) {
				t.Errorf("round %d: a stale record: %+v", round, in)
			}
		}
		t.Logf("round %d: %d users", round, p.keeps(&acknowledged))
	}
}

// TestHandStartedServiceComesBack: it outlives up, and finds the next one by
// itself since that has the same engine address and credentials.
func TestHandStartedServiceComesBack(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(echoRoute, "")
	up := p.up().ready()
	cmd := p.command(t.Context(), self, "echo")
	cmd.Env = append(cmd.Env, fmt.Sprintf("PORT=%d", freePort(t)))
	hand := p.start(cmd)
	p.serving("echo", 1)
	if got := p.call("GET", "/api/echo/x", ""); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for round := range 2 {
		before, err := runfile.Read(runfile.Path(p.dir))
		if err != nil {
			t.Fatal(err)
		}
		up.note()
		p.kill(process.ID{PID: up.pid()}, syscall.SIGKILL)
		up.exit(patience)
		up.gone(5 * time.Second)
		killed := time.Now()
		up = p.up().ready()
		after, err := runfile.Read(runfile.Path(p.dir))
		if err != nil {
			t.Fatal(err)
		}
		if before.Engine != after.Engine {
			t.Errorf("round %d: engine %v, was %v", round, after.Engine, before.Engine)
		}
		p.serving("echo", 1)
		p.await("the service through the gateway", patience, func() error {
			if got := p.call("GET", "/api/echo/x", ""); got.status != 200 {
				return fmt.Errorf("%d %s", got.status, got.body)
			}
			return nil
		})
		t.Logf("round %d: back %v after kill -9 of up", round, time.Since(killed).Round(time.Millisecond))
	}
	// up stops in order, and the service goes on.
	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	if slices.Contains(up.survivors(), process.ID{PID: hand.pid()}) {
		t.Error("the service by hand is a child of up")
	}
	hand.signal(syscall.SIGINT)
	if code := hand.exit(patience); code != 0 {
		t.Errorf("the service by hand: exit code %d\n%s", code, hand)
	}
}
