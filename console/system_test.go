package console_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func TestSystem(t *testing.T) {
	t.Parallel()
	d := memregistry.New().Connect()
	r := registry.Open(context.Background(), d)
	t.Cleanup(r.Close)
	eventually(t, "the registry is there", r.Synced)
	if w := ask(newConsole(t, console.Config{Registry: r}), "GET", "/v1/system"); w.Code != 404 || decode(t, w).Code != problem.CodeNotFound {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	c := newConsole(t, console.Config{Registry: r, System: func() console.System {
		return console.System{
			Version: "1.2.3", PID: 4711, StartedAt: at, Status: health.Degraded,
			Gateway: console.Listener{URL: "http://127.0.0.1:3000"}, Admin: console.Listener{URL: "http://127.0.0.1:3100"},
			Engine:       console.Engine{Kind: "embedded", URL: "nats://127.0.0.1:4222", Directory: ".keelson/engine", Durability: "fast"},
			Registry:     console.RegistryState{Leading: true, Error: "of before"},
			Dependencies: map[string]health.Dependency{"engine": {Status: health.Healthy, ResponseTime: 0.5, LastCheck: at}},
		}
	}})
	register(t, r, registry.Instance{Name: "users", ID: "users-1"})
	register(t, r, registry.Instance{Name: "users", ID: "users-2"})
	read := func() map[string]any {
		t.Helper()
		w := ask(c, "GET", "/v1/system")
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return got
	}
	if diff := cmp.Diff(map[string]any{
		"version": "1.2.3", "pid": 4711.0, "startedAt": "2026-11-22T16:00:00Z", "status": "degraded",
		"gateway": map[string]any{"url": "http://127.0.0.1:3000"}, "admin": map[string]any{"url": "http://127.0.0.1:3100"},
		"engine":       map[string]any{"kind": "embedded", "url": "nats://127.0.0.1:4222", "directory": ".keelson/engine", "durability": "fast"},
		"registry":     map[string]any{"synced": true, "leading": true, "services": 1.0, "instances": 2.0},
		"dependencies": map[string]any{"engine": map[string]any{"status": "healthy", "responseTime": 0.5, "lastCheck": "2026-11-22T16:00:00Z"}},
	}, read()); diff != "" {
		t.Error(diff)
	}
	d.Disconnect()
	eventually(t, "it says why the store is away", func() bool {
		why, _ := read()["registry"].(map[string]any)["error"].(string)
		return why != "" && why != "of before"
	})
}
