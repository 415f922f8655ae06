package registry

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/health"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	long := now.Add(-abandonAfter)
	recently := long.Add(time.Second)
	const soon, later = recheckSoon, CheckInterval
	native := func(s, announced Status, url string) Instance {
		return Instance{Status: s, Announced: announced, Health: url}
	}
	healthy := native(health.Healthy, "", "http://a/health")
	unchecked := native(health.Healthy, "", "")
	byChecks := func(s, announced Status) Instance {
		return Instance{Status: s, Announced: announced, Health: "u", Lease: LeaseChecks}
	}
	byBeats := func(s, announced Status) Instance {
		return Instance{Status: s, Announced: announced, Lease: LeaseHeartbeats}
	}
	for _, c := range []struct {
		name   string
		p      patient
		result ProbeResult
		in     Instance
		want   verdict
		due    time.Duration // about; 0: does not matter
	}{
		{"refused", patient{}, ProbeRefused, healthy, remove, 0},
		{"refused, draining", patient{}, ProbeRefused, native(health.Draining, "", ""), remove, 0},
		{"another one", patient{}, ProbeOther, healthy, remove, 0},
		{"refused, with a lease", patient{held: true}, ProbeRefused, healthy, cutOff, soon},
		{"another one, with a lease", patient{held: true}, ProbeOther, healthy, cutOff, soon},
		{"refused, whose lease may yet show up", patient{grace: now.Add(1)}, ProbeRefused, healthy, cutOff, soon},
		{"refused, whose lease did not show up", patient{grace: now}, ProbeRefused, healthy, remove, 0},
		{"refused again, with a lease", patient{held: true, fails: fall}, ProbeRefused, native(health.Unhealthy, health.Healthy, "u"), keep, later},
		{"refused before it ever passed", patient{held: true}, ProbeRefused, byChecks(health.Starting, ""), keep, soon},
		{"refused before it ever passed, for too long", patient{}, ProbeRefused, byChecks(health.Starting, ""), remove, 0},
		{"another one before it ever passed", patient{held: true}, ProbeOther, byChecks(health.Starting, ""), remove, 0},
		{"refused while it starts, with a lease", patient{held: true}, ProbeRefused, native(health.Starting, "", "u"), keep, soon},

		{"answers with a lease", patient{held: true, fails: 3}, ProbeOK, unchecked, dismiss, 0},
		{"answers, is checked regularly", patient{held: true, fails: 3}, ProbeOK, healthy, keep, later},
		{"answers, but its lease may yet show up", patient{grace: now.Add(1)}, ProbeOK, unchecked, keep, later},
		{"answers without a lease", patient{fails: 1, alive: long}, ProbeOK, unchecked, keep, later},
		{"draining answers", patient{held: true}, ProbeOK, native(health.Draining, "", ""), dismiss, 0},
		{"taken out, answers", patient{}, ProbeOK, native(health.Unhealthy, health.Degraded, "u"), restore, later},
		{"unhealthy by its own word, answers", patient{held: true}, ProbeOK, native(health.Unhealthy, "", "u"), keep, later},
		{"first passed check", patient{}, ProbeOK, native(health.Starting, "", "u"), restore, later},
		{"starting without a check", patient{held: true}, ProbeOK, native(health.Starting, "", ""), dismiss, 0},
		{"drained by hand, answers", patient{held: true}, ProbeOK, native(health.Draining, health.Healthy, "u"), keep, later},

		{"first failed check", patient{alive: now}, ProbeFailed, healthy, keep, soon},
		{"second failed check", patient{fails: 1, alive: now}, ProbeFailed, healthy, takeOut, later},
		{"second failed check, with a lease", patient{fails: 1, held: true}, ProbeFailed, healthy, takeOut, later},
		{"not to be checked there", patient{fails: 1, held: true}, ProbeForbidden, healthy, takeOut, later},
		{"degraded is out too", patient{fails: 1, alive: now}, ProbeFailed, native(health.Degraded, "", "u"), takeOut, later},
		{"out already", patient{fails: 9, alive: now}, ProbeFailed, native(health.Unhealthy, health.Healthy, "u"), keep, later},
		{"out already, with a lease", patient{fails: 9, held: true}, ProbeFailed, native(health.Unhealthy, health.Healthy, ""), keep, later},
		{"unwell by its own word", patient{fails: 1, held: true}, ProbeFailed, native(health.Unhealthy, "", ""), dismiss, 0},
		{"unwell, and no lease", patient{fails: 1, alive: now}, ProbeFailed, native(health.Unhealthy, "", ""), keep, later},
		{"drains", patient{fails: 1, held: true}, ProbeFailed, native(health.Draining, "", ""), dismiss, 0},
		{"drained by hand, fails", patient{fails: 1, held: true}, ProbeFailed, native(health.Draining, health.Healthy, "u"), keep, later},
		{"still starting", patient{fails: 5, held: true}, ProbeFailed, native(health.Starting, "", "u"), keep, later},

		{"cut once", patient{alive: now}, ProbeBroken, healthy, keep, 2 * brokenPause},
		{"cut the fifth time", patient{broken: 4, alive: now}, ProbeBroken, healthy, keep, 32 * brokenPause},
		{"cut too often: a failed check", patient{broken: 5, alive: now}, ProbeBroken, healthy, keep, soon},
		{"cut too often again", patient{broken: 5, fails: 1, alive: now}, ProbeBroken, healthy, takeOut, later},

		{"silent for long", patient{alive: long}, ProbeFailed, healthy, abandon, 0},
		{"cut for long", patient{alive: long}, ProbeBroken, healthy, abandon, 0},
		{"draining and silent for long", patient{alive: long}, ProbeFailed, native(health.Draining, health.Healthy, "u"), abandon, 0},
		{"silent not long enough", patient{alive: recently, fails: 9}, ProbeFailed, healthy, takeOut, later},
		{"silent for long, with a lease", patient{alive: long, held: true}, ProbeFailed, healthy, keep, soon},

		{"renewed by checks, refused", patient{held: true}, ProbeRefused, byChecks(health.Healthy, ""), remove, 0},
		{"renewed by checks, another one", patient{held: true}, ProbeOther, byChecks(health.Starting, ""), remove, 0},
		{"renewed by checks, drained, refused", patient{held: true}, ProbeRefused, byChecks(health.Draining, health.Healthy), remove, 0},
		{"renewed by checks, its first pass", patient{held: true}, ProbeOK, byChecks(health.Starting, ""), restore, later},
		{"renewed by checks, passes without a lease", patient{}, ProbeOK, byChecks(health.Healthy, ""), keep, later},
		{"renewed by checks, fails", patient{held: true, fails: 1}, ProbeFailed, byChecks(health.Healthy, ""), takeOut, later},
		{"renewed by checks, drained, passes", patient{held: true}, ProbeOK, byChecks(health.Draining, health.Starting), keep, later},
		{"renewed by checks, out while it started, passes", patient{}, ProbeOK, byChecks(health.Unhealthy, health.Starting), restore, later},

		{"heartbeats have stopped, but it answers", patient{alive: now}, ProbeOK, byBeats(health.Healthy, ""), takeOut, later},
		{"heartbeats have stopped, and it is silent", patient{alive: now}, ProbeFailed, byBeats(health.Healthy, ""), takeOut, later},
		{"heartbeats have stopped, out already", patient{alive: now}, ProbeOK, byBeats(health.Unhealthy, health.Healthy), keep, later},
		{"heartbeats have stopped, refused", patient{alive: now}, ProbeRefused, byBeats(health.Healthy, ""), remove, 0},
		{"heartbeats have stopped long ago", patient{alive: long}, ProbeOK, byBeats(health.Unhealthy, health.Healthy), abandon, 0},
		{"heartbeats go on, out", patient{held: true}, ProbeOK, byBeats(health.Unhealthy, health.Healthy), restore, 0},
		{"heartbeats go on", patient{held: true}, ProbeOK, byBeats(health.Healthy, ""), dismiss, 0},
		{"heartbeats came during the probe", patient{held: true}, ProbeRefused, byBeats(health.Healthy, ""), dismiss, 0},
	} {
		p := c.p
		if got := p.judge(c.result, &c.in, now, now); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
		if got := p.due.Sub(now); c.due != 0 && (got < c.due*9/10 || got > c.due*11/10) {
			t.Errorf("%s: due in %v, want about %v", c.name, got, c.due)
		}
	}
}

// Somebody else, as another registry node, put it back: it does not count as out
// any more when the panic threshold is asked.
func TestJudgeRestoredByOthers(t *testing.T) {
	t.Parallel()
	p := patient{out: true, fails: fall}
	now := time.Now()
	if v := p.judge(ProbeOK, &Instance{Status: health.Healthy}, now, now); v != keep || p.out {
		t.Errorf("verdict %d, out %v; want to keep checking what is in rotation", v, p.out)
	}
}

// However the probes go: only a refusal or another instance removes, unless ten
// minutes have passed without a lease and a passed check, and never while a
// process holds the lease; nothing is taken out unconfirmed without two failed
// checks in a row, or before its heartbeats stopped; whatever passes is dismissed,
// restored, or checked in its turn; a drain by hand stays; and who is kept is due
// soon.
func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	statuses := []Status{health.Starting, health.Healthy, health.Degraded, health.Unhealthy, health.Draining}
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(0, 0)
		in := Instance{
			Status: rapid.SampledFrom(statuses).Draw(t, "status"),
			Health: rapid.SampledFrom([]string{"", "u"}).Draw(t, "health"),
			Lease:  rapid.SampledFrom([]LeaseKind{LeaseConnection, LeaseChecks, LeaseHeartbeats}).Draw(t, "lease"),
		}
		drained := in.Status == health.Draining && rapid.Bool().Draw(t, "by hand")
		if drained {
			in.Announced = health.Healthy
		}
		p := patient{rhythm: rhythm(rapid.Uint64().Draw(t, "key")), alive: now}
		bad := 0     // probes in a row without an answer
		alive := now // when it last passed or was held
		for range rapid.IntRange(1, 200).Draw(t, "probes") {
			p.held = rapid.IntRange(0, 9).Draw(t, "held") == 0
			result := rapid.SampledFrom([]ProbeResult{ProbeOK, ProbeRefused, ProbeOther, ProbeBroken, ProbeFailed, ProbeFailed, ProbeFailed, ProbeForbidden}).Draw(t, "result")
			if bad++; result == ProbeOK {
				bad = 0
			}
			beats := in.Lease == LeaseHeartbeats
			gone := result == ProbeRefused || result == ProbeOther
			passes := result == ProbeOK && !beats || beats && p.held
			if passes || p.held {
				alive = now
			}
			serving := in.Status.Serving()
			early := result == ProbeRefused && in.Lease == LeaseChecks && in.Status == health.Starting
			v := p.judge(result, &in, now, now)
			switch {
			case (v == remove) != (gone && (!p.held || in.Lease == LeaseChecks && !early)):
				t.Fatalf("verdict %d on %v, held %v", v, result, p.held)
			case v == abandon && (p.held || passes || now.Sub(alive) < abandonAfter):
				t.Fatalf("abandoned after %v", now.Sub(alive))
			case v == cutOff && (!gone || !p.held || in.Lease != LeaseConnection || !serving):
				t.Fatalf("cut off on %v while %s", result, in.Status)
			case v == takeOut && (!serving || bad < fall && !beats || beats && p.held):
				t.Fatalf("taken out after %d failures in a row while %s", bad, in.Status)
			case v == dismiss && (!p.held || checkedRegularly(&in)):
				t.Fatal("dismissed, though it has no lease or is checked regularly")
			case v == restore && (!passes || wellStatus(&in) == in.Status):
				t.Fatalf("restored from %s on %v", in.Status, result)
			case passes && v != dismiss && v != restore && v != keep:
				t.Fatalf("it passes, but the verdict is %d", v)
			}
			if wait := p.due.Sub(now); v != remove && v != abandon && v != dismiss && (wait <= 0 || wait > CheckInterval*11/10) {
				t.Fatalf("due in %v after verdict %d", wait, v)
			}
			switch v {
			case remove, abandon, dismiss:
				return
			case takeOut, cutOff:
				in.Status, in.Announced = health.Unhealthy, in.Status
			case restore:
				in.Status, in.Announced = wellStatus(&in), ""
			}
			if drained && in.Status != health.Draining {
				t.Fatalf("it was drained by hand, and is %s", in.Status)
			}
			now = p.due
		}
	})
}

func TestPanicking(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		total, most int // how many may be out
	}{{1, 1}, {2, 1}, {3, 1}, {4, 2}, {5, 2}, {10, 5}} {
		for out := range c.total {
			if got, want := panicking(c.total, out), out+1 > c.most; got != want {
				t.Errorf("one more of %d with %d out: panicking is %v, want %v", c.total, out, got, want)
			}
		}
	}
}

// What is known of a service ends with it.
func TestTermForgetsServices(t *testing.T) {
	t.Parallel()
	term := newTerm(NewChecker(&Registry{view: newView()}), nil)
	term.synced = true
	term.counts["users"] = headcount{out: 1}
	term.observe(Event{Type: Deregister, Instance: Instance{Name: "users", ID: "a"}}, time.Now())
	if len(term.counts) != 0 {
		t.Errorf("counts are kept of services that have gone: %v", term.counts)
	}
}
