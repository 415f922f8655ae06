package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

const (
	// heartbeat keeps intermediaries from ending a quiet stream, and finds
	// out that the reader has gone.
	heartbeat = 15 * time.Second
	// writeTimeout ends a stream whose reader does not read.
	writeTimeout = 10 * time.Second
)

// watch streams the registry's changes as server-sent events; the package
// documentation has the rules.
func (c *Console) watch(w http.ResponseWriter, r *http.Request) {
	names := r.URL.Query()["service"]
	for _, n := range names {
		if !registry.ValidName(n) {
			problem.Write(w, r, badQuery("service", "It is no service's name: use lower-case letters, digits and '-'."))
			return
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
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
		for e := range c.config.Registry.Watch(ctx, names...) {
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

// send writes and flushes within writeTimeout. Between two calls there is no
// deadline: over HTTP/2 it would end the stream when it passes.
func send(w http.ResponseWriter, text []byte) error {
	out := http.NewResponseController(w)
	// Not every writer has deadlines. One without just blocks.
	_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
	defer func() { _ = out.SetWriteDeadline(time.Time{}) }()
	if _, err := w.Write(text); err != nil {
		return err
	}
	return out.Flush()
}

// event returns an event as it is sent:
// https://html.spec.whatwg.org/multipage/server-sent-events.html
func (c *Console) event(e registry.Event) ([]byte, error) {
	var payload any
	if e.Type == registry.Snapshot {
		for i := range e.Instances {
			c.stamp(&e.Instances[i])
		}
		payload = e.Instances
	} else {
		c.stamp(&e.Instance)
		payload = e.Instance
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", e.Revision, e.Type, data), nil
}
