package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// pick returns the id of the one that was picked.
func pick(t *testing.T, c http.Handler, query string) string {
	t.Helper()
	w := ask(c, "GET", "/v1/services/users/pick"+query)
	var in registry.Instance
	if err := json.Unmarshal(w.Body.Bytes(), &in); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", query, w.Code, w.Body)
	}
	return in.ID
}

func TestPick(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	none := func(path string) {
		t.Helper()
		w := ask(c, "GET", path)
		if p := decode(t, w); w.Code != http.StatusServiceUnavailable || p.Code != problem.CodeNoHealthyInstance || !p.Retryable {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	none("/v1/services/users/pick")
	none("/v1/services/No%20Name/pick")
	register(t, r, registry.Instance{Name: "users", ID: "sick", Status: health.Unhealthy, Tags: []string{"blue"}})
	none("/v1/services/users/pick")
	for n, tags := range [][]string{{"blue"}, {"blue", "canary"}, {"green"}} {
		zone := "north"
		if n == 2 {
			zone = "south"
		}
		register(t, r, registry.Instance{Name: "users", ID: fmt.Sprint("users-", n), Tags: tags, Zone: zone})
	}
	for query, want := range map[string]string{
		"":                                     "users-0 users-1 users-2",
		"?strategy=":                           "users-0 users-1 users-2",
		"?tag=blue":                            "users-0 users-1",
		"?tag=blue&tag=canary":                 "users-1",
		"?zone=south":                          "users-2",
		"?zone=north&tag=blue":                 "users-0 users-1",
		"?strategy=random&zone=north":          "users-0 users-1",
		"?strategy=round-robin":                "users-0 users-1 users-2",
		"?strategy=least-connections&tag=blue": "users-0 users-1",
	} {
		seen := map[string]bool{}
		for range 200 {
			seen[pick(t, c, query)] = true
		}
		for _, id := range []string{"users-0", "users-1", "users-2", "sick"} {
			if seen[id] != strings.Contains(want, id) {
				t.Errorf("%q picked %v, want %s", query, seen, want)
			}
		}
	}
	for _, query := range []string{"?tag=red", "?zone=", "?zone=west", "?tag=", "?tag=blue&tag=green", "?zone=south&tag=blue"} {
		none("/v1/services/users/pick" + query)
	}
	// Each strategy there is works, and one that there is not is told them.
	for _, s := range balance.Strategies() {
		pick(t, c, "?key=ada&strategy="+s)
	}
	for _, strategy := range []string{"fastest", "Random", "random%20"} {
		w := ask(c, "GET", "/v1/services/users/pick?strategy="+strategy)
		p := decode(t, w)
		if w.Code != http.StatusBadRequest || p.Errors[0].Pointer != "#query/strategy" || !strings.Contains(p.Errors[0].Detail, strings.Join(balance.Strategies(), ", ")) {
			t.Errorf("%s: %d %s", strategy, w.Code, w.Body)
		}
	}
	// Round robin remembers whose turn it is.
	turns := ""
	for range 6 {
		turns += strings.TrimPrefix(pick(t, c, "?strategy=round-robin"), "users-")
	}
	if !strings.Contains("012012012", turns) {
		t.Errorf("turns %s", turns)
	}
	// The same key gets the same instance, other keys get others.
	homes := map[string]bool{}
	for key := range 100 {
		query := fmt.Sprint("?strategy=consistent-hash&key=user-", key)
		home := pick(t, c, query)
		homes[home] = true
		for range 3 {
			if again := pick(t, c, query); again != home {
				t.Fatalf("key %d: %s, then %s", key, home, again)
			}
		}
	}
	if len(homes) != 3 {
		t.Errorf("100 keys are on %v", homes)
	}
}

// Pickers are kept for what there is, and not for ever more of it.
func TestPickersAreBounded(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	for n := range 500 {
		ask(c, "GET", fmt.Sprintf("/v1/services/nobody-%d/pick?strategy=round-robin", n))
	}
	if n := console.Pickers(c); n != 0 {
		t.Errorf("%d pickers for services that are not there", n)
	}
	for n := range console.MaxPickers/len(balance.Strategies()) + 1 {
		register(t, r, registry.Instance{Name: fmt.Sprint("users-", n), ID: "users"})
		for _, s := range balance.Strategies() {
			if w := ask(c, "GET", fmt.Sprintf("/v1/services/users-%d/pick?strategy=%s", n, s)); w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	}
	if n := console.Pickers(c); n != console.MaxPickers {
		t.Errorf("%d pickers, want %d", n, console.MaxPickers)
	}
}

// What filters leave is kept until the service changes, no longer.
func TestPickFollowsTheFleet(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	const query = "?strategy=round-robin&tag=blue&zone=north"
	var regs []*registry.Registration
	for n := range 3 {
		regs = append(regs, register(t, r, registry.Instance{Name: "users", ID: fmt.Sprint("users-", n), Tags: []string{"blue"}, Zone: "north"}))
	}
	turns := func(want string) {
		t.Helper()
		got := ""
		for range 6 {
			got += strings.TrimPrefix(pick(t, c, query), "users-")
		}
		if !strings.Contains(want+want, got) {
			t.Errorf("turns %s, want some of %s", got, want)
		}
	}
	turns("012012")
	if n := console.Pickers(c); n != 1 {
		t.Errorf("%d pickers", n)
	}
	if err := regs[0].Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	register(t, r, registry.Instance{Name: "users", ID: "users-3", Tags: []string{"blue"}, Zone: "south"})
	eventually(t, "it has gone", func() bool { _, ok := r.Get(regs[0].Instance().Key()); return !ok })
	turns("121212")
	register(t, r, registry.Instance{Name: "users", ID: "users-4", Tags: []string{"green", "blue"}, Zone: "north"})
	turns("124124")
	if err := regs[1].SetStatus(t.Context(), health.Draining); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is draining", func() bool { in, _ := r.Get(regs[1].Instance().Key()); return in.Status == health.Draining })
	turns("242424")
	// The same filters, said in other words, are the same.
	pick(t, c, "?zone=north&tag=blue&tag=blue&strategy=round-robin")
	if n := console.Pickers(c); n != 1 {
		t.Errorf("%d pickers", n)
	}
	// And others are not.
	for _, query := range []string{"?strategy=round-robin&tag=blue%26zone%3Dnorth", "?strategy=round-robin&tag=north&zone=blue", "?strategy=round-robin&tag=blue&zone="} {
		if w := ask(c, "GET", "/v1/services/users/pick"+query); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if n := console.Pickers(c); n != 1 {
		t.Errorf("%d pickers", n)
	}
}

// A filter does not make consistent hashing work out its table for each call.
// Not parallel, since it measures the whole process.
func TestFilteredPickIsCheap(t *testing.T) {
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	for n := range 40 {
		register(t, r, registry.Instance{Name: "users", ID: fmt.Sprint("users-", n), Tags: []string{"blue", fmt.Sprint("half-", n%2)}})
	}
	homes := map[string]string{}
	round := func() {
		for key := range 50 {
			for half := range 2 {
				query := fmt.Sprintf("?strategy=consistent-hash&tag=half-%d&key=user-%d", half, key)
				home := pick(t, c, query)
				if before, ok := homes[query]; ok && before != home {
					t.Errorf("%s: %s, then %s", query, before, home)
				}
				homes[query] = home
			}
		}
	}
	round()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	round()
	runtime.ReadMemStats(&after)
	if bytes := (after.TotalAlloc - before.TotalAlloc) / 100; bytes > 128<<10 {
		t.Errorf("%d bytes a pick", bytes)
	}
}

// Many pick while the fleet changes.
func TestPickAtOnce(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	for n := range 4 {
		register(t, r, registry.Instance{Name: "users", ID: fmt.Sprint("users-", n), Tags: []string{fmt.Sprint("half-", n%2)}})
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 100 {
				w := ask(c, "GET", fmt.Sprintf("/v1/services/users/pick?strategy=round-robin&tag=half-%d", n%2))
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), fmt.Sprintf(`"half-%d"`, n%2)) {
					t.Errorf("%d %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	for n := range 50 {
		reg := register(t, r, registry.Instance{Name: "users", ID: fmt.Sprint("more-", n), Tags: []string{"half-0", "half-1"}})
		if n%2 == 0 {
			if err := reg.SetStatus(t.Context(), health.Draining); err != nil {
				t.Error(err)
			}
		}
	}
	wg.Wait()
}

// More tags than an instance can have are refused, before anybody looks for them.
func TestTooManyOfAParameter(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t)})
	for path, pointer := range map[string]string{
		"/v1/services?" + strings.Repeat("tag=a&", registry.MaxTags+1):            "#query/tag",
		"/v1/services/users?" + strings.Repeat("tag=a&", registry.MaxTags+1):      "#query/tag",
		"/v1/services/users/pick?" + strings.Repeat("tag=a&", registry.MaxTags+1): "#query/tag",
		"/v1/watch?" + strings.Repeat("service=a&", 101):                          "#query/service",
	} {
		w := ask(c, "GET", path)
		if p := decode(t, w); w.Code != http.StatusBadRequest || p.Errors[0].Pointer != pointer || !strings.Contains(p.Errors[0].Detail, "at most") {
			t.Errorf("%.40s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{
		"/v1/services?" + strings.Repeat("tag=a&", registry.MaxTags), "/v1/services?" + strings.Repeat("status=healthy&", 100),
	} {
		if w := ask(c, "GET", path); w.Code != http.StatusOK {
			t.Errorf("%.40s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(c, "HEAD", "/v1/watch?"+strings.Repeat("service=a&", 100)); w.Code != http.StatusOK {
		t.Errorf("100 services: %d", w.Code)
	}
}
