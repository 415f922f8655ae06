package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/supervise"
)

// shownLines are those of a process that failed.
const shownLines = 20

func (a *app) restartCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "restart SERVICE...",
		Short: "Restart services that `keelson up` runs",
		Long: "Restart the processes of services, one after another: each instance once the one before it is in\n" +
			"rotation again. They get what .env says now. Under `up --no-watch` they are built first.",
		Example:           "  keelson restart user-service\n  keelson restart --all -o json",
		RunE:              func(cmd *cobra.Command, args []string) error { return a.restart(cmd.Context(), args, all) },
		ValidArgsFunction: a.completeProcesses,
	}
	a.systemFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "restart all services")
	a.outputFlag(cmd, "table", "json", "yaml", "name")
	return cmd
}

func (a *app) restart(ctx context.Context, services []string, all bool) error {
	switch {
	case len(services) == 0 && !all:
		return &failure{code: exitUsage, message: "keelson restart needs a service", hint: "name one, or give --all; see `keelson status` for what there is"}
	case len(services) > 0 && all:
		return &failure{code: exitUsage, message: "there are services besides --all", hint: "give one or the other"}
	}
	there, err := a.running(ctx, services...)
	if err != nil {
		return err
	}
	if all {
		for _, p := range there {
			services = append(services, p.Service)
		}
		services = slices.Compact(services)
	}
	done := []console.Process{}
	for i, name := range services {
		if slices.Contains(services[:i], name) {
			continue
		}
		began := time.Now()
		fmt.Fprintf(a.stderr, "restarting %s\n", name)
		processes, err := a.restartOne(ctx, name)
		if err != nil {
			return err
		}
		n := 0
		for _, p := range processes {
			if p.Service == name {
				done = append(done, p)
				n++
			}
		}
		fmt.Fprintf(a.stderr, "%s is in rotation again (%s, %.1fs)\n", name, plural(n, "instance"), time.Since(began).Seconds())
	}
	return a.showProcesses(done)
}

// restartOne restarts a service. It takes as long as it takes: the system bounds
// each start and stop.
func (a *app) restartOne(ctx context.Context, service string) ([]console.Process, error) {
	resp, err := a.ask(ctx, http.MethodPost, "/v1/processes/"+url.PathEscape(service)+"/restart", nil)
	if ctx.Err() != nil {
		return nil, interrupted()
	}
	if f, ok := errors.AsType[*failure](err); ok && f.code == exitFailed {
		f.hint = "mend that, and restart it again"
		if said := a.lastWords(ctx, service); said != "" {
			f.detail = strings.TrimPrefix(f.detail+"\n"+said, "\n")
			f.hint = "it is tried again and again; `keelson logs -f " + service + "` shows how that goes"
		}
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all []console.Process
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&all); err != nil {
		if ctx.Err() != nil {
			return nil, interrupted()
		}
		base, _, _ := a.admin() // it was found before
		return nil, strange(base, "answers what can't be understood: "+err.Error())
	}
	return all, nil
}

// lastWords are the last lines of those instances of a service that are not in
// rotation, or nothing if they can't be had.
func (a *app) lastWords(ctx context.Context, service string) string {
	processes, err := a.running(ctx, service)
	if err != nil {
		return ""
	}
	l := &logging{app: a, flags: logsFlags{lines: wholeJournal}}
	lines, err := l.tail(ctx, service)
	if err != nil {
		return ""
	}
	var last []string
	for _, p := range processes {
		if p.State == string(supervise.Healthy) {
			continue
		}
		for _, line := range lines {
			if line.Instance == p.Instance {
				last = append(last, line.Text)
			}
		}
	}
	if len(last) == 0 {
		return ""
	}
	return "its last lines:\n" + indent(last[max(0, len(last)-shownLines):])
}

func (a *app) showProcesses(all []console.Process) error {
	switch a.output {
	case "json":
		return writeJSON(a.stdout, all)
	case "yaml":
		return writeYAML(a.stdout, all)
	case "name":
		for _, p := range all {
			if _, err := fmt.Fprintln(a.stdout, clean(p.Instance)); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable("", "SERVICE", "INSTANCE", "STATE", "PID", "PORT", "RESTARTS")
	for _, p := range all {
		t.row(p.Service, p.Instance, p.State, strconv.Itoa(p.PID), strconv.Itoa(p.Port), strconv.Itoa(p.Restarts))
	}
	return t.write(a.stdout, a.style(a.stdout))
}
