package natsregistry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What becomes of a leader's answers that are late, lost or bad.
func TestTermAnswers(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	own, other := claim{holder{"s", 1}, "own"}, claim{holder{"s", 2}, "other"}
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		do    func(tm *term) // a leader's since 10 ms, at revision 1, which is about to renew at 760 ms
		now   time.Duration
		leads bool
		write bool
		fails bool
	}{
		{"no answer yet", func(*term) {}, 1500 * ms, true, false, false},
		{"no answer for too long", func(*term) {}, 2010 * ms, false, false, false},
		{"renewed", func(tm *term) { tm.wrote(at(800*ms), 2, own) }, 2700 * ms, true, true, false},
		{"renewed, and silent since", func(tm *term) { tm.wrote(at(800*ms), 2, own) }, 2760 * ms, false, true, false},
		{"the answer is too late", func(tm *term) { tm.wrote(at(3*time.Second), 2, own) }, 3000 * ms, false, true, false},
		{"the answer is late, the watch tells others", func(tm *term) {
			tm.told(at(800*ms), 3, other)
			tm.wrote(at(900*ms), 2, own)
		}, 900 * ms, false, false, false},
		{"refused", func(tm *term) { tm.refused(at(800 * ms)) }, 800 * ms, false, false, false},
		{"refused, and the watch says nothing", func(tm *term) { tm.refused(at(800 * ms)) }, 1800 * ms, false, false, true},
		{"refused, as the watch has told", func(tm *term) {
			tm.told(at(800*ms), 2, other)
			tm.refused(at(800 * ms))
		}, 900 * ms, false, false, false},
		{"failed", func(tm *term) { tm.failed(at(800 * ms)) }, 900 * ms, true, true, false},
		{"failed, but it was written", func(tm *term) {
			tm.failed(at(800 * ms))
			tm.told(at(810*ms), 2, own)
		}, 810 * ms, true, true, false},
		{"failed, then refused: it may have been written", func(tm *term) {
			tm.failed(at(800 * ms))
			tm.writes(at(900 * ms))
			tm.refused(at(910 * ms))
		}, 1000 * ms, true, false, false},
		{"failed, then refused, as it was written", func(tm *term) {
			tm.failed(at(800 * ms))
			tm.writes(at(900 * ms))
			tm.told(at(905*ms), 2, own)
			tm.refused(at(910 * ms))
		}, 910 * ms, true, true, false},
		{"old news", func(tm *term) {
			tm.wrote(at(800*ms), 3, own)
			tm.told(at(810*ms), 2, other)
		}, 900 * ms, true, false, false},
		{"expired", func(tm *term) { tm.told(at(800*ms), 2, claim{}) }, 800 * ms, false, false, false},
		{"expired, free to write", func(tm *term) {
			tm.failed(at(790 * ms))
			tm.told(at(800*ms), 2, claim{})
		}, 800 * ms, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tm := newTerm("own", start)
			tm.synced = true
			tm.writes(at(10 * ms))
			tm.wrote(at(20*ms), 1, own)
			tm.writes(at(760 * ms))
			c.do(tm)
			leads := tm.leads(at(c.now))
			write, _, err := tm.due(at(c.now))
			if leads != c.leads || write != c.write || (err != nil) != c.fails {
				t.Errorf("leads %t, writes %t, error %v; want %t, %t, %t", leads, write, err, c.leads, c.write, c.fails)
			}
		})
	}
}

// sea is a simulated store with campaigns over a network that delays, loses and
// reorders, in steps of a virtual clock.
type sea struct {
	now    time.Time
	random *rand.Rand
	calm   bool // nothing is lost, and little delayed

	revision uint64
	owner    claim
	expires  time.Time
	requests []*request
	crews    []*crew
	ends     []end
	clients  uint64
}

type request struct {
	from               *crew
	term               *term
	own                claim
	expected           uint64
	arrives, answers   time.Time
	done, refused      bool
	lost               bool // the answer is
	revision           uint64
	release, abandoned bool
}

type end struct {
	holder holder
	at     time.Time
}

// crew is a campaign's shell.
type crew struct {
	name   string
	holder holder
	term   *term
	leads  bool
	hung   bool // it does nothing
	mute   bool // nothing gets through to it or from it
	gone   bool
	resume time.Time // when it watches again, while it has no term
	news   []tidings
	last   time.Time // of news
	notice time.Time // when it notices that its connection ended
}

type tidings struct {
	at       time.Time
	revision uint64
	owner    claim
	synced   bool
}

const seaStep = 10 * time.Millisecond

func (s *sea) delay(most time.Duration) time.Duration {
	if !s.calm && s.random.IntN(4) == 0 {
		most *= 10
	}
	return time.Duration(s.random.Int64N(int64(most)))
}

func (s *sea) join() {
	s.clients++
	s.crews = append(s.crews, &crew{name: fmt.Sprint("crew ", s.clients), holder: holder{"s", s.clients}, resume: s.now})
}

// change tells everybody who watches.
func (s *sea) change(owner claim) {
	s.revision++
	s.owner = owner
	for _, c := range s.crews {
		if c.term != nil {
			c.hear(s, tidings{revision: s.revision, owner: owner})
		}
	}
}

func (c *crew) hear(s *sea, n tidings) {
	n.at = s.now.Add(s.delay(20 * time.Millisecond))
	if n.at.Before(c.last) {
		n.at = c.last
	}
	c.last = n.at
	c.news = append(c.news, n)
}

// lose ends a connection: the store knows at once, the crew a little later.
func (s *sea) lose(c *crew, notice time.Duration) {
	s.ends = append(s.ends, end{c.holder, s.now.Add(s.delay(10 * time.Millisecond))})
	c.notice = s.now.Add(notice)
}

func (s *sea) step() {
	s.now = s.now.Add(seaStep)
	for _, r := range s.requests {
		if r.done || r.from.mute || r.arrives.After(s.now) {
			continue
		}
		r.done = true
		if r.refused = r.expected != s.revision; r.refused {
			continue
		}
		owner := r.own
		if r.release {
			owner = claim{}
		}
		s.change(owner)
		s.expires = s.now.Add(leaderTTL)
		r.revision = s.revision
	}
	if s.owner != (claim{}) && !s.now.Before(s.expires) && s.random.IntN(5) == 0 {
		s.change(claim{})
	}
	for _, c := range s.crews {
		if !c.hung && !c.gone {
			c.sail(s)
		}
	}
	s.requests = slices.DeleteFunc(s.requests, func(r *request) bool { return r.abandoned && r.done })
}

// sail does what the shell does with a term.
func (c *crew) sail(s *sea) {
	restart := func() {
		c.term, c.leads, c.news, c.resume = nil, false, nil, s.now.Add(s.delay(100*time.Millisecond))
		for _, r := range s.requests {
			r.abandoned = r.abandoned || r.from == c
		}
	}
	if !c.notice.IsZero() && !s.now.Before(c.notice) {
		c.notice = time.Time{}
		s.clients++
		c.holder = holder{"s", s.clients}
		restart()
	}
	if c.term == nil {
		if s.now.Before(c.resume) {
			return
		}
		c.term, c.last = newTerm(c.name, s.now), s.now
		if s.revision > 0 {
			c.hear(s, tidings{revision: s.revision, owner: s.owner})
		}
		c.hear(s, tidings{synced: true})
	}
	c.leads = c.term.leads(s.now) // first of all
	for len(c.news) > 0 && !c.mute && !c.news[0].at.After(s.now) {
		if n := c.news[0]; n.synced {
			c.term.synced = true
		} else {
			c.term.told(s.now, n.revision, n.owner)
		}
		c.news = c.news[1:]
	}
	for _, e := range s.ends {
		if e.holder == c.term.owner.holder && !c.mute && !e.at.After(s.now) {
			c.term.ended(s.now)
		}
	}
	for _, r := range s.requests {
		if r.term != c.term || r.abandoned || r.release {
			continue
		}
		answered := r.done && !r.lost && !c.mute && !r.answers.After(s.now)
		switch {
		case answered && r.refused:
			r.abandoned = true
			c.term.refused(s.now)
		case answered:
			r.abandoned = true
			c.term.wrote(s.now, r.revision, r.own)
		case !s.now.Before(c.term.sent.Add(leaderRenewal)):
			r.abandoned = true
			if c.term.failed(s.now); !c.term.leads(s.now) {
				restart()
				return
			}
		}
	}
	c.leads = c.term.leads(s.now)
	write, _, err := c.term.due(s.now)
	if err != nil {
		restart()
		return
	}
	if write {
		c.term.writes(s.now)
		s.send(c, false)
	}
}

func (s *sea) send(c *crew, release bool) {
	arrives := s.now.Add(s.delay(30 * time.Millisecond))
	s.requests = append(s.requests, &request{
		from: c, term: c.term, own: claim{c.holder, c.name}, expected: c.term.revision, release: release,
		arrives: arrives, answers: arrives.Add(s.delay(100 * time.Millisecond)), lost: !s.calm && s.random.IntN(10) == 0, abandoned: release,
	})
}

func (s *sea) leaders() (names []string) {
	for _, c := range s.crews {
		if c.leads && !c.hung && !c.gone {
			names = append(names, c.name)
		}
	}
	return names
}

// Whatever is delayed, lost or stopped, at most one leads at a time; and when it
// is over, one does.
func TestTermProperty(t *testing.T) {
	t.Parallel()
	terms := 0
	rapid.Check(t, func(t *rapid.T) {
		s := &sea{now: time.Unix(0, 0), random: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
		sail := func(d time.Duration) {
			for end := s.now.Add(d); s.now.Before(end); {
				before := s.leaders()
				s.step()
				now := s.leaders()
				if len(now) > 1 {
					t.Fatalf("%v lead at a time, at %v", now, s.now.Sub(time.Unix(0, 0)))
				}
				if len(now) == 1 && !slices.Equal(before, now) {
					terms++
				}
			}
		}
		for range rapid.IntRange(1, 4).Draw(t, "crews") {
			s.join()
		}
		for range rapid.IntRange(0, 30).Draw(t, "incidents") {
			sail(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			c := s.crews[rapid.IntRange(0, len(s.crews)-1).Draw(t, "crew")]
			if i := slices.IndexFunc(s.crews, func(c *crew) bool { return c.leads }); i >= 0 && rapid.Bool().Draw(t, "the leader") {
				c = s.crews[i]
			}
			switch rapid.SampledFrom([]string{"hang", "mute", "go on", "cut", "cut and hang", "kill", "resign", "join"}).Draw(t, "incident") {
			case "hang":
				c.hung = true
			case "mute":
				c.mute = true
			case "go on":
				c.hung, c.mute = false, false
			case "cut":
				s.lose(c, s.delay(5*time.Millisecond)) // 50 ms at most
			case "cut and hang":
				s.lose(c, 0)
				c.hung = true
			case "kill":
				s.lose(c, 0)
				c.gone, c.leads = true, false
			case "resign":
				if c.term != nil && c.term.ours() {
					c.gone, c.leads = true, false
					s.send(c, true)
				}
			case "join":
				s.join()
			}
		}
		for _, c := range s.crews {
			c.hung, c.mute = false, false
		}
		s.calm = true
		s.join()
		sail(15 * time.Second)
		if len(s.leaders()) != 1 {
			t.Fatalf("in the end %v lead, want one", s.leaders())
		}
	})
	t.Logf("%d terms", terms)
	if terms < 100 {
		t.Errorf("only %d terms", terms)
	}
}
