package registry

import (
	"context"
	"iter"
	"slices"
	"sync"
)

// EventType says what an [Event] is. The values are what the admin API's
// stream calls them.
type EventType string

// Types of events.
const (
	Snapshot     EventType = "snapshot"      // the whole set; forget everything told before
	Register     EventType = "register"      // an instance appeared, or its record was replaced
	Deregister   EventType = "deregister"    // an instance is gone
	StatusChange EventType = "status-change" // only the status is another
)

// Event is one change of the fleet as a watcher sees it.
type Event struct {
	Type      EventType
	Instance  Instance   // of all but a Snapshot
	Instances []Instance // of a Snapshot, ordered by service and id
	Revision  uint64     // the store's revision at which it happened
}

// watcherBacklog is how many events a watcher may be behind before they are
// replaced by one snapshot.
const watcherBacklog = 1024

// Watch tells what changes among the named services, or all of them when none
// is named. The first event is a [Snapshot] with everything, told as soon as
// the registry is synced; then come the changes, in order. A consumer that is
// too slow gets a new Snapshot instead of what it missed: treat each as the
// whole truth. The sequence ends when ctx does or the registry is closed. Each
// iteration is a watch of its own.
func (r *Registry) Watch(ctx context.Context, names ...string) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		w := &watcher{names: names, wake: make(chan struct{}, 1), resync: true}
		select {
		case <-r.synced:
		case <-ctx.Done():
			return
		case <-r.closed:
			return
		}
		r.addWatcher(w)
		defer r.removeWatcher(w)
		for ctx.Err() == nil {
			for _, e := range r.take(w) {
				// The snapshot's own tags and metadata are not given away.
				e.Instance, e.Instances = e.Instance.clone(), cloneAll(e.Instances)
				if !yield(e) || ctx.Err() != nil {
					return
				}
			}
			select {
			case <-w.wake:
			case <-ctx.Done():
			case <-r.closed:
				return
			}
		}
	}
}

// watcher is one consumer's backlog.
type watcher struct {
	names []string
	wake  chan struct{}

	mu      sync.Mutex
	backlog []Event
	resync  bool // the next event is a snapshot
}

func (w *watcher) wants(service string) bool {
	return len(w.names) == 0 || slices.Contains(w.names, service)
}

// push adds an event; it never blocks.
func (w *watcher) push(e Event) {
	if !w.wants(e.Instance.Name) {
		return
	}
	w.mu.Lock()
	if !w.resync {
		if len(w.backlog) < watcherBacklog {
			w.backlog = append(w.backlog, e)
		} else {
			w.backlog, w.resync = nil, true
		}
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what w has not been told yet. The registry's lock makes a
// snapshot and the events behind it one sequence without a gap.
func (r *Registry) take(w *watcher) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.backlog
	w.backlog = nil
	if w.resync {
		w.resync = false
		events = []Event{{Type: Snapshot, Instances: r.list(w.wants), Revision: r.revision}}
	}
	return events
}

func (r *Registry) addWatcher(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[w] = struct{}{}
}

func (r *Registry) removeWatcher(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, w)
}
