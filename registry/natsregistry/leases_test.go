package natsregistry

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/registry"
)

func TestTracker(t *testing.T) {
	t.Parallel()
	a, b := registry.Key{Service: "users", ID: "a"}, registry.Key{Service: "users", ID: "b"}
	one, two := holder{"s", 1}, holder{"s", 2}
	held := func(k registry.Key) registry.LeaseChange {
		return registry.LeaseChange{State: registry.LeaseHeld, Key: k}
	}
	lost := func(k registry.Key, why registry.LeaseState) registry.LeaseChange {
		return registry.LeaseChange{State: why, Key: k}
	}
	type changes = []registry.LeaseChange
	tr := newTracker()
	for n, step := range []struct{ got, want changes }{
		{tr.hold(a, one, held(a)), changes{held(a)}},
		{tr.hold(b, one, held(b)), changes{held(b)}},
		{tr.hold(b, two, held(b)), changes{held(b)}}, // renewed on a new connection …
		{tr.end(one), changes{lost(a, registry.LeaseDisconnected)}},
		{tr.end(one), nil},
		{tr.drop(a, registry.LeaseExpired), nil}, // told already
		{tr.hold(a, one, held(a)), changes{held(a), lost(a, registry.LeaseDisconnected)}}, // told late
		{tr.hold(a, two, held(a)), changes{held(a)}},                                      // back
		{tr.drop(a, registry.LeaseReleased), changes{lost(a, registry.LeaseReleased)}},    // goodbye
		{tr.drop(b, registry.LeaseExpired), changes{lost(b, registry.LeaseExpired)}},      // silence
		{tr.end(two), nil},
	} {
		if diff := cmp.Diff(step.want, step.got); diff != "" {
			t.Errorf("step %d: %s", n, diff)
		}
	}
	if len(tr.holders) != 0 || len(tr.leases) != 0 {
		t.Errorf("left over: %v %v", tr.holders, tr.leases)
	}
	for n := range uint64(3 * endedKept) {
		tr.end(holder{"t", n})
	}
	if len(tr.ended.known) != endedKept || len(tr.ended.order) != endedKept {
		t.Errorf("%d ended connections are remembered, want %d", len(tr.ended.known), endedKept)
	}
}

func FuzzEnded(f *testing.F) {
	f.Add([]byte(`{"type":"io.nats.server.advisory.v1.client_disconnect","server":{"id":"NA"},"client":{"id":7},"reason":"Client Closed"}`))
	f.Add([]byte(`{"client":{"id":-1}}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		e, err := ended(message)
		if err != nil && e != (ending{}) {
			t.Errorf("%+v together with %v", e, err)
		}
		if err == nil && !json.Valid(message) {
			t.Errorf("%q was read as %+v", message, e)
		}
	})
}
