package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/supervise"
)

// echoTime is how long after a restart a change may still be due to it.
const echoTime = time.Second

// rollout restarts what runs an older program than is installed, until ctx ends:
// one instance of a service after another, and each only while the others are in
// rotation. So a program that does not come up leaves the rest alone, until there
// is another one.
func (f *fleet) rollout(ctx context.Context, s *supervise.Supervisor) {
	for ctx.Err() == nil {
		m := f.nextStale(s)
		if m == nil {
			select {
			case <-f.kick:
			case <-ctx.Done():
			}
			continue
		}
		one, cancel := context.WithCancel(ctx)
		f.mu.Lock()
		f.restarted = time.Now()
		f.supersede = cancel
		f.mu.Unlock()
		// Its failure is told with its state, and what follows from it depends on
		// that alone.
		err := s.Restart(one, m.instance)
		cancel()
		f.mu.Lock()
		f.restarted = time.Now()
		f.supersede = nil
		f.mu.Unlock()
		f.release(m.service.Name)
		if errors.Is(err, supervise.ErrStopped) {
			return
		}
		if _, failed := errors.AsType[*supervise.StartError](err); failed && m.service.Instances > 1 {
			f.out.say("the other instances of %s run what they did before until it is up", m.service.Name)
		}
	}
}

// nextStale returns an instance to restart now, and takes its service; nil if
// there is none. Of services that are done it says so.
func (f *fleet) nextStale(s *supervise.Supervisor) *member {
	states := s.List() // in the order of the members
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range f.manifest.Order() {
		p := f.programs[f.manifest.Services[name].Package]
		if p == nil || f.taken[name] {
			continue
		}
		installed := p.installed()
		var stale, unwell []*member
		for i, m := range f.members {
			if m.service.Name != name {
				continue
			}
			if m.version > 0 && m.version < installed {
				stale = append(stale, m)
			}
			if states[i].State != supervise.Healthy {
				unwell = append(unwell, m)
			}
		}
		var next *member
		switch i := slices.IndexFunc(stale, func(m *member) bool { return slices.Contains(unwell, m) }); {
		case i >= 0:
			next = stale[i] // has nothing to lose
		case len(stale) > 0 && len(unwell) == 0:
			next = stale[0]
		case len(stale) == 0 && len(unwell) == 0:
			if at, ok := f.changed[name]; ok {
				delete(f.changed, name)
				f.out.say("%s serves the change, %.1fs after it", name, time.Since(at).Seconds())
			}
		}
		if next != nil {
			f.taken[name] = true
			return next
		}
	}
	return nil
}

// newProgram is called when there is a new program for a package.
func (f *fleet) newProgram(p *program, changed time.Time) {
	f.mu.Lock()
	for name, s := range f.manifest.Services {
		if f.programs[s.Package] == p {
			f.changed[name] = changed
		}
	}
	if f.supersede != nil {
		f.supersede() // it may be waiting for a process that will never be healthy
	}
	f.mu.Unlock()
	f.wake()
}

// justRestarted reports whether processes are being restarted because of a new
// program, or were a moment ago.
func (f *fleet) justRestarted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.supersede != nil || time.Since(f.restarted) < echoTime
}

// wake has the rollout look again.
func (f *fleet) wake() {
	select {
	case f.kick <- struct{}{}:
	default: // it will
	}
}

// release gives back a service that was taken for a restart.
func (f *fleet) release(service string) {
	f.mu.Lock()
	delete(f.taken, service)
	f.mu.Unlock()
	f.wake()
}

// Restart implements console.Processes.
func (f *fleet) Restart(ctx context.Context, service string) error {
	members := f.membersOf(service)
	if len(members) == 0 {
		return console.ErrUnknownService
	}
	s := f.supervisor.Load()
	if s == nil {
		return errors.New("the services are not started yet")
	}
	f.mu.Lock()
	taken := f.taken[service]
	f.taken[service] = true
	f.mu.Unlock()
	if taken {
		return console.ErrRestarting
	}
	defer f.release(service)
	if _, err := f.rereadVariables(); err != nil {
		if detail := detailOf(err); detail != "" {
			err = fmt.Errorf("%w: %s", err, strings.ReplaceAll(detail, "\n", "; "))
		}
		return err
	}
	f.out.say("restarting %s, as was asked for", service)
	if p := f.programs[members[0].service.Package]; p != nil && !f.watching {
		if err := f.buildAgain(ctx, p); err != nil {
			return err
		}
	}
	// Those that are not in rotation have nothing to lose.
	unwell := func(m *member) bool {
		return slices.ContainsFunc(s.List(), func(st supervise.Status) bool {
			return st.Instance == m.instance && st.State != supervise.Healthy
		})
	}
	slices.SortStableFunc(members, func(a, b *member) int {
		switch first, second := unwell(a), unwell(b); {
		case first == second:
			return 0
		case first:
			return -1
		}
		return 1
	})
	for _, m := range members {
		if err := s.Restart(ctx, m.instance); err != nil {
			if errors.Is(err, supervise.ErrStopped) {
				return errors.New("the system is being stopped")
			}
			return err
		}
	}
	f.out.say("%s is restarted", service)
	return nil
}

// buildAgain builds a program when nobody watches its source.
func (f *fleet) buildAgain(ctx context.Context, p *program) error {
	stop := f.out.rebuilding(p.pkg)
	defer stop()
	_, err := p.build(ctx)
	if b, ok := errors.AsType[*buildError](err); ok {
		f.out.broken(err)
		return fmt.Errorf("%w: %s", err, strings.Join(strings.Split(b.output, "\n"), "; "))
	}
	return err
}

func (f *fleet) membersOf(service string) []*member {
	var all []*member
	for _, m := range f.members {
		if m.service.Name == service {
			all = append(all, m)
		}
	}
	return all
}
