package ratelimit_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValidate(t *testing.T) {
	t.Parallel()
	ok := ratelimit.Limit{Requests: 100, Window: time.Minute}
	if err := ok.Validate(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		field string
		limit ratelimit.Limit
	}{
		{"Requests", ratelimit.Limit{Window: time.Minute}},
		{"Requests", ratelimit.Limit{Requests: -1, Window: time.Minute}},
		{"Requests", ratelimit.Limit{Requests: 1_000_000_001, Window: time.Minute}},
		{"Window", ratelimit.Limit{Requests: 1}},
		{"Window", ratelimit.Limit{Requests: 1, Window: 400 * 24 * time.Hour}},
		{"Burst", ratelimit.Limit{Requests: 1, Window: time.Minute, Burst: -1}},
		{"Burst", ratelimit.Limit{Requests: 1, Window: 366 * 24 * time.Hour, Burst: 1_000_000_000}},
		{"Name", ratelimit.Limit{Requests: 1, Window: time.Minute, Name: "a\"b"}},
		{"Name", ratelimit.Limit{Requests: 1, Window: time.Minute, Name: "a\r\nb"}},
		{"Name", ratelimit.Limit{Requests: 1, Window: time.Minute, Name: strings.Repeat("a", 65)}},
	}
	for _, tt := range tests {
		_, err := ratelimit.NewLocal(tt.limit)
		if !errors.Is(err, ratelimit.ErrInvalidLimit) || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%+v: error %v, want ErrInvalidLimit about %s", tt.limit, err, tt.field)
		}
	}
	for _, n := range []int{-1, 0, 63, 1<<24 + 1} {
		if _, err := ratelimit.NewLocal(ok, ratelimit.MaxKeys(n)); err == nil || !strings.Contains(err.Error(), "MaxKeys") {
			t.Errorf("MaxKeys(%d): error %v, want one about MaxKeys", n, err)
		}
	}
}

func TestGCRA(t *testing.T) {
	t.Parallel()
	limit := ratelimit.Limit{Requests: 2, Window: time.Second, Burst: 3} // one each 500 ms
	steps := []struct {
		at                time.Duration
		n                 int
		allowed           bool
		remaining         int
		reset, retryAfter time.Duration
	}{
		{0, 0, true, 3, 0, 0},
		{0, 1, true, 2, 500 * time.Millisecond, 0},
		{0, 3, false, 2, 500 * time.Millisecond, 500 * time.Millisecond},
		{0, 2, true, 0, 1500 * time.Millisecond, 0},
		{0, 1, false, 0, 1500 * time.Millisecond, 500 * time.Millisecond},
		{499 * time.Millisecond, 1, false, 0, 1001 * time.Millisecond, time.Millisecond},
		{500 * time.Millisecond, 1, true, 0, 1500 * time.Millisecond, 0},
		{500 * time.Millisecond, -5, true, 0, 1500 * time.Millisecond, 0},
		{time.Second, 4, false, 1, time.Second, 0},
		{time.Hour, 3, true, 0, 1500 * time.Millisecond, 0},
		{0, 1, false, 0, 1500 * time.Millisecond, 500 * time.Millisecond}, // the clock was set back
	}
	var tat int64
	for i, s := range steps {
		var got ratelimit.Decision
		tat, got = ratelimit.GCRA(limit, tat, int64(s.at), s.n)
		want := ratelimit.Decision{Allowed: s.allowed, Remaining: s.remaining, Reset: s.reset, RetryAfter: s.retryAfter, Limit: limit}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("step %d (%+v): %s", i, s, diff)
		}
	}
	for _, bad := range []ratelimit.Limit{{}, {Requests: 1}, {Window: 1}, {Requests: 1, Window: 1, Burst: -1},
		{Requests: 1, Window: math.MaxInt64, Burst: math.MaxInt}} {
		if tat, d := ratelimit.GCRA(bad, 7, 0, 1); d.Allowed || tat != 7 {
			t.Errorf("GCRA with the invalid limit %+v: %d, %+v; want a refusal", bad, tat, d)
		}
	}
}

// admission is what was let through at a time.
type admission struct {
	at time.Duration
	n  int
}

// exact returns an error if in any stretch of time more than burst + rate × time
// was admitted. It compares whole numbers, so there is no rounding to hide in.
func exact(l ratelimit.Limit, admitted []admission) error {
	burst := l.Burst
	if burst == 0 {
		burst = l.Requests
	}
	for i := range admitted {
		total := 0
		for _, a := range admitted[i:] {
			total += a.n
			// (total - burst) × window <= elapsed × requests
			left := new(big.Int).Mul(big.NewInt(int64(total-burst)), big.NewInt(int64(l.Window)))
			right := new(big.Int).Mul(big.NewInt(int64(a.at-admitted[i].at)), big.NewInt(int64(l.Requests)))
			if left.Cmp(right) > 0 {
				return fmt.Errorf("%+v: %d admitted within %v", l, total, a.at-admitted[i].at)
			}
		}
	}
	return nil
}

func drawLimit(t *rapid.T) ratelimit.Limit {
	return ratelimit.Limit{
		Requests: rapid.IntRange(1, 50).Draw(t, "requests"),
		Window:   time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "window")),
		Burst:    rapid.IntRange(0, 20).Draw(t, "burst"),
	}
}

func TestGCRAExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		var tat int64
		var now time.Duration
		var admitted []admission
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(l.Window)/4).Draw(t, "wait"))
			n := rapid.IntRange(0, 5).Draw(t, "n")
			before := tat
			var d ratelimit.Decision
			tat, d = ratelimit.GCRA(l, tat, int64(now), n)
			if d.Allowed && n > 0 {
				admitted = append(admitted, admission{now, n})
			} else if tat != before {
				t.Fatalf("state moved though nothing was admitted: %+v", d)
			}
			// What the decision promises must be true.
			if d.Remaining > 0 {
				if _, again := ratelimit.GCRA(l, tat, int64(now), d.Remaining); !again.Allowed {
					t.Fatalf("%d remaining, but refused", d.Remaining)
				}
			}
			if _, again := ratelimit.GCRA(l, tat, int64(now), d.Remaining+1); again.Allowed {
				t.Fatalf("%d remaining, but one more is admitted", d.Remaining)
			}
			if d.RetryAfter > 0 {
				if _, early := ratelimit.GCRA(l, tat, int64(now+d.RetryAfter-1), n); early.Allowed {
					t.Fatalf("admitted before RetryAfter %v was over", d.RetryAfter)
				}
				if _, due := ratelimit.GCRA(l, tat, int64(now+d.RetryAfter), n); !due.Allowed {
					t.Fatalf("refused after RetryAfter %v", d.RetryAfter)
				}
			}
			if _, full := ratelimit.GCRA(l, tat, int64(now+d.Reset), 0); full.Remaining != d.Limit.Burst {
				t.Fatalf("%d remaining after Reset, want %d", full.Remaining, d.Limit.Burst)
			}
		}
		if err := exact(l, admitted); err != nil {
			t.Fatal(err)
		}
	})
}

// inBubble runs f in virtual time within a property. The property's draws must be
// made before: rapid does not work inside a bubble.
func inBubble(t *testing.T, p *rapid.T, f func() error) {
	var err error
	synctest.Test(t, func(*testing.T) { err = f() })
	if err != nil {
		p.Fatal(err)
	}
}

// As long as there is room, Local decides as GCRA does with one state a key.
func TestLocalEqualsGCRA(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(p *rapid.T) {
		l := drawLimit(p)
		type step struct {
			wait time.Duration
			key  string
			n    int
		}
		steps := rapid.SliceOfN(rapid.Custom(func(p *rapid.T) step {
			return step{
				wait: time.Duration(rapid.Int64Range(0, int64(l.Window)/10).Draw(p, "wait")),
				key:  string(rapid.RuneFrom([]rune("abcdefghijklmno")).Draw(p, "key")), // 15: they fit even if they share a group
				n:    rapid.IntRange(0, 3).Draw(p, "n"),
			}
		}), 1, 100).Draw(p, "steps")
		inBubble(t, p, func() error {
			local, err := ratelimit.NewLocal(l, ratelimit.MaxKeys(64))
			if err != nil {
				return err
			}
			start := time.Now()
			states := map[string]int64{}
			for _, s := range steps {
				time.Sleep(s.wait)
				var want ratelimit.Decision
				states[s.key], want = ratelimit.GCRA(l, states[s.key], int64(time.Since(start)), s.n)
				if diff := cmp.Diff(want, local.AllowN(s.key, s.n)); diff != "" {
					return errors.New(diff)
				}
			}
			return nil
		})
	})
}

// With many more keys than places, nobody gets more than the limit.
func TestLocalExactWhenFull(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(p *rapid.T) {
		l := drawLimit(p)
		keys := rapid.IntRange(100, 1000).Draw(p, "keys")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(p, "seed"), 0))
		inBubble(t, p, func() error {
			local, err := ratelimit.NewLocal(l, ratelimit.MaxKeys(64))
			if err != nil {
				return err
			}
			start := time.Now()
			admitted := map[int][]admission{}
			for range 3000 {
				if random.IntN(20) == 0 {
					time.Sleep(l.Window / 20)
				}
				key := random.IntN(keys)
				if random.IntN(4) == 0 {
					key %= 5 // some come often
				}
				if local.Allow(fmt.Sprint("key ", key)).Allowed {
					admitted[key] = append(admitted[key], admission{time.Since(start), 1})
				}
			}
			for _, a := range admitted {
				if err := exact(l, a); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// A flood of new keys neither refuses clients that keep to the limit nor gives
// one that does not keep to it more.
func TestLocalFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		local, err := ratelimit.NewLocal(ratelimit.Limit{Requests: 1, Window: time.Second, Burst: 10}, ratelimit.MaxKeys(64))
		if err != nil {
			t.Fatal(err)
		}
		greedy, fresh := 0, 0
		const seconds = 60
		for second := range seconds {
			for i := range 20 { // new keys, far more than places over the time
				local.Allow(fmt.Sprintf("attacker %d %d", second, i))
			}
			for range 100 {
				if local.Allow("greedy").Allowed {
					greedy++
				}
			}
			if !local.Allow("steady").Allowed {
				t.Errorf("second %d: the client that keeps to the limit was refused", second)
			}
			if local.Allow(fmt.Sprint("newcomer ", second)).Allowed {
				fresh++
			}
			time.Sleep(time.Second)
		}
		if greedy > 10+seconds || greedy < seconds/2 {
			t.Errorf("the greedy client got %d in %d s, want at most %d and not much less", greedy, seconds, 10+seconds)
		}
		if fresh != seconds {
			t.Errorf("%d of %d newcomers were admitted", fresh, seconds)
		}

		// When every place is used up, newcomers are refused until debts shrink.
		for i := range 100_000 {
			local.Allow(fmt.Sprint("more ", i))
		}
		d := local.Allow("late")
		if d.Allowed || d.RetryAfter <= 0 || d.RetryAfter > time.Second {
			t.Errorf("with every place used up: %+v, want a refusal for up to 1s", d)
		}
		time.Sleep(time.Second)
		if !local.Allow("late").Allowed {
			t.Error("refused after the debts have shrunk")
		}
	})
}

func TestLocalConcurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		local, err := ratelimit.NewLocal(ratelimit.Limit{Requests: 100, Window: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if local.Allow("client").Allowed {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n != 100 { // virtual time stands still
			t.Errorf("%d of 400 admitted, want 100", n)
		}
		if l := local.Limit(); l.Burst != 100 {
			t.Errorf("Burst %d, want 100", l.Burst)
		}
	})
}

func TestWriteHeaders(t *testing.T) {
	t.Parallel()
	minute := ratelimit.Limit{Requests: 100, Window: time.Minute, Burst: 100}
	tests := []struct {
		name string
		d    ratelimit.Decision
		want http.Header
	}{
		{"admitted", ratelimit.Decision{Allowed: true, Remaining: 50, Reset: 29*time.Second + 1, Limit: minute}, http.Header{
			"Ratelimit-Policy": {`"default";q=100;w=60`},
			"Ratelimit":        {`"default";r=50;t=30`},
		}},
		{"refused", ratelimit.Decision{Reset: time.Minute, RetryAfter: time.Millisecond, Limit: minute}, http.Header{
			"Ratelimit-Policy": {`"default";q=100;w=60`},
			"Ratelimit":        {`"default";r=0;t=60`},
			"Retry-After":      {"1"},
		}},
		{"named, part of a second", ratelimit.Decision{Allowed: true, Remaining: 5, Limit: ratelimit.Limit{Name: "per-user", Requests: 5, Window: 100 * time.Millisecond, Burst: 5}}, http.Header{
			"Ratelimit-Policy": {`"per-user";q=5;w=1`},
			"Ratelimit":        {`"per-user";r=5;t=0`},
		}},
		{"never admitted", ratelimit.Decision{Remaining: 100, Limit: minute}, http.Header{
			"Ratelimit-Policy": {`"default";q=100;w=60`},
			"Ratelimit":        {`"default";r=100;t=0`},
		}},
	}
	for _, tt := range tests {
		got := http.Header{}
		tt.d.WriteHeaders(got.Set)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestAllowAllocates(t *testing.T) {
	local, err := ratelimit.NewLocal(ratelimit.Limit{Requests: 10, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { local.Allow("203.0.113.7") }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func Example() {
	limiter, err := ratelimit.NewLocal(ratelimit.Limit{Requests: 2, Window: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		fmt.Println(limiter.Allow("203.0.113.7").Allowed)
	}
	// Output:
	// true
	// true
	// false
}

func BenchmarkAllow(b *testing.B) {
	limit := ratelimit.Limit{Requests: 1_000_000, Window: time.Second}
	for _, n := range []int{1, 10_000} {
		local, err := ratelimit.NewLocal(limit)
		if err != nil {
			b.Fatal(err)
		}
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf("203.0.%d.%d", i/256, i%256)
		}
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				local.Allow(keys[i%n])
			}
		})
		b.Run(fmt.Sprintf("keys=%d/parallel", n), func(b *testing.B) {
			b.ReportAllocs()
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(next.Add(7919)); pb.Next(); i++ {
					local.Allow(keys[i%n])
				}
			})
		})
	}
}

func BenchmarkGCRA(b *testing.B) {
	limit := ratelimit.Limit{Requests: 100, Window: time.Minute}
	var tat, now int64
	for b.Loop() {
		now += 1000
		tat, _ = ratelimit.GCRA(limit, tat, now, 1)
	}
}
