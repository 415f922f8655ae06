package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sizes returns the entries and the bytes of each generation of each shard, after checking that the books are right.
func (c *cache) sizes(t rapid.TB) (entries, bytes int) {
	t.Helper()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		for name, generation := range map[string]map[string]*verified{"young": s.young, "old": s.old} {
			sum := 0
			for token, v := range generation {
				if v.token != token || c.shard(token) != s || v.weight != weigh(token, v.id) {
					t.Fatalf("entry %q is filed under %q or weighs wrong", v.token, token)
				}
				sum += v.weight
			}
			if len(generation) > c.maxEntries || sum > c.maxBytes || name == "young" && sum != s.bytes {
				t.Fatalf("%s has %d entries and %d bytes (counted %d)", name, len(generation), sum, s.bytes)
			}
			entries, bytes = entries+len(generation), bytes+sum
		}
		s.mu.RUnlock()
	}
	return entries, bytes
}

// Whatever happens in whatever order: the bounds hold, and a token gets an identity only if it was added, with the key
// set of now, less than a minute ago, and is within its own life; and then it is its own.
func TestCacheProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newCache()
		c.maxEntries, c.maxBytes, c.maxWeight = 3, 4000, 2500
		type fact struct {
			verified
			at time.Time
		}
		facts := map[*Identity]fact{}
		now, keys := time.Unix(1e9, 0), uint64(0)
		token := rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprint(rapid.IntRange(0, 150).Draw(t, "n"), strings.Repeat("x", 500*rapid.IntRange(0, 5).Draw(t, "size")))
		})
		get := func(t *rapid.T, token string) *Identity {
			id := c.get(token, keys, now)
			if id == nil {
				return nil
			}
			f, ok := facts[id]
			switch {
			case !ok || id.Subject != token:
				t.Fatalf("the identity of %q for %q", id.Subject, token)
			case f.keys != keys:
				t.Fatal("used with another key set")
			case now.Sub(f.at) >= time.Minute, !now.Before(f.expires), now.Before(f.notBefore):
				t.Fatalf("used at %v, added at %v, life %v to %v", now, f.at, f.notBefore, f.expires)
			}
			return id
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { c.sizes(t) },
			"add": func(t *rapid.T) {
				tok := token.Draw(t, "token")
				id := &Identity{Subject: tok}
				v := verified{id: id, keys: keys, expires: now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "life")) * time.Second)}
				if rapid.Bool().Draw(t, "nbf") {
					v.notBefore = now
				}
				facts[id] = fact{v, now}
				c.add(tok, v, now)
				if got := get(t, tok); weigh(tok, id) <= c.maxWeight && got != id {
					t.Fatalf("%v right after it was added", got)
				}
			},
			"get":  func(t *rapid.T) { get(t, token.Draw(t, "token")) },
			"keys": func(*rapid.T) { keys++ },
			"time": func(t *rapid.T) { // the clock may be set back too
				now = now.Add(time.Duration(rapid.IntRange(-5, 70).Draw(t, "seconds")) * time.Second)
			},
		})
	})
}

// A flood of valid tokens fills the cache to its bounds and no further, and a token in use stays in it.
func TestCacheFlood(t *testing.T) {
	t.Parallel()
	c := newCache()
	now := time.Now()
	add := func(token string) *Identity {
		id := &Identity{Subject: "ann", Claims: map[string]any{"sub": "ann", "pad": strings.Repeat("p", 500)}}
		c.add(token, verified{id: id, expires: now.Add(time.Hour)}, now)
		return id
	}
	busy := add("busy")
	for i := range 50_000 {
		add(fmt.Sprint("token-", i))
		if i%100 == 0 && c.get("busy", 0, now) != busy {
			t.Fatalf("the token in use was pushed out after %d others", i)
		}
	}
	entries, bytes := c.sizes(t)
	if entries > 2*cacheShards*cacheShardEntries || bytes > 2*cacheShards*cacheShardBytes || bytes < cacheShards*cacheShardBytes {
		t.Errorf("%d entries, %d bytes", entries, bytes)
	}
	// Once they are stale, the next tokens make them go, however few these are.
	for minute := range 3 {
		now = now.Add(cacheAge)
		for i := range 1000 {
			add(fmt.Sprint("later-", minute, i))
		}
	}
	if entries, _ := c.sizes(t); entries != 2000 {
		t.Errorf("%d entries, want those of the last two minutes", entries)
	}
}

// A cached token does not keep the buffer of its request alive, and one with huge claims is not kept at all.
func TestCacheAdd(t *testing.T) {
	t.Parallel()
	c, now := newCache(), time.Now()
	buffer := []byte("token")
	id := &Identity{Subject: "ann"}
	token := string(buffer)
	c.add(token, verified{id: id, expires: now.Add(time.Hour)}, now)
	if v := c.shard(token).young[token]; v == nil || v.stale != now.Add(time.Minute) {
		t.Errorf("entry %+v", v)
	}
	list := make([]any, 5000)
	c.add("huge", verified{id: &Identity{Claims: map[string]any{"list": list}}, expires: now.Add(time.Hour)}, now)
	if c.get("huge", 0, now) != nil {
		t.Error("a token with 80 KiB of claims was kept")
	}
}

// What the claims are said to weigh is not less than what they take: claims can be made to take forty times their text.
// It measures the heap, so no other test may run at the same time.
func TestCacheWeight(t *testing.T) {
	list := func(n int, v string) string { return "[" + strings.TrimSuffix(strings.Repeat(v+",", n), ",") + "]" }
	object := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"%x":0`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	for name, claim := range map[string]string{
		"usual":          `"ann"`,
		"long string":    `"` + strings.Repeat("x", 3000) + `"`,
		"short strings":  list(400, `"xxxxxxxxx"`),
		"numbers":        list(600, `12345.6`),
		"empty lists":    list(500, `[]`),
		"empty objects":  list(500, `{}`),
		"small objects":  list(100, `{"":0}`),
		"deep lists":     strings.Repeat("[", 400) + strings.Repeat("]", 400),
		"deep objects":   strings.Repeat(`{"":`, 120) + "0" + strings.Repeat("}", 120),
		"object of 9":    object(9),
		"object of 15":   object(15),
		"object of 57":   object(57),
		"object of 449":  object(449),
		"object of 450":  object(450),
		"objects of 9":   list(20, object(9)),
		"scopes of 1":    `"` + strings.Repeat("a ", 1000) + `"`,
		"lists of lists": list(100, `[[],[0]]`),
	} {
		t.Run(name, func(t *testing.T) {
			text := fmt.Sprintf(`{"iss":"https://issuer.example","sub":"ann","scope":%s,"exp":1700000000,"nbf":1700000000}`, claim)
			const n = 200
			c := newCache()
			c.maxWeight, c.maxBytes, c.maxEntries = 1<<30, 1<<30, 1<<30
			now := time.Now()
			tokens := make([]string, n) // not counted: they are the request's
			for i := range tokens {
				tokens[i] = fmt.Sprintf("%0*d", len(text)*4/3, i)
			}
			before := heap()
			for _, token := range tokens {
				var claims map[string]any
				if err := json.Unmarshal([]byte(text), &claims); err != nil {
					t.Fatal(err)
				}
				scopes, _ := tokenScopes(claims)
				c.add(token, verified{id: &Identity{Subject: "ann", Scopes: scopes, Claims: claims}}, now)
			}
			took := int(heap() - before)
			entries, weight := c.sizes(t)
			if entries != n || took > weight || took < weight/8 {
				t.Errorf("%d entries take %d bytes, said to be %d", entries, took, weight)
			}
			runtime.KeepAlive(tokens)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the first leaves what has finalizers or is in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestCacheConcurrent(t *testing.T) {
	t.Parallel()
	c := newCache()
	c.maxEntries = 8
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 3000 {
				token, now := fmt.Sprint((g+i)%400), time.Now()
				if id := c.get(token, uint64(i/1000), now); id != nil && id.Subject != token {
					t.Errorf("the identity of %q for %q", id.Subject, token)
				} else if id == nil {
					c.add(token, verified{id: &Identity{Subject: token}, keys: uint64(i / 1000), expires: now.Add(time.Hour)}, now)
				}
			}
		})
	}
	wg.Wait()
	c.sizes(t)
}

func BenchmarkJWT(b *testing.B) {
	key, err := LoadOrCreateDevKey(filepath.Join(b.TempDir(), "dev.key"))
	if err != nil {
		b.Fatal(err)
	}
	token, err := key.Mint(TokenRequest{Scopes: []string{"read", "write"}})
	if err != nil {
		b.Fatal(err)
	}
	j, err := NewJWT(b.Context(), key.JWTConfig())
	if err != nil {
		b.Fatal(err)
	}
	c := FromHeader(http.Header{"Authorization": {"Bearer " + token}})
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := j.Authenticate(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hit-parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := j.Authenticate(context.Background(), c); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			j.keySet.Add(1) // as if the keys had changed
			if _, err := j.Authenticate(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A flood of tokens that are never seen again: what the cache adds to each verification.
func BenchmarkCacheAdd(b *testing.B) {
	c := newCache()
	now := time.Now()
	tokens := make([]string, 1<<16)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("%0400d", i)
	}
	id := &Identity{Subject: "ann", Claims: map[string]any{"iss": "https://issuer.example", "sub": "ann", "exp": 1e9, "nbf": 1e9}}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.add(tokens[i%len(tokens)], verified{id: id, expires: now.Add(time.Hour)}, now)
		i++
	}
}
