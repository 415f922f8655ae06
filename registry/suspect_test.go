package registry

import (
	"container/heap"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/health"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const soon, later = recheckSoon, checkInterval
	probed := func(s Status, announced Status, url string) Instance {
		return Instance{Status: s, Announced: announced, Health: url}
	}
	healthy := probed(health.Healthy, "", "http://a/health")
	for _, c := range []struct {
		name   string
		s      suspect
		result ProbeResult
		in     Instance
		want   verdict
		due    time.Duration // about; 0: does not matter
	}{
		{"refused", suspect{}, ProbeRefused, healthy, remove, 0},
		{"refused, with a lease", suspect{held: true}, ProbeRefused, healthy, remove, 0},
		{"refused, draining", suspect{}, ProbeRefused, probed(health.Draining, "", ""), remove, 0},
		{"another one", suspect{}, ProbeOther, healthy, remove, 0},
		{"answers with a lease", suspect{held: true, fails: 3}, ProbeOK, healthy, acquit, 0},
		{"answers without a lease", suspect{fails: 1}, ProbeOK, healthy, keepChecking, later},
		{"draining answers", suspect{held: true}, ProbeOK, probed(health.Draining, "", "u"), acquit, 0},
		{"taken out, answers", suspect{}, ProbeOK, probed(health.Unhealthy, health.Degraded, "u"), restore, later},
		{"unhealthy by its own word, answers", suspect{held: true}, ProbeOK, probed(health.Unhealthy, "", "u"), acquit, 0},
		{"first passed check", suspect{}, ProbeOK, probed(health.Starting, "", "u"), restore, later},
		{"starting without a check", suspect{held: true}, ProbeOK, probed(health.Starting, "", ""), acquit, 0},
		{"first failed check", suspect{}, ProbeFailed, healthy, keepChecking, soon},
		{"second failed check", suspect{fails: 1}, ProbeFailed, healthy, takeOut, later},
		{"second failed check, with a lease", suspect{fails: 1, held: true}, ProbeFailed, healthy, takeOut, later},
		{"degraded is out too", suspect{fails: 1}, ProbeFailed, probed(health.Degraded, "", "u"), takeOut, later},
		{"out already", suspect{fails: 9}, ProbeFailed, probed(health.Unhealthy, health.Healthy, "u"), keepChecking, later},
		{"out already, with a lease", suspect{fails: 9, held: true}, ProbeFailed, probed(health.Unhealthy, health.Healthy, "u"), keepChecking, later},
		{"unwell by its own word", suspect{fails: 1, held: true}, ProbeFailed, probed(health.Unhealthy, "", "u"), acquit, 0},
		{"unwell, and no lease", suspect{fails: 1}, ProbeFailed, probed(health.Unhealthy, "", "u"), keepChecking, later},
		{"drains", suspect{fails: 1, held: true}, ProbeFailed, probed(health.Draining, "", "u"), acquit, 0},
		{"drains, and no lease", suspect{fails: 1}, ProbeFailed, probed(health.Draining, "", "u"), keepChecking, later},
		{"still starting", suspect{fails: 5, held: true}, ProbeFailed, probed(health.Starting, "", "u"), keepChecking, later},
		{"cut once", suspect{}, ProbeBroken, healthy, keepChecking, 2 * brokenPause},
		{"cut the fifth time", suspect{broken: 4}, ProbeBroken, healthy, keepChecking, 32 * brokenPause},
		{"cut too often: a failed check", suspect{broken: 5}, ProbeBroken, healthy, keepChecking, soon},
		{"cut too often again", suspect{broken: 5, fails: 1}, ProbeBroken, healthy, takeOut, later},
	} {
		s := c.s
		if got := s.judge(c.result, c.in, now); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
		if got := s.due.Sub(now); c.due != 0 && (got < c.due*9/10 || got > c.due*11/10) {
			t.Errorf("%s: due in %v, want about %v", c.name, got, c.due)
		}
	}
}

// Somebody else, as another registry node, put it back: it does not count as out
// any more when the panic threshold is asked.
func TestJudgeRestoredByOthers(t *testing.T) {
	t.Parallel()
	s := suspect{out: true, fails: fall}
	if v := s.judge(ProbeOK, Instance{Status: health.Healthy}, time.Now()); v != keepChecking || s.out {
		t.Errorf("verdict %d, out %v; want to keep checking what is in rotation", v, s.out)
	}
}

// However the probes go: only a refusal or another instance removes; nothing is
// taken out without two failed checks in a row; whatever answers is acquitted
// or restored, unless it has no lease; and who is kept is due soon.
func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	statuses := []Status{health.Starting, health.Healthy, health.Degraded, health.Unhealthy, health.Draining}
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(0, 0)
		s := suspect{held: rapid.Bool().Draw(t, "held")}
		in := Instance{Status: rapid.SampledFrom(statuses).Draw(t, "status"), Health: rapid.SampledFrom([]string{"", "u"}).Draw(t, "health")}
		bad := 0 // probes in a row without an answer
		for range rapid.IntRange(1, 40).Draw(t, "probes") {
			result := rapid.SampledFrom([]ProbeResult{ProbeOK, ProbeRefused, ProbeOther, ProbeBroken, ProbeFailed}).Draw(t, "result")
			if bad++; result == ProbeOK {
				bad = 0
			}
			v := s.judge(result, in, now)
			dead := result == ProbeRefused || result == ProbeOther
			switch {
			case (v == remove) != dead:
				t.Fatalf("verdict %d on %v", v, result)
			case v == takeOut && (bad < fall || !in.Status.Serving()):
				t.Fatalf("taken out after %d failures in a row while %s", bad, in.Status)
			case v == acquit && !s.held:
				t.Fatal("acquitted without a lease")
			case v == restore && (result != ProbeOK || restored(in) == in.Status):
				t.Fatalf("restored from %s on %v", in.Status, result)
			case result == ProbeOK && s.held && v != acquit && v != restore:
				t.Fatalf("it answers and has a lease, but the verdict is %d", v)
			}
			if wait := s.due.Sub(now); (v == keepChecking || v == takeOut || v == restore) && (wait <= 0 || wait > 2*checkInterval) {
				t.Fatalf("due in %v after verdict %d", wait, v)
			}
			switch v {
			case remove, acquit:
				return
			case takeOut:
				in.Status, in.Announced = health.Unhealthy, in.Status
			case restore:
				in.Status, in.Announced = restored(in), ""
			}
			now = s.due
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

func TestAgenda(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a agenda
		var all []*suspect
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			due := time.Unix(int64(rapid.IntRange(0, 100).Draw(t, "due")), 0)
			if len(all) > 0 && rapid.Bool().Draw(t, "again") {
				s := rapid.SampledFrom(all).Draw(t, "suspect")
				s.due = due
				a.schedule(s)
				continue
			}
			s := &suspect{index: -1, due: due}
			a.schedule(s)
			all = append(all, s)
		}
		slices.SortFunc(all, func(x, y *suspect) int { return x.due.Compare(y.due) })
		for _, want := range all {
			if s := heap.Pop(&a).(*suspect); !s.due.Equal(want.due) || s.index != -1 {
				t.Fatalf("popped %v, want %v", s.due, want.due)
			}
		}
	})
}
