package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/registry"
)

// maxAnswer bounds what is read of an answer, and of one event of a stream:
// 64 KiB for each of some thousand instances.
const maxAnswer = 64 << 20

// answerTimeout is how long an answer of the admin API may take.
const answerTimeout = 10 * time.Second

func (a *app) servicesCommand() *cobra.Command {
	list := func(cmd *cobra.Command, args []string) error { return a.listServices(cmd, args) }
	services := &cobra.Command{
		Use:     "services",
		Aliases: []string{"service"},
		Short:   "List the services that are up, or watch them change",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    list,
	}
	services.PersistentFlags().StringVar(&a.url, "url", "", "admin API of the system (default: KEELSON_URL, the running `up` of this folder, "+defaultAdmin+")")
	listing := &cobra.Command{
		Use:     "list [SERVICE]",
		Short:   "List the instances of all services, or of one",
		Example: "  keelson services list\n  keelson services list user-service -o json",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE:    list,
	}
	watch := &cobra.Command{
		Use:   "watch [SERVICE...]",
		Short: "Show instances coming, going and changing, until Ctrl-C",
		RunE:  func(cmd *cobra.Command, args []string) error { return a.watchServices(cmd.Context(), args) },
	}
	for _, c := range []*cobra.Command{services, listing} {
		c.Flags().StringArray("tag", nil, "only instances with this tag; repeat for several")
		c.Flags().StringArray("status", nil, "only instances in this state; repeat for several")
		a.outputFlag(c, "table", "wide", "json", "yaml", "name")
	}
	a.outputFlag(watch, "table", "json")
	services.AddCommand(listing, watch)
	return services
}

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
	ctx, cancel := context.WithTimeout(cmd.Context(), answerTimeout)
	defer cancel()
	resp, err := a.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var all []registry.Instance
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&all); err != nil {
		switch {
		case cmd.Context().Err() != nil:
			return &failure{code: exitInterrupted, message: "interrupted"}
		case ctx.Err() != nil:
			return &failure{code: exitTimeout, message: "the answer took too long"}
		}
		return fmt.Errorf("read the answer: %w", err)
	}
	switch a.output {
	case "json":
		return writeJSON(a.stdout, all)
	case "yaml":
		return writeYAML(a.stdout, all)
	case "name":
		for _, i := range all {
			if _, err := fmt.Fprintln(a.stdout, i.Key()); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(a.stderr, "No instance is registered.")
		return nil
	}
	return a.tableOf(all, a.output == "wide")
}

func (a *app) tableOf(all []registry.Instance, wide bool) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 3, ' ', 0)
	header := "SERVICE\tINSTANCE\tADDRESS\tSTATUS\tVERSION\tAGE"
	if wide {
		header += "\tHEARTBEAT\tZONE\tTAGS\tMETADATA"
	}
	fmt.Fprintln(w, header)
	for _, i := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s", i.Name, i.ID, i.Address, i.Status, dash(i.Version), age(i.RegisteredAt))
		if wide {
			var metadata []string
			for _, k := range slices.Sorted(maps.Keys(i.Metadata)) {
				metadata = append(metadata, k+"="+i.Metadata[k])
			}
			fmt.Fprintf(w, "\t%s\t%s\t%s\t%s", age(i.LastHeartbeat), dash(i.Zone), dash(strings.Join(i.Tags, ",")), dash(strings.Join(metadata, ",")))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is how long ago t was, as coarse as people read it.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// errShow: what came can't be shown, as opposed to nothing coming any more.
var errShow = errors.New("show the event")

// watchServices follows the admin API's stream, for as long as it takes: a
// system that is restarted is found again.
func (a *app) watchServices(ctx context.Context, services []string) error {
	q := url.Values{"service": services}
	for _, s := range services {
		if !registry.ValidName(s) {
			return &failure{code: exitUsage, message: fmt.Sprintf("%q is not a service's name", s)}
		}
	}
	connected := false
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		resp, err := a.get(ctx, "/v1/watch?"+q.Encode()) // the query may be empty
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is how a watch ends
		case err != nil && !connected:
			return err
		case err == nil:
			connected, wait = true, 250*time.Millisecond
			err = a.follow(resp)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // Ctrl-C is how a watch ends
		}
		if errors.Is(err, errShow) {
			return err
		}
		fmt.Fprintf(a.stderr, "the stream ended (%v); connecting again\n", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow prints a stream of server-sent events until it ends.
func (a *app) follow(resp *http.Response) error {
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxAnswer)
	var event string
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			event = value
		case "data":
			if err := a.showEvent(registry.EventType(event), []byte(value)); err != nil {
				return fmt.Errorf("%w: %w", errShow, err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}

func (a *app) showEvent(event registry.EventType, data []byte) error {
	if a.output == "json" {
		return json.NewEncoder(a.stdout).Encode(map[string]any{"event": event, "data": json.RawMessage(data)})
	}
	var instances []registry.Instance
	var err error
	if event == registry.Snapshot {
		err = json.Unmarshal(data, &instances)
	} else {
		instances = make([]registry.Instance, 1)
		err = json.Unmarshal(data, &instances[0])
	}
	if err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	s := a.style(a.stdout)
	colors := map[registry.EventType]string{registry.Register: green, registry.Deregister: red, registry.StatusChange: yellow, registry.Snapshot: dim}
	for _, i := range instances {
		_, err := fmt.Fprintf(a.stdout, "%s  %s  %s  %s  %s\n", time.Now().Format(time.TimeOnly),
			s.paint(colors[event], fmt.Sprintf("%-13s", event)), i.Key(), i.Address, i.Status)
		if err != nil {
			return err
		}
	}
	return nil
}
