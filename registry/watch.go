package registry

import (
	"cmp"
	"context"
	"crypto/rand"
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
	// Store says which store Revision belongs to, and which unbroken following of
	// it: it is another one after changes may have been missed. It is empty in an
	// event that the next one completes, as when the changes of a time without the
	// store are told together; nobody can go on from there.
	Store string
}

// Position is how far a watcher has come: Store and Revision of the last [Event]
// it was told.
type Position struct {
	Store    string
	Revision uint64
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
	return r.Resume(ctx, Position{}, names...)
}

// Resume is [Registry.Watch] for somebody who has watched the same services
// before, through this registry. It tells what came after that position, as far
// as the last changes are still known: 4,096 of them, fewer if they are large.
// Otherwise it begins with a [Snapshot], as it does for a position that is not
// this registry's.
func (r *Registry) Resume(ctx context.Context, after Position, names ...string) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		w := &watcher{names: names, wake: make(chan struct{}, 1), resync: true, after: after}
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
	resync  bool     // the next event is a snapshot, unless after is still known
	after   Position // where a resumed watch goes on
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
		missed, known := r.history.since(w.after, r.revision)
		w.resync, w.after = false, Position{}
		if !known {
			return []Event{{Type: Snapshot, Instances: r.list(w.wants), Revision: r.revision, Store: r.history.store}}
		}
		for _, e := range missed {
			if w.wants(e.Instance.Name) {
				events = append(events, e)
			}
		}
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

// publish tells the watchers what has changed since the snapshot was at revision
// last. Changes whose order is not that of their revisions are a new beginning.
func (r *Registry) publish(events []Event, last uint64) {
	for _, e := range events {
		if e.Revision <= last {
			r.restart(events)
			return
		}
		last = e.Revision
	}
	for n := range events {
		events[n].Store = r.history.store
		r.history.add(events[n])
	}
	r.tell(events)
}

// restart is publish for changes that were not followed one by one: nobody can
// go on from a position of before, nor from the middle of them.
func (r *Registry) restart(events []Event) {
	r.history = newHistory(r.revision)
	for n := range events {
		events[n].Revision = r.revision
	}
	if len(events) > 0 {
		events[len(events)-1].Store = r.history.store
	}
	r.tell(events)
}

func (r *Registry) tell(events []Event) {
	for w := range r.watchers {
		for _, e := range events {
			w.push(e)
		}
	}
}

const (
	historyEvents = 4096
	historyWeight = 8 << 20 // bytes, more or less
)

// history has the last changes of one unbroken following of one store. The
// registry's lock guards it.
type history struct {
	store  string // names both; a random one, which no other process can have given
	floor  uint64 // what came after this revision is known
	events []Event
	weight int
}

func newHistory(revision uint64) history {
	return history{store: rand.Text()[:10], floor: revision}
}

func (h *history) add(e Event) {
	h.events = append(h.events, e)
	h.weight += weigh(&e.Instance)
	for len(h.events) > historyEvents || h.weight > historyWeight {
		oldest := &h.events[0]
		h.floor = oldest.Revision
		h.weight -= weigh(&oldest.Instance)
		*oldest = Event{} // nothing is kept by it until append moves on
		h.events = h.events[1:]
	}
}

// since returns the events after p, and whether they are all known. now is the
// revision the registry has come to.
func (h *history) since(p Position, now uint64) ([]Event, bool) {
	if p.Store == "" || p.Store != h.store || p.Revision < h.floor || p.Revision > now {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(h.events, p.Revision, func(e Event, after uint64) int {
		if e.Revision == after {
			return -1
		}
		return cmp.Compare(e.Revision, after)
	})
	return h.events[i:], true
}
