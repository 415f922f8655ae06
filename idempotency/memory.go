package idempotency

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// DefaultMemory is how many keys a [Memory] has at most, unless told otherwise:
// at a kilobyte an answer, a hundred megabytes.
const DefaultMemory = 100_000

// Memory is a [Store] in this process: for tests, and for a service that has one
// instance and may forget its keys when it ends. The zero value is ready to use.
// When it is full of what has not expired, it refuses new keys ([ErrUnavailable]).
type Memory struct {
	// Max is how many keys it has at most, 0 for [DefaultMemory].
	Max int

	mu      sync.Mutex
	entries map[string]entry
	sweep   time.Time // when to look for what has expired
}

// entry is what there is for one key.
type entry struct {
	fingerprint Fingerprint
	owner       string
	expires     time.Time
	answer      []byte // encoded, so that nobody shares a header with it; nil while in progress
}

// Claim implements [Store].
func (m *Memory) Claim(ctx context.Context, c Claim) (Outcome, error) {
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e, ok := m.entries[c.Key]
	switch {
	case ok && now.Before(e.expires) && e.answer != nil:
		o := Outcome{State: Completed, Fingerprint: e.fingerprint}
		return o, o.Answer.UnmarshalBinary(e.answer)
	case ok && now.Before(e.expires) && e.owner != c.Owner:
		return Outcome{State: InProgress, Fingerprint: e.fingerprint}, nil
	}
	if err := m.put(now, c, entry{c.Fingerprint, c.Owner, now.Add(c.Lease), nil}); err != nil {
		return Outcome{}, err
	}
	return Outcome{State: Claimed}, nil
}

// sweepEvery is the least time between two looks at all keys, which take about a
// millisecond for 100,000.
const sweepEvery = time.Second

// put stores e, if there is room for it. Now and then it makes some.
func (m *Memory) put(now time.Time, c Claim, e entry) error {
	most := m.Max
	if most <= 0 {
		most = DefaultMemory
	}
	if !now.Before(m.sweep) {
		m.sweep = now.Add(sweepEvery)
		for key, old := range m.entries {
			if !now.Before(old.expires) {
				delete(m.entries, key)
			}
		}
	}
	if _, there := m.entries[c.Key]; !there && len(m.entries) >= most {
		return fmt.Errorf("%w: it has %d keys and no room for more", ErrUnavailable, len(m.entries))
	}
	if m.entries == nil {
		m.entries = map[string]entry{}
	}
	m.entries[c.Key] = e
	return nil
}

// Renew implements [Store].
func (m *Memory) Renew(ctx context.Context, c Claim) error {
	return m.own(ctx, c, func(now time.Time, e entry, there bool) error {
		if !there || e.answer != nil {
			return ErrLost
		}
		e.expires = now.Add(c.Lease)
		m.entries[c.Key] = e
		return nil
	})
}

// Complete implements [Store].
func (m *Memory) Complete(ctx context.Context, c Claim, a Answer) error {
	encoded, err := a.MarshalBinary()
	if err != nil {
		return err
	}
	return m.own(ctx, c, func(now time.Time, _ entry, _ bool) error {
		return m.put(now, c, entry{c.Fingerprint, c.Owner, now.Add(c.TTL), encoded})
	})
}

// Release implements [Store].
func (m *Memory) Release(ctx context.Context, c Claim) error {
	err := m.own(ctx, c, func(_ time.Time, e entry, there bool) error {
		if there && e.answer == nil {
			delete(m.entries, c.Key)
		}
		return nil
	})
	if err == ErrLost { //nolint:errorlint // it is our own
		return nil
	}
	return err
}

// own runs f unless the key is somebody else's by now. One whose claim expired has
// nothing to say any more.
func (m *Memory) own(ctx context.Context, c Claim, f func(now time.Time, e entry, there bool) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e, there := m.entries[c.Key]
	if there && e.owner != c.Owner {
		if now.Before(e.expires) {
			return ErrLost
		}
		there = false
	}
	return f(now, e, there)
}
