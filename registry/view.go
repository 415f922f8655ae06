package registry

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/keelson-go/keelson/balance"
)

// record is an instance as the store has it. It is never changed, only
// replaced, so that readers need no lock.
type record struct {
	instance Instance
	revision uint64
	endpoint *balance.Endpoint
}

// members is an immutable snapshot of one service.
type members struct {
	records []*record    // ordered by id
	serving *balance.Set // those in rotation
}

// view is the snapshot of the fleet. One goroutine at a time changes it (the
// registry's lock sees to that); any number read it, with atomic loads only.
type view struct {
	services atomic.Pointer[map[string]*atomic.Pointer[members]]
}

func newView() *view {
	v := &view{}
	v.services.Store(&map[string]*atomic.Pointer[members]{})
	return v
}

func (v *view) members(service string) *members {
	if p := (*v.services.Load())[service]; p != nil {
		return p.Load()
	}
	return nil
}

func (v *view) get(k Key) *record {
	m := v.members(k.Service)
	if m == nil {
		return nil
	}
	if i, ok := find(m.records, k.ID); ok {
		return m.records[i]
	}
	return nil
}

func find(records []*record, id string) (int, bool) {
	return slices.BinarySearchFunc(records, id, func(r *record, id string) int {
		return strings.Compare(r.instance.ID, id)
	})
}

// names returns the services that have instances, in order.
func (v *view) names() []string {
	return slices.Sorted(maps.Keys(*v.services.Load()))
}

// apply makes a batch of changes, rebuilding each service it touches once, and
// returns what they mean to watchers, in order. It leaves the batch alone.
func (v *view) apply(batch []Change) []Event {
	touched := map[string][]*record{} // working copies
	var events []Event
	for _, c := range batch {
		records, ok := touched[c.Key.Service]
		if !ok {
			if m := v.members(c.Key.Service); m != nil {
				records = slices.Clone(m.records)
			}
		}
		i, found := find(records, c.Key.ID)
		var before *record
		if found {
			before = records[i]
		}
		switch {
		case c.Kind == Put:
			next := &record{c.Instance, c.Revision, endpointFor(c.Instance, before)}
			if found {
				records[i] = next
			} else {
				records = slices.Insert(records, i, next)
			}
			if e, ok := putEvent(before, c.Instance, c.Revision); ok {
				events = append(events, e)
			}
		case found: // Delete
			records = slices.Delete(records, i, i+1)
			events = append(events, Event{Type: Deregister, Instance: before.instance, Revision: c.Revision})
		}
		touched[c.Key.Service] = records
	}
	v.store(touched)
	return events
}

// store replaces the records of the services in touched. The map of services is
// copied only when one appears or disappears.
func (v *view) store(touched map[string][]*record) {
	current := *v.services.Load()
	next, copied := current, false
	change := func() {
		if !copied {
			next, copied = maps.Clone(current), true
		}
	}
	for service, records := range touched {
		p := current[service]
		switch {
		case p != nil && len(records) > 0:
			p.Store(newMembers(records, p.Load().serving))
		case p != nil:
			change()
			delete(next, service)
			p.Store(nil) // for a reader that holds the old map
		case len(records) > 0:
			change()
			p = new(atomic.Pointer[members])
			p.Store(newMembers(records, nil))
			next[service] = p
		}
	}
	if copied {
		v.services.Store(&next)
	}
}

// newMembers keeps the set of those in rotation that was there before if they are
// the same ones: what pickers know of it stays good then.
func newMembers(records []*record, before *balance.Set) *members {
	serving := make([]*balance.Endpoint, 0, len(records))
	for _, r := range records { // in order, so that NewSet need not sort
		if r.instance.Status.Serving() && r.endpoint.Weight > 0 {
			serving = append(serving, r.endpoint)
		}
	}
	same := before != nil && before.Len() == len(serving)
	for i := 0; same && i < len(serving); i++ {
		same = before.At(i) == serving[i]
	}
	if same {
		return &members{records, before}
	}
	return &members{records, balance.NewSet(serving)}
}

// MetadataWeight is the metadata entry that says how many of the calls an instance
// takes compared with others: a whole number; more than [balance.MaxWeight] counts
// as that. Instances without it, or with anything else in it, have weight 1. With 0 an
// instance is known and checked, but gets no calls.
const MetadataWeight = "weight"

// endpointFor keeps the endpoint, and so the load it has seen, while the
// address is the same; what is known of the latency outlives a change of weight, too.
func endpointFor(in Instance, before *record) *balance.Endpoint {
	w := weight(in)
	if before != nil && before.instance.Address == in.Address && before.instance.Zone == in.Zone {
		if before.endpoint.Weight == w {
			return before.endpoint
		}
		return before.endpoint.WithWeight(w)
	}
	e := balance.NewEndpoint(in.ID, in.Address)
	e.Zone, e.Weight = in.Zone, w
	return e
}

func weight(in Instance) int {
	w, err := strconv.Atoi(in.Metadata[MetadataWeight])
	if err != nil || w < 0 {
		return 1
	}
	return min(w, balance.MaxWeight)
}

// difference returns the changes that make the view what a fresh watch told, in
// the order of the keys. With keep, records that it did not mention at all stay,
// as orphans.
func (v *view) difference(fresh map[Key]Change, revision uint64, keep bool) []Change {
	var changes []Change
	for _, k := range slices.SortedFunc(maps.Keys(fresh), compareKeys) {
		changes = append(changes, fresh[k])
	}
	for r := range v.all() {
		k := r.instance.Key()
		switch _, told := fresh[k]; {
		case told:
		case keep:
			changes = append(changes, Change{Kind: Put, Key: k, Instance: r.instance, Revision: orphan})
		default:
			changes = append(changes, Change{Kind: Delete, Key: k, Revision: revision})
		}
	}
	return changes
}

// orphan is the revision of a record that the store has lost: see [Registry.replace].
const orphan = 0

// orphans returns the changes that remove them.
func (v *view) orphans(revision uint64) []Change {
	var changes []Change
	for r := range v.all() {
		if r.revision == orphan {
			changes = append(changes, Change{Kind: Delete, Key: r.instance.Key(), Revision: revision})
		}
	}
	return changes
}

// all yields every record, ordered by service and id.
func (v *view) all() iter.Seq[*record] {
	return func(yield func(*record) bool) {
		for _, name := range v.names() {
			if m := v.members(name); m != nil {
				for _, r := range m.records {
					if !yield(r) {
						return
					}
				}
			}
		}
	}
}

func compareKeys(a, b Key) int {
	return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.ID, b.ID))
}

// putEvent tells what a Put means to a watcher. That the same process wrote the
// same record again is no news.
func putEvent(before *record, in Instance, revision uint64) (Event, bool) {
	e := Event{Type: Register, Instance: in, Revision: revision}
	if before == nil || !before.instance.RegisteredAt.Equal(in.RegisteredAt) || !sameRecord(before.instance, in) {
		return e, true
	}
	e.Type = StatusChange
	return e, before.instance.Status != in.Status
}
