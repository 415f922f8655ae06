package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/console"
)

// wholeJournal is more lines than the admin API keeps of a service, and as many
// as it takes for a number.
const wholeJournal = 10_000

type logsFlags struct {
	lines              int
	follow, timestamps bool
	instance           string
}

func (a *app) logsCommand() *cobra.Command {
	var flags logsFlags
	cmd := &cobra.Command{
		Use:   "logs [SERVICE...]",
		Short: "Show what the running services write",
		Long: "Show the last lines of all services that `keelson up` runs, or of those named, and with -f\n" +
			"what comes, until Ctrl-C. `up` keeps the last 2,000 lines of each instance. A system that is\n" +
			"restarted is found again.",
		Example:           "  keelson logs -f\n  keelson logs user-service -n 20 --timestamps\n  keelson logs -o json | jq -r 'select(.stream == \"stderr\").text'",
		RunE:              func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), args, flags) },
		ValidArgsFunction: a.completeProcesses,
	}
	a.systemFlags(cmd)
	cmd.Flags().IntVarP(&flags.lines, "lines", "n", 100, "how many of the last lines of each service")
	cmd.Flags().BoolVarP(&flags.follow, "follow", "f", false, "go on with new lines, until Ctrl-C")
	cmd.Flags().BoolVar(&flags.timestamps, "timestamps", false, "show when each line was written")
	cmd.Flags().StringVar(&flags.instance, "instance", "", "only the lines of this instance")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func (a *app) logs(ctx context.Context, services []string, flags logsFlags) error {
	if flags.lines < 0 || flags.lines > wholeJournal {
		return &failure{code: exitUsage, message: fmt.Sprintf("--lines is %d", flags.lines), hint: fmt.Sprintf("give 0 to %d", wholeJournal)}
	}
	l := &logging{app: a, flags: flags, services: services, last: map[string]time.Time{}}
	err := l.begin(ctx)
	if err != nil || !flags.follow {
		return err
	}
	away := false
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := l.follow(ctx, func() {
			if away {
				fmt.Fprintln(a.stderr, "connected again")
			}
			away, wait = false, retryMin
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is how it ends
		case errors.Is(err, errShow):
			return err
		case errors.Is(err, errEnded), mayPass(err):
			if !away {
				away = true
				fmt.Fprintf(a.stderr, "%v; connecting again\n", err)
			}
		default:
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// logging shows lines of services, each once.
type logging struct {
	app      *app
	flags    logsFlags
	services []string // empty: all

	names    []string // of the services that there are
	prefixes *prefixes
	last     map[string]time.Time // shown of each instance; no two of its lines have the same
}

// look finds out what runs.
func (l *logging) look(ctx context.Context) error {
	all, err := l.app.running(ctx, l.services...)
	if err != nil {
		return err
	}
	shown := 0
	l.names = nil
	for _, p := range all {
		if l.flags.instance == "" || l.flags.instance == p.Instance {
			shown++
			l.names = append(l.names, p.Service)
		}
	}
	if shown == 0 && l.flags.instance != "" {
		var instances []string
		for _, p := range all {
			instances = append(instances, p.Instance)
		}
		return &failure{
			code: exitNotFound, message: fmt.Sprintf("no instance %q is run here", l.flags.instance),
			hint: suggest(l.flags.instance, instances, "see `keelson status` for what is"),
		}
	}
	l.names = slices.Compact(l.names) // ordered by service
	if shown > 1 && l.prefixes == nil {
		p := newPrefixes(l.app.style(l.app.stdout), l.names)
		l.prefixes = &p
	}
	return nil
}

// begin shows the last lines there are.
func (l *logging) begin(ctx context.Context) error {
	if err := l.look(ctx); err != nil {
		return err
	}
	var lines []console.LogLine
	for _, name := range l.names {
		some, err := l.tail(ctx, name)
		if err != nil {
			return err
		}
		for _, line := range some { // of all, also of those that are not shown
			l.last[line.Instance] = line.Time
		}
		lines = append(lines, some[max(0, len(some)-l.flags.lines):]...)
	}
	slices.SortStableFunc(lines, func(a, b console.LogLine) int { return a.Time.Compare(b.Time) })
	out := bufio.NewWriter(l.app.stdout)
	for _, line := range lines {
		if err := l.show(out, line); err != nil {
			return err
		}
	}
	return out.Flush()
}

// tail returns the last lines of a service: those to show, and, if more are to be
// followed, all.
func (l *logging) tail(ctx context.Context, service string) ([]console.LogLine, error) {
	n := l.flags.lines
	if l.flags.follow || l.flags.instance != "" {
		n = wholeJournal
	}
	bounded, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var lines []console.LogLine
	err := l.read(bounded, service, n, false, nil, func(line console.LogLine) error {
		lines = append(lines, line)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return nil, interrupted()
	case errors.Is(err, errEnded):
		return lines, nil
	}
	return nil, err
}

// follow shows new lines until a stream ends, which it always returns an error
// about. connected is called when all are there.
func (l *logging) follow(ctx context.Context, connected func()) error {
	if err := l.look(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	missing := len(l.names)
	results := make(chan error, len(l.names))
	for _, name := range l.names {
		go func() { // its result is waited for
			results <- l.read(ctx, name, wholeJournal, true, func() {
				mu.Lock()
				defer mu.Unlock()
				if missing--; missing == 0 {
					connected()
				}
			}, func(line console.LogLine) error {
				mu.Lock()
				defer mu.Unlock()
				if !line.Time.After(l.last[line.Instance]) {
					return nil
				}
				l.last[line.Instance] = line.Time
				return l.show(l.app.stdout, line)
			})
		}()
	}
	var first error
	for range l.names {
		if err := <-results; first == nil {
			first = err
			cancel()
		}
	}
	return first
}

// read calls show for each line of a service's log. It returns errEnded at its
// end.
func (l *logging) read(ctx context.Context, service string, tail int, follow bool, connected func(), show func(console.LogLine) error) error {
	q := url.Values{"tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}}
	if l.flags.instance != "" {
		q.Set("instance", l.flags.instance)
	}
	resp, err := l.app.get(ctx, "/v1/processes/"+url.PathEscape(service)+"/logs?"+q.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if connected != nil {
		connected()
	}
	for d := json.NewDecoder(resp.Body); ; {
		var line console.LogLine
		err := d.Decode(&line)
		_, syntax := errors.AsType[*json.SyntaxError](err)
		_, mistyped := errors.AsType[*json.UnmarshalTypeError](err)
		switch {
		case errors.Is(err, io.EOF):
			return errEnded
		case syntax, mistyped:
			return fmt.Errorf("%w: %w", errShow, err)
		case err != nil:
			return fmt.Errorf("%w: %w", errEnded, err)
		}
		if err := show(line); err != nil {
			return err
		}
	}
}

func (l *logging) show(w io.Writer, line console.LogLine) error {
	if l.app.output == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		if err := e.Encode(line); err != nil {
			return fmt.Errorf("%w: %w", errShow, err)
		}
		return nil
	}
	text := line.Text
	if l.prefixes != nil {
		text = l.prefixes.prefix(line.Service, line.Instance) + " " + text
	}
	if l.flags.timestamps {
		text = l.app.style(l.app.stdout).paint(dim, line.Time.Local().Format("2006-01-02 15:04:05.000")) + " " + text
	}
	if _, err := fmt.Fprintln(w, text); err != nil {
		return fmt.Errorf("%w: %w", errShow, err)
	}
	return nil
}

// running returns what the system runs of some services, or of all, ordered by
// service. One that it does not run is a failure.
func (a *app) running(ctx context.Context, services ...string) ([]console.Process, error) {
	all, err := fetch[[]console.Process](ctx, a, http.MethodGet, "/v1/processes", nil)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b console.Process) int { return cmp.Compare(a.Service, b.Service) })
	var names []string
	for _, p := range all {
		names = append(names, p.Service)
	}
	names = slices.Compact(names)
	for _, s := range services {
		if !slices.Contains(names, s) {
			return nil, &failure{
				code: exitNotFound, message: fmt.Sprintf("no service %q is run here", s),
				hint: suggest(s, names, "see `keelson status` for what is"),
			}
		}
	}
	if len(services) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(p console.Process) bool { return !slices.Contains(services, p.Service) }), nil
}

// completeProcesses completes services that the system runs.
func (a *app) completeProcesses(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	all, err := a.running(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var left []string
	for _, p := range all {
		if !slices.Contains(args, p.Service) {
			left = append(left, p.Service)
		}
	}
	return slices.Compact(left), cobra.ShellCompDirectiveNoFileComp
}
