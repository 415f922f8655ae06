package auth

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

const (
	// cacheAge is how long a verified token is trusted without verifying it again.
	cacheAge = time.Minute
	// The cache's bounds: 8192 tokens and 8 MiB in a generation, twice that in all.
	cacheShards       = 16
	cacheShardEntries = 512
	cacheShardBytes   = 512 << 10
	// cacheMaxWeight keeps out a token with so many claims that it would push out a whole shard of others.
	cacheMaxWeight = 64 << 10
)

// cache remembers tokens that were verified, as a signature costs some hundred times more to check than to look up.
//
// It is keyed by the whole token: a hash in its place, unless it were a costly one, could be made to collide. It has two
// generations: tokens are added to the young one, and once that is full or cacheAge old, it becomes the old one and what
// was old is dropped. A token found in the old one moves to the young one. So those in use outlive a flood of others,
// every step takes the same short time, and there is nothing to clean up.
type cache struct {
	seed                            maphash.Seed // secret, so that nobody can choose tokens for one shard
	maxEntries, maxBytes, maxWeight int          // the first two of a shard's generation
	shards                          [cacheShards]cacheShard
}

type cacheShard struct {
	mu         sync.RWMutex
	young, old map[string]*verified
	bytes      int       // the weight of young
	begun      time.Time // when young was made
	_          [56]byte  // up to two cache lines, so that shards do not slow each other down
}

// verified is a token that was found good. It never changes once it is in the cache.
type verified struct {
	token string
	id    *Identity
	keys  uint64 // the version of the key set it was verified with
	// The token's own life, leeway included. A zero notBefore means that there is none.
	notBefore, expires time.Time
	stale              time.Time // when to verify again; on the monotonic clock, so that setting the clock extends nothing
	weight             int
}

func newCache() *cache {
	return &cache{
		seed:       maphash.MakeSeed(),
		maxEntries: cacheShardEntries,
		maxBytes:   cacheShardBytes,
		maxWeight:  cacheMaxWeight,
	}
}

// get returns the identity of a token that may be used without verifying it, or nil. The caller then verifies the token,
// and so gives the same error as if there were no cache.
func (c *cache) get(token string, keys uint64, now time.Time) *Identity {
	s := c.shard(token)
	s.mu.RLock()
	v, young := s.young[token]
	if !young {
		v = s.old[token]
	}
	s.mu.RUnlock()
	if v == nil || !v.usable(keys, now) {
		return nil
	}
	if !young {
		c.put(s, v, now)
	}
	return v.id
}

// add remembers a token that was verified with the key set of that version. It keeps a copy of the token, lest it keep
// alive, or have changed under it, whatever buffer the token is a part of.
func (c *cache) add(token string, v verified, now time.Time) {
	v.weight = weigh(token, v.id)
	if v.weight > c.maxWeight {
		return
	}
	v.token = strings.Clone(token)
	v.stale = now.Add(cacheAge)
	c.put(c.shard(token), &v, now)
}

func (c *cache) put(s *cacheShard, v *verified, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if same := s.young[v.token]; same != nil { // several requests verified it at once, or it is not usable any more
		delete(s.young, v.token)
		s.bytes -= same.weight
	}
	if len(s.young) >= c.maxEntries || s.bytes+v.weight > c.maxBytes || now.Sub(s.begun) >= cacheAge {
		s.young, s.old = make(map[string]*verified), s.young
		s.bytes, s.begun = 0, now
	}
	s.young[v.token] = v
	s.bytes += v.weight
}

// shard spreads tokens over locks. Its hash is no more than that: tokens are told apart by all their bytes.
func (c *cache) shard(token string) *cacheShard {
	return &c.shards[maphash.String(c.seed, token)%cacheShards]
}

// usable has the same limits as the parser: a token is good from notBefore on, and until just before expires.
func (v *verified) usable(keys uint64, now time.Time) bool {
	return v.keys == keys && now.Before(v.stale) && now.Before(v.expires) && !now.Before(v.notBefore)
}

// weigh is about how many bytes an entry takes, rather too many than too few. Claims may take forty times the memory of
// the token they come from, so its length alone would not bound anything.
func weigh(token string, id *Identity) int {
	const entry = 320 // verified, Identity and the space in the map
	return entry + weighValue(token) + 16*cap(id.Scopes) + weighValue(id.Claims)
}

// weighValue weighs what encoding/json makes of a JSON value, with the allocator's rounding.
func weighValue(v any) int {
	switch v := v.(type) {
	case string:
		return 32 + len(v) + len(v)/8
	case float64:
		return 16 // it keeps the allocator's whole block for tiny values
	case []any:
		n := 24 + 16*cap(v) + 2*cap(v)
		for _, e := range v {
			n += weighValue(e)
		}
		return n
	case map[string]any:
		n := 350 + 96*len(v)
		for name, e := range v {
			n += 16 + len(name) + len(name)/8 + weighValue(e)
		}
		return n
	}
	return 0 // null, true and false are not allocated
}
