package ratelimit

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"sync"
	"time"
)

const (
	defaultMaxKeys = 65_536
	minMaxKeys     = 64
	maxMaxKeys     = 1 << 24

	// ways is the number of places a key can be in. With its lock a group of 15
	// fills four cache lines.
	ways = 15
)

// Local applies one limit to each of many keys, from the memory of this process.
// It is safe for concurrent use, starts no goroutine and needs no closing. See the
// package comment for what happens when there are more keys than room.
type Local struct {
	limit    Limit
	interval int64
	epoch    time.Time // state is relative to it: small numbers, on the monotonic clock
	seed     maphash.Seed
	groups   []group
}

// group is the places a key may be in, with the lock for them.
type group struct {
	mu     sync.Mutex
	_      [8]byte
	places [ways]place
}

// place is one key's state. The zero value is a free place, as any is whose tat has
// passed.
type place struct {
	hash uint64
	tat  int64 // nanoseconds since epoch
}

// Option sets something a [Local] has a default for.
type Option func(*options)

type options struct{ maxKeys int }

// MaxKeys sets how many keys can have a state of their own at the same time, 64
// to 2^24; the default is 65,536. It is rounded down to a multiple of 15. All
// memory, 17 bytes a key, is taken at the start.
func MaxKeys(n int) Option { return func(o *options) { o.maxKeys = n } }

// NewLocal returns a limiter that applies l to each key. The error wraps
// [ErrInvalidLimit] if l is not valid, and names the field or option otherwise.
func NewLocal(l Limit, opts ...Option) (*Local, error) {
	o := options{maxKeys: defaultMaxKeys}
	for _, opt := range opts {
		opt(&o)
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if o.maxKeys < minMaxKeys || o.maxKeys > maxMaxKeys {
		return nil, fmt.Errorf("ratelimit: MaxKeys is %d: give %d to %d", o.maxKeys, minMaxKeys, maxMaxKeys)
	}
	l.Burst = l.burst()
	return &Local{
		limit:    l,
		interval: l.interval(),
		epoch:    time.Now(),
		seed:     maphash.MakeSeed(),
		groups:   make([]group, o.maxKeys/ways),
	}, nil
}

// Limit returns the limit that is applied, with Burst filled in.
func (l *Local) Limit() Limit { return l.limit }

// Allow decides about one request of the client that key stands for.
func (l *Local) Allow(key string) Decision { return l.AllowN(key, 1) }

// AllowN decides about n requests at once: all are admitted or none. n = 0 asks
// without taking anything. More than the limit's Burst are never admitted.
func (l *Local) AllowN(key string, n int) Decision {
	hash := maphash.String(l.seed, key)
	index, _ := bits.Mul64(hash, uint64(len(l.groups))) // the hash's high bits, scaled
	g := &l.groups[index]

	g.mu.Lock()
	defer g.mu.Unlock()
	// Read under the lock, so that the decisions on a key are made in the order of time.
	now := int64(time.Since(l.epoch))
	p := g.find(hash)
	tat, d := gcra(l.limit, l.interval, p.tat, now, n)
	if tat != p.tat { // admitted; a refused newcomer takes nobody's place
		p.hash, p.tat = hash, tat
	}
	return d
}

// find returns the place of the key, or else the one with the earliest tat: a free
// one if there is any, or the least indebted, whose debt the key then inherits.
func (g *group) find(hash uint64) *place {
	least := &g.places[0]
	for i := range g.places {
		p := &g.places[i]
		if p.hash == hash {
			return p
		}
		if p.tat < least.tat {
			least = p
		}
	}
	return least
}
