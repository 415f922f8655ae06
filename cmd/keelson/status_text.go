package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/keelson-go/keelson/health"
)

// write writes the overview for a person.
func (o overview) write(w io.Writer, s style) error {
	mark := s.paint(green, "all is well")
	if !o.Well {
		mark = s.paint(red, "not all is well")
	}
	fmt.Fprintf(w, "%s %s, up for %s (pid %d): %s\n\n", s.paint(bold, "keelson"), clean(o.System.Version), age(o.System.StartedAt), o.System.PID, mark)
	row := func(name, text, sgr string) {
		fmt.Fprintf(w, "  %s %s\n", s.paint(dim, fmt.Sprintf("%-9s", name)), s.paint(sgr, clean(text)))
	}
	switch c := o.Gateway; {
	case o.System.Gateway.URL == "":
	case c == nil:
		row("gateway", o.System.Gateway.URL+"  can't be asked from here", "")
	case c.well():
		row("gateway", fmt.Sprintf("%s  %s (%.1f ms)", o.System.Gateway.URL, said(c), c.ResponseTime), "")
	default:
		row("gateway", o.System.Gateway.URL+"  "+c.Error, red)
	}
	if o.System.Admin.URL != "" {
		row("admin API", o.System.Admin.URL, "")
	}
	row("engine", o.engine(), "")
	text, sgr := o.registry()
	row("registry", text, sgr)
	for _, name := range failing(o.System.Dependencies) {
		row(name, dependencyText(o.System.Dependencies[name]), red)
	}
	fmt.Fprintln(w)
	if len(o.Services) == 0 {
		fmt.Fprintln(w, "  No service is registered.")
	} else if err := o.services(w, s); err != nil {
		return err
	}
	for _, service := range o.Services {
		for _, f := range service.Failing {
			fmt.Fprintf(w, "  %s\n", s.paint(red, clean(f)))
		}
	}
	if len(o.Processes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return o.processes(w, s)
}

func said(c *checkup) string {
	if c.Report != nil {
		return string(c.Report.Status)
	}
	return strconv.Itoa(c.Code)
}

func (o overview) engine() string {
	e := o.System.Engine
	parts := []string{orText(e.Kind, "unknown")}
	for _, more := range []string{e.URL, e.Directory} {
		if more != "" {
			parts = append(parts, more)
		}
	}
	if e.Durability != "" {
		parts = append(parts, "durability "+e.Durability)
	}
	return strings.Join(parts, "  ")
}

func (o overview) registry() (text, sgr string) {
	r := o.System.Registry
	text = fmt.Sprintf("%s of %s", plural(r.Instances, "instance"), plural(r.Services, "service"))
	if r.Leading {
		text += ", checked from here"
	} else {
		text += ", checked by another node"
	}
	if r.Synced && r.Error == "" {
		return text, ""
	}
	return text + "; not in step with the engine: " + orText(r.Error, "not read yet"), red
}

func (o overview) services(w io.Writer, s style) error {
	t := newTable("  ", "SERVICE", "IN ROTATION", "STATUS", "VERSION")
	for _, service := range o.Services {
		sgr := ""
		if service.InRotation < service.Instances {
			sgr = yellow
		}
		if service.InRotation == 0 {
			sgr = red
		}
		t.row(service.Name)
		t.add(fmt.Sprintf("%d/%d", service.InRotation, service.Instances), sgr)
		t.add(string(service.Status), statusColor(service.Status))
		t.add(dash(strings.Join(service.Versions, ", ")), "")
	}
	return t.write(w, s)
}

func (o overview) processes(w io.Writer, s style) error {
	t := newTable("  ", "PROCESS", "STATE", "PID", "PORT", "RESTARTS", "UPTIME", "LAST EXIT")
	for _, p := range o.Processes {
		t.row(p.Instance)
		sgr := yellow
		if p.State == string(health.Healthy) {
			sgr = green
		}
		t.add(p.State, sgr)
		pid, uptime := "-", "-"
		if p.PID > 0 {
			pid, uptime = strconv.Itoa(p.PID), age(p.StartedAt)
		}
		for _, text := range []string{pid, strconv.Itoa(p.Port), strconv.Itoa(p.Restarts), uptime, dash(p.LastExit)} {
			t.add(text, "")
		}
	}
	return t.write(w, s)
}
