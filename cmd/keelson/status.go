package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// overview is a whole system at a glance.
type overview struct {
	Well      bool              `json:"well"`
	Problems  []string          `json:"problems"` // why it is not
	System    console.System    `json:"system"`
	Gateway   *checkup          `json:"gateway,omitempty"` // nil if it can't be asked from here
	Services  []serviceSummary  `json:"services"`
	Processes []console.Process `json:"processes"`
}

// serviceSummary is a service's row.
type serviceSummary struct {
	Name       string          `json:"name"`
	InRotation int             `json:"inRotation"`
	Instances  int             `json:"instances"`
	Versions   []string        `json:"versions"`
	Status     registry.Status `json:"status"` // the worst of its instances
	Failing    []string        `json:"failing"`
}

func (a *app) statusCommand() *cobra.Command {
	var follow bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the whole running system at a glance",
		Long: "Show the running system at a glance: gateway, engine, registry, services, processes, and what\n" +
			"fails.\n\n" +
			"Exit code 0: everything is in rotation. 1: something is not (an instance, the gateway, a\n" +
			"process, the registry). 3: nothing runs.",
		Example: "  keelson status\n  keelson status --watch\n  keelson status -o json | jq .problems",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !follow {
				return a.status(cmd.Context())
			}
			if every < 100*time.Millisecond {
				return &failure{code: exitUsage, message: fmt.Sprintf("--interval is %v", every), hint: "give a time such as 2s"}
			}
			return a.watchStatus(cmd.Context(), every)
		},
	}
	a.systemFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "show it again and again, until Ctrl-C")
	cmd.Flags().DurationVar(&every, "interval", 2*time.Second, "with --watch: how often")
	a.outputFlag(cmd, "table", "json", "yaml")
	return cmd
}

func (a *app) status(ctx context.Context) error {
	o, err := a.overview(ctx)
	if err != nil {
		return err
	}
	if err := a.writeStatus(a.stdout, o); err != nil {
		return err
	}
	if !o.Well {
		return &failure{code: exitFailed} // what is wrong is in what was printed
	}
	return nil
}

func (a *app) writeStatus(w io.Writer, o overview) error {
	switch a.output {
	case "json":
		return writeJSON(w, o)
	case "yaml":
		return writeYAML(w, o)
	}
	return o.write(w, a.style(a.stdout))
}

// watchStatus shows the status until ctx ends: on a terminal always in the same
// place, else one after the other. A system that is away is waited for.
func (a *app) watchStatus(ctx context.Context, every time.Duration) error {
	drawn := terminal(a.stdout) && a.output == "table"
	for first := true; ; first = false {
		var frame bytes.Buffer
		o, err := a.overview(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how it ends
		case err == nil:
			if err := a.writeStatus(&frame, o); err != nil {
				return err
			}
		case first || !mayPass(err):
			return err
		case a.output != "table":
			fmt.Fprintln(a.stderr, err)
		default:
			fmt.Fprintln(&frame, a.style(a.stdout).paint(red, err.Error()))
		}
		text := frame.Bytes()
		if drawn {
			if first {
				const clearNoWrap, wrap = "\x1b[?7l\x1b[2J", "\x1b[?7h"
				fmt.Fprint(a.stdout, clearNoWrap)
				defer fmt.Fprint(a.stdout, wrap)
			}
			_, lines := terminalSize(a.stdout)
			text = redraw(frame.String(), lines)
		} else if !first && a.output == "table" {
			text = append([]byte("\n"), text...)
		}
		if _, err := a.stdout.Write(text); err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

// redraw returns what draws text at the top of a terminal, over what was there:
// as much of it as fits into its lines.
func redraw(text string, lines int) []byte {
	all := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	if lines > 1 && len(all) > lines-1 {
		all = append(all[:lines-2], "…")
	}
	var b bytes.Buffer
	b.WriteString("\x1b[H")
	for _, line := range all {
		b.WriteString(strings.TrimSuffix(line, "\n") + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	return b.Bytes()
}

// overview asks everything there is to ask.
func (a *app) overview(ctx context.Context) (o overview, err error) {
	if o.System, err = fetch[console.System](ctx, a, http.MethodGet, "/v1/system", nil); err != nil {
		return o, err
	}
	all, err := fetch[[]registry.Instance](ctx, a, http.MethodGet, "/v1/services", nil)
	if err != nil {
		return o, err
	}
	if o.Processes, err = a.processes(ctx); err != nil {
		return o, err
	}
	base, source, err := a.admin()
	if err != nil {
		return o, err
	}
	// Whose dependency fails is only known by asking; who is well needs no asking.
	var ailing []shown
	var asking sync.WaitGroup
	asking.Go(func() {
		ailing = checkUpAll(ctx, slices.DeleteFunc(slices.Clone(all), func(in registry.Instance) bool { return in.Status == health.Healthy }))
	})
	if u := o.System.Gateway.URL; u != "" && askable(u, base, source) {
		asking.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, checkupTimeout)
			defer cancel()
			c := askHealth(bounded, u+"/health")
			o.Gateway = &c
		})
	}
	asking.Wait()
	o.Services = summarize(all, ailing, o.Processes)
	o.judge()
	return o, nil
}

// processes returns the processes of a system, none of one that runs none.
func (a *app) processes(ctx context.Context) ([]console.Process, error) {
	all, err := fetch[[]console.Process](ctx, a, http.MethodGet, "/v1/processes", nil)
	if f, ok := errors.AsType[*failure](err); ok && f.code == exitNotFound {
		return []console.Process{}, nil
	}
	return all, err
}

// summarize makes a row for each service that is registered or has a process.
func summarize(all []registry.Instance, ailing []shown, processes []console.Process) []serviceSummary {
	rows := map[string]*serviceSummary{}
	row := func(name string) *serviceSummary {
		if rows[name] == nil {
			rows[name] = &serviceSummary{Name: name, Versions: []string{}, Failing: []string{}}
		}
		return rows[name]
	}
	for _, in := range all {
		s := row(in.Name)
		s.Instances++
		if in.Status.Serving() {
			s.InRotation++
		} else {
			s.Failing = append(s.Failing, fmt.Sprintf("%s: %s%s", in.ID, in.Status, byHand(in)))
		}
		if severity(in.Status) > severity(s.Status) {
			s.Status = in.Status
		}
		if in.Version != "" && !slices.Contains(s.Versions, in.Version) {
			s.Versions = append(s.Versions, in.Version)
		}
	}
	for _, in := range ailing {
		s := row(in.Name)
		for _, name := range in.Checkup.failing() {
			s.Failing = append(s.Failing, fmt.Sprintf("%s: %s %s", in.ID, name, dependencyText(in.Checkup.Report.Dependencies[name])))
		}
		if in.Checkup.Report == nil && in.Checkup.Error != "" {
			s.Failing = append(s.Failing, fmt.Sprintf("%s: %s", in.ID, in.Checkup.Error))
		}
	}
	for _, p := range processes { // one that has not registered is missing
		s := row(p.Service)
		if !slices.ContainsFunc(all, func(in registry.Instance) bool { return in.Name == p.Service && in.ID == p.Instance }) {
			s.Instances++
			s.Status = health.Unhealthy
			s.Failing = append(s.Failing, p.Instance+": its process is "+p.State+", it is not registered")
		}
	}
	list := []serviceSummary{}
	for _, s := range rows {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b serviceSummary) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// severity orders statuses: the more, the worse.
func severity(s registry.Status) int {
	return slices.Index([]registry.Status{health.Healthy, health.Degraded, health.Starting, health.Draining, health.Unhealthy}, s)
}

// judge says what is not well.
func (o *overview) judge() {
	o.Problems = []string{}
	add := func(format string, args ...any) { o.Problems = append(o.Problems, clean(fmt.Sprintf(format, args...))) }
	if o.System.Status != "" && !o.System.Status.Serving() {
		add("the system is %s", o.System.Status)
	}
	for _, name := range failing(o.System.Dependencies) {
		if d := o.System.Dependencies[name]; d.Critical {
			add("%s: %s", name, dependencyText(d))
		}
	}
	if r := o.System.Registry; !r.Synced || r.Error != "" {
		add("the registry is not in step with the engine: %s", orText(r.Error, "it has not read it all yet"))
	}
	if c := o.Gateway; c != nil && !c.well() {
		add("the gateway: %s", c.Error)
	}
	for _, s := range o.Services {
		if n := s.Instances - s.InRotation; n > 0 {
			add("%s: %d of %d not in rotation", s.Name, n, s.Instances)
		}
	}
	o.Well = len(o.Problems) == 0
}
