package registry

// Limits of all that is announced together, see [Registry.Announce]. Everybody who
// watches the registry has to keep it, and those who announce may be strangers.
const (
	MaxAnnounced      = 10_000   // instances
	MaxAnnouncedBytes = 64 << 20 // in memory, roughly
)

// ledger adds up what is announced. The registry's lock guards it.
type ledger struct {
	weights map[Key]int // of what is in the snapshot
	bytes   int         // their sum

	// On its way into the snapshot.
	pending, pendingBytes int
}

// note learns of a change of the snapshot.
func (l *ledger) note(c Change) {
	l.bytes -= l.weights[c.Key]
	delete(l.weights, c.Key)
	if c.Kind == Put && c.Instance.Lease != LeaseConnection {
		w := weigh(&c.Instance)
		l.weights[c.Key] = w
		l.bytes += w
	}
}

// Announced returns how many instances there are whose leases others renew, see
// [Registry.Announce], and roughly how much memory their records take.
func (r *Registry) Announced() (instances, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ledger.weights), r.ledger.bytes
}

// admit makes sure that there is room for in, or returns ErrFull. The room is kept
// until done is called, when it is in the snapshot. Other nodes that announce at
// this moment are not seen.
func (r *Registry) admit(in Instance) (done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.ledger
	before, known := l.weights[in.Key()]
	more, growth := 1, max(0, weigh(&in)-before)
	if known {
		more = 0
	}
	if more > 0 && len(l.weights)+l.pending+more > MaxAnnounced || growth > 0 && l.bytes+l.pendingBytes+growth > MaxAnnouncedBytes {
		return nil, ErrFull
	}
	l.pending += more
	l.pendingBytes += growth
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		l.pending -= more
		l.pendingBytes -= growth
	}, nil
}

// weigh is about what an instance's record takes in memory.
func weigh(in *Instance) int {
	const fixed, tag, entry = 1 << 10, 16, 64 // with the room a map keeps free
	n := fixed
	for _, t := range in.Tags {
		n += tag + len(t)
	}
	for k, v := range in.Metadata {
		n += entry + len(k) + len(v)
	}
	return n
}
