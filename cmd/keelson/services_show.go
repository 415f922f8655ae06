package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

func (a *app) showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show SERVICE [INSTANCE]",
		Short: "Show all that is known of a service, or of one instance",
		Long: "Show all that is known of a service's instances, or of one: its record in the registry, and\n" +
			"what it answers right now when it is asked for its health directly, failing dependencies\n" +
			"included.",
		Example: "  keelson services show user-service\n  keelson services show user-service user-service-1\n" +
			"  keelson services show user-service.user-service-1 -o json",
		Args:              usageArgs(cobra.RangeArgs(1, 2)),
		RunE:              a.showServices,
		ValidArgsFunction: a.completeInstances,
	}
	a.outputFlag(cmd, "text", "json", "yaml", "name")
	return cmd
}

func (a *app) showServices(cmd *cobra.Command, args []string) error {
	ctx := cmd.Context()
	var found []registry.Instance
	single := len(args) == 2 || strings.Contains(args[0], ".")
	if single {
		keys, err := keysOf(cmd, args)
		if err != nil {
			return err
		}
		if found, err = a.instances(ctx, keys); err != nil {
			return err
		}
		single = len(found) == 1
	} else {
		if !registry.ValidName(args[0]) {
			return &failure{code: exitUsage, message: fmt.Sprintf("%q is not a service's name", args[0])}
		}
		var err error
		if found, err = fetch[[]registry.Instance](ctx, a, http.MethodGet, "/v1/services/"+args[0], nil); err != nil {
			return err
		}
		if len(found) == 0 {
			return noService(args[0], a.names(ctx))
		}
	}
	if a.output == "name" {
		return a.list(found)
	}
	all := checkUpAll(ctx, found)
	if ctx.Err() != nil {
		return interrupted()
	}
	var value any = all
	if single {
		value = all[0]
	}
	switch a.output {
	case "json":
		return writeJSON(a.stdout, value)
	case "yaml":
		return writeYAML(a.stdout, value)
	}
	var b strings.Builder
	for i, one := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		one.write(&b, a.style(a.stdout))
	}
	_, err := io.WriteString(a.stdout, b.String())
	return err
}

// instance asks for one instance, or does to it what path below it stands for.
func (a *app) instance(ctx context.Context, method string, key registry.Key, path string) (registry.Instance, error) {
	in, err := fetch[registry.Instance](ctx, a, method, pathOf(key)+path, nil)
	if err == nil && in.Key() != key {
		base, _, _ := a.admin() // it was found before
		err = strange(base, "answers what is not "+key.String())
	}
	return in, a.known(ctx, key, err)
}

// instances fetches all of the instances, or says which one there is not.
func (a *app) instances(ctx context.Context, keys []registry.Key) ([]registry.Instance, error) {
	var all []registry.Instance
	for _, key := range keys {
		in, err := a.instance(ctx, http.MethodGet, key, "")
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

// known makes "not found" say what there is.
func (a *app) known(ctx context.Context, key registry.Key, err error) error {
	if f, ok := errors.AsType[*failure](err); ok && f.code == exitNotFound {
		return noInstance(key, a.names(ctx))
	}
	return err
}

func pathOf(key registry.Key) string { return "/v1/services/" + key.Service + "/" + key.ID }

// write writes the instance for a person.
func (in shown) write(w io.Writer, s style) {
	fmt.Fprintln(w, s.paint(bold, clean(in.Key().String())))
	line := func(name, value, sgr string) {
		fmt.Fprintf(w, "  %-16s %s\n", name+":", s.paint(sgr, clean(value)))
	}
	rotation := "in rotation"
	if !in.Status.Serving() {
		rotation = "not in rotation"
	}
	line("status", fmt.Sprintf("%s, %s%s", in.Status, rotation, byHand(in.Instance)), statusColor(in.Status))
	line("address", in.Address, "")
	line("health check", orText(in.Health, "none: whether it takes connections is all that is checked"), "")
	line("version", dash(in.Version), "")
	line("zone", dash(in.Zone), "")
	line("tags", dash(strings.Join(in.Tags, ", ")), "")
	line("metadata", dash(strings.Join(pairs(in.Metadata), ", ")), "")
	line("registered", when(in.RegisteredAt), "")
	line("lease", leaseText(in.Lease), "")
	line("last heartbeat", orText(ago(in.LastHeartbeat), "not known"), "")
	c := in.Checkup
	switch {
	case !c.Reachable:
		line("asked directly", "not reachable from here: "+c.Error, yellow)
	case c.Code == 0:
		line("asked directly", fmt.Sprintf("takes connections (%.1f ms)", c.ResponseTime), green)
	default:
		said, color := fmt.Sprintf("%d", c.Code), green
		if c.Report != nil {
			said += fmt.Sprintf(" %s, up for %s", c.Report.Status, span(time.Duration(c.Report.Uptime*float64(time.Second))))
			color = statusColor(c.Report.Status)
		}
		if !c.well() {
			said, color = said+": "+c.Error, red
		}
		line("asked directly", fmt.Sprintf("%s (%.1f ms)", said, c.ResponseTime), color)
	}
	writeDependencies(w, s, c.Report)
}

// writeDependencies writes what a program depends on, the failing ones in red.
func writeDependencies(w io.Writer, s style, r *health.Report) {
	if r == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.Dependencies)) {
		d := r.Dependencies[name]
		text, sgr := fmt.Sprintf("%s (%.1f ms)", d.Status, d.ResponseTime), ""
		if d.Status == health.Unhealthy {
			text, sgr = dependencyText(d), red
		}
		fmt.Fprintf(w, "    %-14s %s\n", clean(name)+":", s.paint(sgr, clean(text)))
	}
}

// dependencyText says how a dependency fails.
func dependencyText(d health.Dependency) string {
	text := string(d.Status)
	if d.Critical {
		text += ", critical"
	}
	if d.Error != "" {
		text += ": " + d.Error
	}
	return text
}

// byHand says who took an instance out of rotation that itself says otherwise.
func byHand(in registry.Instance) string {
	switch {
	case in.Announced == "" || in.Announced == in.Status:
		return ""
	case in.Status == health.Draining:
		return fmt.Sprintf(": drained by hand; itself it says %s", in.Announced)
	}
	return fmt.Sprintf(": failed its checks; itself it says %s", in.Announced)
}

func leaseText(k registry.LeaseKind) string {
	switch k {
	case registry.LeaseConnection:
		return "connection: the instance renews it itself, and it ends with its connection"
	case registry.LeaseChecks:
		return "checks: each health check it passes renews it"
	case registry.LeaseHeartbeats:
		return "heartbeats: it lasts for as long as heartbeats come over HTTP"
	}
	return string(k)
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", t.Local().Format(time.DateTime), ago(t))
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(t) + " ago"
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
