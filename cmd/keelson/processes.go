package main

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/supervise"
)

// The fleet is what the admin API shows and restarts.
var _ console.Processes = (*fleet)(nil)

// List implements console.Processes.
func (f *fleet) List() []console.Process {
	states := map[string]supervise.Status{}
	if s := f.supervisor.Load(); s != nil {
		for _, st := range s.List() {
			states[st.Instance] = st
		}
	}
	all := make([]console.Process, 0, len(f.members))
	for _, m := range f.members {
		all = append(all, processOf(m, states[m.instance]))
	}
	slices.SortStableFunc(all, func(a, b console.Process) int { return cmp.Compare(a.Service, b.Service) })
	return all
}

// processOf is an instance as the admin API shows it.
func processOf(m *member, st supervise.Status) console.Process {
	p := console.Process{
		Service: m.service.Name, Instance: m.instance, State: string(cmp.Or(st.State, supervise.Building)), Port: m.port,
		Restarts: st.Restarts,
	}
	switch st.State {
	case supervise.Starting, supervise.Healthy, supervise.Stopping:
		p.PID, p.StartedAt = st.Process.PID, st.StartedAt.UTC()
	}
	switch {
	case st.State == supervise.Restarting && st.Err != nil:
		p.LastExit = st.Err.Error()
	case st.Exit != nil:
		p.LastExit = st.Exit.String()
	}
	return p
}

// Logs implements console.Processes.
func (f *fleet) Logs(ctx context.Context, service string, tail int, follow bool) (iter.Seq[console.LogLine], error) {
	j := f.journals[service]
	if j == nil {
		return nil, console.ErrUnknownService
	}
	return j.read(ctx, tail, follow), nil
}
