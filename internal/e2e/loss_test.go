//go:build linux

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// restarted waits until an instance has another process than before and all n
// instances of the user service are in rotation.
func (p *project) restarted(instance string, before process.ID, n int) {
	p.t.Helper()
	p.await(instance+" to be started again", patience, func() error {
		if now := p.children()[instance]; now == before || !now.Alive() {
			return fmt.Errorf("its process is %+v", now)
		}
		return nil
	})
	p.serving("user-service", n)
}

// TestKilledInstanceFailsNoRequest: GETs go to the other one.
func TestKilledInstanceFailsNoRequest(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))
	up := p.up().ready()
	p.serving("user-service", 2)
	p.makeUser("a@example.org")
	readers := startLoad(4, p.reading)
	for _, instance := range []string{"user-service-1", "user-service-2", "user-service-1"} {
		id := p.child(instance)
		readers.more(p, 50)
		p.kill(id, syscall.SIGKILL)
		p.restarted(instance, id, 2)
		readers.more(p, 50)
	}
	readers.flawless(p, "GETs over three kill -9")
	if n := strings.Count(up.err.String(), "is up again"); n != 3 {
		t.Errorf("%d restarts are told:\n%s", n, up)
	}
}

// TestTerminatedInstanceFailsNoRequest: neither reads nor writes, since it
// leaves before it stops.
func TestTerminatedInstanceFailsNoRequest(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))
	p.up().ready()
	p.serving("user-service", 2)
	p.bearer()
	var acknowledged sync.Map
	var seen atomic.Int64
	readers, writers := startLoad(3, p.reading), startLoad(1, p.writing(&acknowledged, &seen))
	for _, instance := range []string{"user-service-2", "user-service-1"} {
		id := p.child(instance)
		readers.more(p, 50)
		p.kill(id, syscall.SIGTERM)
		p.restarted(instance, id, 2)
		readers.more(p, 50)
	}
	readers.flawless(p, "GETs over two SIGTERM")
	writers.flawless(p, "POSTs over two SIGTERM")
	t.Logf("%d users", p.keeps(&acknowledged))
}

// TestFrozenInstanceLeavesTheRotation: one that answers nothing is found out by
// its lease and a probe, and comes back when it answers again.
func TestFrozenInstanceLeavesTheRotation(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))
	p.up().ready()
	p.serving("user-service", 2)
	p.bearer()
	id := p.child("user-service-2")
	const workers = 16
	readers := startLoad(workers, p.reading)
	readers.more(p, 20)
	p.kill(id, syscall.SIGSTOP)
	frozen := time.Now()
	p.await("user-service-2 to be found out", patience, func() error {
		all, err := p.instances("user-service")
		if err != nil {
			return err
		}
		for _, in := range all {
			if in.ID == "user-service-2" && in.Status.Serving() {
				return fmt.Errorf("it is %s", in.Status)
			}
		}
		return nil
	})
	out := time.Since(frozen)
	readers.more(p, 100) // by the other one
	p.kill(id, syscall.SIGCONT)
	thawed := time.Now()
	p.serving("user-service", 2)
	t.Logf("out after %v, back after %v", out.Round(time.Millisecond), time.Since(thawed).Round(time.Millisecond))
	failed := readers.stop()
	t.Logf("GETs: %d answered, %d failed, slowest %v", readers.ok.Load(), len(failed), readers.slowest.Round(time.Millisecond))
	for _, f := range failed {
		// What it held while it was frozen, it may find too old to answer.
		if f.took < 10*time.Second {
			t.Errorf("GET: %s", f)
		}
	}
	if readers.refused.Load() > 0 || len(failed) > workers {
		t.Errorf("%d GETs refused, and failed:%s", readers.refused.Load(), failed)
	}
	if out > 30*time.Second {
		t.Errorf("it was in rotation for %v after it had frozen", out)
	}
	if now := p.child("user-service-2"); now != id {
		t.Errorf("it was restarted: %+v, was %+v", now, id)
	}
}

// TestCampaign does at random what the tests before do one by one, under load.
// What was acknowledged is never lost, and no GET fails while one instance is
// there.
func TestCampaign(t *testing.T) {
	t.Parallel()
	rounds := 10
	if os.Getenv("KEELSON_SOAK") == "1" {
		rounds = 50
	}
	seed := rand.Uint64()
	if s := os.Getenv("KEELSON_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds, KEELSON_SEED=%d", rounds, seed)
	chance := rand.New(rand.NewPCG(seed, 0))

	p := newProject(t)
	p.manifest(userRoute, userService(t, 2))
	up := p.up().ready()
	p.serving("user-service", 2)
	p.bearer()
	var acknowledged sync.Map
	var seen atomic.Int64
	readers, writers := startLoad(3, p.reading), startLoad(1, p.writing(&acknowledged, &seen))
	for round := range rounds {
		instance := fmt.Sprintf("user-service-%d", 1+chance.IntN(2))
		id := p.child(instance)
		readers.more(p, 1+chance.Int64N(60))
		switch action := chance.IntN(3); action {
		case 0, 1:
			sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[action]
			t.Logf("round %d: %v to %s", round, sig, instance)
			p.kill(id, sig)
			p.restarted(instance, id, 2)
		case 2:
			d := time.Duration(100+chance.IntN(2500)) * time.Millisecond
			t.Logf("round %d: %s frozen for %v", round, instance, d)
			p.kill(id, syscall.SIGSTOP)
			<-time.After(d)
			p.kill(id, syscall.SIGCONT)
			p.serving("user-service", 2)
		}
	}
	readers.flawless(p, "GETs")
	// A write may fail with its instance, but nothing else may happen to it.
	failed := writers.stop()
	t.Logf("POSTs: %d acknowledged, %d failed", writers.ok.Load(), len(failed))
	for _, f := range failed {
		if !strings.Contains(f.err.Error(), "upstream_failed") {
			t.Errorf("POST: %s", f)
		}
	}
	p.keeps(&acknowledged)
	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
	p.up().ready()
	t.Logf("%d users after a restart", p.keeps(&acknowledged))
}
