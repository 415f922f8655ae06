package client_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
)

// named answers with its name.
func named(t *testing.T, name string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

func TestWithZone(t *testing.T) {
	t.Parallel()
	f, eps := users(named(t, "near"), named(t, "far"))
	eps[0].Zone, eps[1].Zone = "north", "south"
	for range 500 { // far is known to be slow: however slow this machine is, near is no slower
		eps[1].Begin()
		eps[1].End(time.Minute, false)
	}
	for _, zone := range []string{"", "north"} {
		tr := plainTransport(t, f, client.WithZone(zone), client.WithPicker(balance.Random))
		got := map[string]int{}
		for range 200 {
			body, err := do(t, tr, request(t, http.MethodGet, "http://users/", nil))
			if err != nil {
				t.Fatal(err)
			}
			got[body]++
		}
		// Without a zone about half, with one all but a few scouts.
		if far := got["far"]; zone == "" && (far < 40 || far > 160) || zone != "" && far > 20 {
			t.Errorf("from zone %q %d of 200 requests went far", zone, far)
		}
	}
}

// The zone's only instance is gone: the request goes to another zone.
func TestWithZoneRetries(t *testing.T) {
	t.Parallel()
	f, eps := users(refusing(t), named(t, "far"))
	eps[0].Zone, eps[1].Zone = "north", "south"
	tr := plainTransport(t, f, client.WithZone("north"))
	for range 5 {
		if body, err := do(t, tr, request(t, http.MethodGet, "http://users/", nil)); err != nil || body != "far" {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestContextWithKey(t *testing.T) {
	t.Parallel()
	f, eps := users(named(t, "0"), named(t, "1"), named(t, "2"), refusing(t))
	p := balance.ConsistentHash(balance.DefaultBound)
	// Without a detector: where one takes the instance that refuses out, keys move as in a
	// set without it.
	for name, tr := range map[string]*client.Transport{
		"keys":          plainTransport(t, f, client.WithoutOutlier(), client.WithPicker(func() balance.Picker { return p })),
		"another":       plainTransport(t, f, client.WithoutOutlier(), client.WithPicker(func() balance.Picker { return balance.ConsistentHash(balance.DefaultBound) })),
		"does not mind": plainTransport(t, f),
	} {
		seen := map[string]bool{}
		for i := range 30 {
			k := fmt.Sprintf("user-%d", i)
			want := p.PickKey(f["users"], k)
			if want == eps[3] { // refuses
				want = balance.PickKeyExcept(p, f["users"], k, eps[3:])
			}
			for range 3 {
				req := request(t, http.MethodGet, "http://users/", nil)
				body, err := do(t, tr, req.WithContext(client.ContextWithKey(req.Context(), k)))
				if err != nil {
					t.Fatal(err)
				}
				if seen[body] = true; name != "does not mind" && "users-"+body != want.ID {
					t.Errorf("%s: %s went to %s, want %s", name, k, body, want.ID)
				}
			}
		}
		if len(seen) != 3 {
			t.Errorf("%s: only %d instances were asked", name, len(seen))
		}
	}
	for _, e := range eps {
		for deadline := time.Now().Add(10 * time.Second); e.InFlight() != 0; {
			if time.Now().After(deadline) {
				t.Fatalf("%s has %d calls in flight", e.ID, e.InFlight())
			}
		}
	}
}
