package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/registry"
)

func (a *app) listServices(cmd *cobra.Command, args []string) error {
	q := url.Values{}
	for _, name := range []string{"tag", "status"} {
		values, err := cmd.Flags().GetStringArray(name)
		if err != nil {
			return err
		}
		if len(values) > 0 {
			q[name] = values
		}
	}
	path := "/v1/services"
	if len(args) > 0 {
		if !registry.ValidName(args[0]) {
			return &failure{code: exitUsage, message: fmt.Sprintf("%q is not a service's name", args[0])}
		}
		path += "/" + args[0]
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	all, err := fetch[[]registry.Instance](cmd.Context(), a, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	switch {
	case a.output != "table" && a.output != "wide":
		return a.list(all)
	case len(all) == 0:
		text := "No instance is registered."
		if len(args) > 0 || len(q) > 0 {
			text = "No such instance is registered; see `keelson services` for what is."
		}
		fmt.Fprintln(a.stderr, text)
		return nil
	}
	return a.tableOf(all, a.output == "wide")
}

func (a *app) tableOf(all []registry.Instance, wide bool) error {
	header := []string{"SERVICE", "INSTANCE", "ADDRESS", "STATUS", "VERSION", "AGE"}
	if wide {
		header = append(header, "HEARTBEAT", "LEASE", "ZONE", "TAGS", "METADATA")
	}
	t := newTable("", header...)
	for _, i := range all {
		t.row(i.Name, i.ID, i.Address)
		t.add(string(i.Status), statusColor(i.Status))
		for _, text := range []string{i.Version, age(i.RegisteredAt)} {
			t.add(dash(text), "")
		}
		if !wide {
			continue
		}
		for _, text := range []string{
			age(i.LastHeartbeat), leaseName(i.Lease), i.Zone, strings.Join(i.Tags, ","), strings.Join(pairs(i.Metadata), ","),
		} {
			t.add(dash(text), "")
		}
	}
	return t.write(a.stdout, a.style(a.stdout))
}

// pairs returns m as key=value in the order of the keys.
func pairs(m map[string]string) []string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return all
}

func leaseName(k registry.LeaseKind) string {
	if k == registry.LeaseConnection {
		return "connection"
	}
	return string(k)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is how long ago t was, as coarse as people read it.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(time.Since(t))
}

// span is a duration, as coarse as people read it.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
