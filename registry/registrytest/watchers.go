package registrytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/registry"
)

// pace is how fast a watcher takes events.
type pace string

const (
	prompt pace = "prompt"
	slow   pace = "slow"  // some hundreds a second
	stuck  pace = "stuck" // none after the first, until it is let loose
)

// maxWatchers bounds the watchers at a time.
const maxWatchers = 20

// watcher keeps the fleet as it is told, event by event.
type watcher struct {
	name     string
	pace     pace
	names    []string // services; none is all
	registry *registry.Registry
	loose    chan struct{} // one for each time a stuck one may go on to the next event
	stays    bool
	stop     func()

	mu        sync.Mutex
	has       map[registry.Key]registry.Instance
	snapshots int
	bad       string
}

func wanted(names []string, service string) bool {
	return len(names) == 0 || slices.Contains(names, service)
}

// names draws what a watcher is to watch.
func (c *churn) names() []string {
	var names []string
	for n := range 5 {
		if c.random.IntN(3) == 0 {
			names = append(names, fmt.Sprintf("s%d", n))
		}
	}
	return names
}

// watch starts a watcher of some process that stays. The first ones stay, too.
func (c *churn) watch(pace pace, names ...string) string {
	if len(c.watchers) >= maxWatchers {
		return c.unwatch()
	}
	on := slices.Concat(c.observers, c.nodes)[c.random.IntN(len(c.observers)+len(c.nodes))]
	ctx, cancel := context.WithCancel(c.t.Context())
	w := &watcher{
		name: fmt.Sprintf("the %s watcher of %v at %s", pace, names, on.name),
		pace: pace, names: names, registry: on.registry, loose: make(chan struct{}, 1), stays: len(c.happened) == 0,
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range on.registry.Watch(ctx, names...) {
			w.take(e)
			w.pause(ctx, c.hurry)
		}
	})
	w.stop = func() { cancel(); wg.Wait() }
	c.t.Cleanup(w.stop)
	c.watchers = append(c.watchers, w)
	return w.name + " starts"
}

// unwatch stops a watcher that need not stay.
func (c *churn) unwatch() string {
	n := slices.IndexFunc(c.watchers, func(w *watcher) bool { return !w.stays })
	if n < 0 {
		return "nobody stops watching"
	}
	c.counts["unwatch"]++
	n += c.random.IntN(len(c.watchers) - n)
	w := c.watchers[n]
	c.watchers = slices.Delete(c.watchers, n, n+1)
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bad != "" {
		c.t.Errorf("%s: %s", w.name, w.bad)
	}
	return w.name + " stops"
}

// loosen lets those who are stuck and need not stay take another event.
func (c *churn) loosen() string {
	c.counts["loosen"]++
	for _, w := range c.watchers {
		if w.stays {
			continue
		}
		select {
		case w.loose <- struct{}{}:
		default:
		}
	}
	return "who is stuck goes on"
}

// pause waits until the watcher is ready for the next event.
func (w *watcher) pause(ctx context.Context, hurry <-chan struct{}) {
	var ready <-chan time.Time
	switch w.pace {
	case prompt:
		return
	case slow:
		ready = time.After(3 * time.Millisecond)
	}
	select {
	case <-ready:
	case <-w.loose:
	case <-hurry:
	case <-ctx.Done():
	}
}

func (w *watcher) take(e registry.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := e.Instance.Key()
	before, known := w.has[k]
	switch {
	case e.Type == registry.Snapshot:
		w.snapshots++
		w.has = map[registry.Key]registry.Instance{}
		for _, in := range e.Instances {
			w.has[in.Key()] = in
		}
	case w.has == nil:
		w.bad = fmt.Sprintf("%s of %s before the first snapshot", e.Type, k)
	case !wanted(w.names, k.Service):
		w.bad = fmt.Sprintf("%s of %s, which it does not watch", e.Type, k)
	case e.Type == registry.Register:
		w.has[k] = e.Instance
	case e.Type == registry.StatusChange:
		if !known || before.Status == e.Instance.Status {
			w.bad = fmt.Sprintf("%s: status-change to %s after %q", k, e.Instance.Status, before.Status)
		}
		w.has[k] = e.Instance
	case e.Type == registry.Deregister:
		if !known {
			w.bad = fmt.Sprintf("%s: deregister of what was not there", k)
		}
		delete(w.has, k)
	}
}

// differs says how what the watcher has is not the truth, or not what its
// registry lists.
func (w *watcher) differs(truth map[registry.Key]registry.Status) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bad != "" {
		return w.name + ": " + w.bad
	}
	if d := differ(truth, statusesOf(w.has)); d != "" {
		return fmt.Sprintf("for %s %s", w.name, d)
	}
	listed := map[registry.Key]registry.Instance{}
	for _, in := range w.registry.List() {
		if wanted(w.names, in.Name) {
			listed[in.Key()] = in
		}
	}
	if d := cmp.Diff(listed, w.has); d != "" {
		return fmt.Sprintf("for %s (-listed +told):\n%s", w.name, d)
	}
	return ""
}
