package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/registry"
)

const (
	// heartbeat keeps intermediaries from ending a quiet stream, and finds
	// out that the reader has gone.
	heartbeat = 15 * time.Second
	// writeTimeout ends a stream whose reader does not read: not even a piece of
	// what is sent.
	writeTimeout = 10 * time.Second
	piece        = 16 << 10 // bytes

	maxWatched = 100 // services that a stream names; each is compared with each change
)

// watchInput is read by Resolve, for the reasons filterInput has.
type watchInput struct {
	Service     []string `query:"service,explode" doc:"Only this service; repeated, at most 100: these services"`
	LastEventID string   `header:"Last-Event-ID" doc:"The id of the last event that was read from this URL"`
}

// Resolve implements huma.Resolver.
func (in *watchInput) Resolve(ctx huma.Context) []error {
	q, err := queryOf(ctx)
	if err != nil {
		return []error{err}
	}
	if in.Service = q["service"]; len(in.Service) > maxWatched {
		return []error{badQuery("service", fmt.Sprintf("These are too many: give at most %d, or none for all services.", maxWatched))}
	}
	for _, n := range in.Service {
		if !registry.ValidName(n) {
			return []error{badQuery("service", "It is no service's name: use lower-case letters, digits and '-'.")}
		}
	}
	return nil
}

// watch streams the registry's changes as server-sent events; the package
// documentation has the rules.
func (c *Console) watch(_ context.Context, in *watchInput) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		c.stream(w, r, positionOf(in.LastEventID), in.Service)
	}}, nil
}

func (c *Console) stream(w http.ResponseWriter, r *http.Request, after registry.Position, names []string) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := untilExpired(r.Context())
	defer cancel()
	// The watch has a goroutine, as only that can wait for it and for the
	// heartbeat; it is never more than one event ahead.
	events := make(chan registry.Event)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel() // before waiting
	watching.Go(func() {
		defer close(events)
		for e := range c.config.Registry.Resume(ctx, after, names...) {
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	})
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	err := send(w, nil) // the header, so that the reader knows it is connected
	for err == nil {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			var text []byte
			if text, err = c.event(e); err == nil {
				err = send(w, text)
			}
		case <-tick.C:
			err = send(w, []byte(":\n\n"))
		case <-ctx.Done():
			return
		}
	}
}

// untilExpired returns a context that ends when the caller's token expires.
func untilExpired(ctx context.Context) (context.Context, context.CancelFunc) {
	if id, ok := auth.FromContext(ctx); ok && !id.Expires.IsZero() {
		return context.WithDeadline(ctx, id.Expires)
	}
	return context.WithCancel(ctx)
}

// send writes and flushes, each piece within writeTimeout. Between two calls
// there is no deadline: over HTTP/2 it would end the stream when it passes.
func send(w http.ResponseWriter, text []byte) error {
	out := http.NewResponseController(w)
	// Not every writer has deadlines. One without just blocks.
	_ = out.SetWriteDeadline(time.Now().Add(writeTimeout)) // for Flush, should there be no text
	defer func() { _ = out.SetWriteDeadline(time.Time{}) }()
	for next := range slices.Chunk(text, piece) {
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := w.Write(next); err != nil {
			return err
		}
	}
	return out.Flush()
}

// event returns an event as it is sent:
// https://html.spec.whatwg.org/multipage/server-sent-events.html
func (c *Console) event(e registry.Event) ([]byte, error) {
	var payload any
	if e.Type == registry.Snapshot {
		payload = c.stampAll(e.Instances)
	} else {
		payload = c.stamp(e.Instance)
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "id: %d-%s\nevent: %s\ndata: %s\n\n", e.Revision, e.Store, e.Type, data), nil
}

// positionOf reads an event's id. What is none is no position, from which there
// is nothing to go on.
func positionOf(id string) registry.Position {
	revision, store, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(revision, 10, 64)
	if err != nil {
		return registry.Position{}
	}
	return registry.Position{Store: store, Revision: n}
}
