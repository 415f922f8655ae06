package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/registry"
)

const (
	// silence ends a stream that gives no sign of life: the admin API gives one
	// every 15 s.
	silence = 45 * time.Second

	retryMin = 250 * time.Millisecond
	retryMax = 5 * time.Second
)

func (a *app) watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [SERVICE...]",
		Short: "Show instances coming, going and changing, until Ctrl-C",
		Long: "Show what is there, and then each instance that comes, goes or changes, until Ctrl-C. A system\n" +
			"that is restarted is found again, and what happened meanwhile is told as far as it is known\n" +
			"still; else the whole is told anew.",
		Example: "  keelson services watch\n  keelson services watch user-service pay\n" +
			"  keelson services watch -o json | jq 'select(.event == \"deregister\").data.id'",
		RunE:              func(cmd *cobra.Command, args []string) error { return a.watchServices(cmd.Context(), args) },
		ValidArgsFunction: a.completeServices,
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// watchServices follows the admin API's stream, for as long as it takes: a
// system that is restarted is found again.
func (a *app) watchServices(ctx context.Context, services []string) error {
	q := url.Values{"service": services}
	for _, s := range services {
		if !registry.ValidName(s) {
			return &failure{code: exitUsage, message: fmt.Sprintf("%q is not a service's name", s)}
		}
	}
	w := &watching{app: a, path: "/v1/watch?" + q.Encode(), known: map[registry.Key]registry.Instance{}}
	connected, away := false, false
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := w.follow(ctx, func() {
			if away {
				fmt.Fprintln(a.stderr, "connected again")
			}
			connected, away, wait = true, false, retryMin
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is how a watch ends
		case !connected, errors.Is(err, errShow):
			return err
		case errors.Is(err, errEnded):
			// It is followed anew at once, which tells if there is more to it.
		case !mayPass(err):
			return err
		case !away:
			away = true
			fmt.Fprintf(a.stderr, "%v; connecting again\n", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

var (
	// errShow: what came can't be shown, as opposed to nothing coming any more.
	errShow = errors.New("show the event")
	// errEnded: a stream that was open has ended.
	errEnded = errors.New("the stream has ended")
)

// watching is a watch over all its connections.
type watching struct {
	app   *app
	path  string
	seen  string // the last event's id
	known map[registry.Key]registry.Instance
}

// follow prints a stream, from the event after the last one, until it ends.
// opened is called once it is open.
func (w *watching) follow(ctx context.Context, opened func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dead := time.AfterFunc(answerTimeout, func() { cancel(context.DeadlineExceeded) })
	defer dead.Stop()
	header := []string{"Accept", "text/event-stream"}
	if w.seen != "" {
		header = append(header, "Last-Event-ID", w.seen)
	}
	resp, err := w.app.ask(ctx, http.MethodGet, w.path, nil, header...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "text/event-stream" {
		base, _, _ := w.app.admin() // it was found before
		return fmt.Errorf("%w: %w", errShow, strange(base, "answers no stream of events"))
	}
	opened()
	for e, err := range readEvents(resp.Body, func() { dead.Reset(silence) }) {
		if err != nil {
			return fmt.Errorf("%w: %w", errEnded, err)
		}
		if err := w.show(e); err != nil {
			return fmt.Errorf("%w: %w", errShow, err)
		}
		w.seen = e.id
	}
	return errEnded
}

// show prints an event. A snapshot that comes later than the first also tells,
// to people, what has gone without an event of its own.
func (w *watching) show(e sse) error {
	if w.app.output == "json" {
		return json.NewEncoder(w.app.stdout).Encode(map[string]any{"event": e.event, "id": e.id, "data": json.RawMessage(e.data)})
	}
	event := registry.EventType(e.event)
	if event == registry.Snapshot {
		var all []registry.Instance
		if err := json.Unmarshal(e.data, &all); err != nil {
			return fmt.Errorf("read the event: %w", err)
		}
		before := w.known
		w.known = map[registry.Key]registry.Instance{}
		for _, in := range all {
			w.known[in.Key()] = in
			delete(before, in.Key())
		}
		for _, key := range slices.SortedFunc(maps.Keys(before), compareKeys) {
			if err := w.line(registry.Deregister, before[key]); err != nil {
				return err
			}
		}
		for _, in := range all {
			if err := w.line(event, in); err != nil {
				return err
			}
		}
		return nil
	}
	var in registry.Instance
	if err := json.Unmarshal(e.data, &in); err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	w.known[in.Key()] = in
	if event == registry.Deregister {
		delete(w.known, in.Key())
	}
	return w.line(event, in)
}

func compareKeys(a, b registry.Key) int { return strings.Compare(a.String(), b.String()) }

var eventColors = map[registry.EventType]string{
	registry.Register: green, registry.Deregister: red, registry.StatusChange: yellow, registry.Snapshot: dim,
}

func (w *watching) line(event registry.EventType, in registry.Instance) error {
	s := w.app.style(w.app.stdout)
	_, err := fmt.Fprintf(w.app.stdout, "%s  %s  %s  %s  %s\n", time.Now().Format(time.TimeOnly),
		s.paint(eventColors[event], fmt.Sprintf("%-13s", clean(string(event)))), clean(in.Key().String()), clean(in.Address),
		s.paint(statusColor(in.Status), clean(string(in.Status))))
	return err
}
