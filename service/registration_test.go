package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
)

// What the service is, the registry says: degraded stays in rotation, unhealthy
// leaves it, and both come back.
func TestStatusGoesToTheRegistry(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	s, _ := newService(t, "users", service.WithRegistry(r))
	var ill atomic.Pointer[string]
	for _, name := range []string{"cache", "database"} {
		check := func(context.Context) error {
			if which := ill.Load(); which != nil && *which == name {
				return errors.New("gone")
			}
			return nil
		}
		opts := []health.CheckOption{health.Interval(5 * time.Millisecond)}
		if name == "database" {
			opts = append(opts, health.Critical())
		}
		if err := s.Health().Add(name, check, opts...); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, s)
	fails := func(name string) { ill.Store(&name) }
	for _, step := range []struct {
		name       string
		change     func()
		want       registry.Status
		inRotation int
		code       int
	}{
		{"start", func() {}, health.Healthy, 1, 200},
		{"a check fails", func() { fails("cache") }, health.Degraded, 1, 200},
		{"it recovers", func() { ill.Store(nil) }, health.Healthy, 1, 200},
		{"a critical check fails", func() { fails("database") }, health.Unhealthy, 0, 503},
		{"worse to bad", func() { fails("cache") }, health.Degraded, 1, 200},
		{"all is well", func() { ill.Store(nil) }, health.Healthy, 1, 200},
		{"unhealthy by report", func() { s.Health().Set("licence", errors.New("expired"), true) }, health.Unhealthy, 0, 503},
		{"and back", func() { s.Health().Set("licence", nil, true) }, health.Healthy, 1, 200},
	} {
		step.change()
		eventually(t, step.name, func() bool {
			in, ok := only(r, "users")
			return ok && in.Status == step.want && r.Endpoints("users").Len() == step.inRotation
		})
		if got := status(t, p.url+"/health"); got != step.code {
			t.Errorf("%s: /health %d, want %d", step.name, got, step.code)
		}
	}
}

// The last of many quick changes is what the registry ends with.
func TestStatusSettles(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	s, _ := newService(t, "users", service.WithRegistry(r))
	start(t, s)
	for n := range 200 {
		s.Health().Set("load", errors.New("too much"), n%3 == 0)
		s.Health().Set("load", nil, false)
	}
	eventually(t, "the registry says healthy", func() bool {
		in, ok := only(r, "users")
		return ok && in.Status == health.Healthy
	})
}

// While the store is away the service serves and says degraded; when it is back,
// with its records or without, the service is registered again.
func TestStoreGoesAway(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	r, driver := fleet(t, hub)
	watcher, _ := fleet(t, hub) // sees what others see
	s, log := newService(t, "users", service.WithRegistry(r))
	p := start(t, s)
	back := func(when string) {
		t.Helper()
		eventually(t, when+": it is registered and healthy", func() bool {
			in, ok := only(watcher, "users")
			return ok && in.Status == health.Healthy && s.Health().Status() == health.Healthy
		})
	}
	back("start")
	for _, loss := range []struct {
		name string
		wipe bool
	}{{"disconnected", false}, {"disconnected, and the store has lost everything", true}} {
		driver.Disconnect()
		eventually(t, "/health is degraded", func() bool {
			resp, body := must(t, "GET", p.url+"/health", nil)
			var got health.Report
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			dep := got.Dependencies["registry"]
			return resp.StatusCode == http.StatusOK && got.Status == health.Degraded &&
				dep.Status == health.Unhealthy && strings.Contains(dep.Error, "unavailable")
		})
		if loss.wipe {
			hub.Wipe()
		}
		driver.Reconnect()
		back(loss.name)
	}
	if !strings.Contains(log.String(), "not registered; trying again") || !strings.Contains(log.String(), "registered again") {
		t.Errorf("the log does not tell:\n%s", log)
	}
	if err := p.stop(t); err != nil {
		t.Error(err)
	}
	eventually(t, "it has left", func() bool { _, known := only(watcher, "users"); return !known })
}

// A service starts without the store, and registers when it comes. At the stop a
// store that is away holds nothing up.
func TestStartsAndStopsWithoutTheStore(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	r, driver := fleet(t, hub)
	watcher, _ := fleet(t, hub)
	driver.Disconnect()
	s, log := newService(t, "users", service.WithRegistry(r))
	p := start(t, s)
	eventually(t, "the service is degraded", func() bool { return s.Health().Status() == health.Degraded })
	driver.Reconnect()
	eventually(t, "it is registered", func() bool { return watcher.Endpoints("users").Len() == 1 })
	driver.Disconnect()
	if err := p.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	log.record(t, "could not leave the registry; the instance will be probed and removed")
}

// Everything the options say is in the record.
func TestRecord(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	s, _ := newService(t, "users", service.WithRegistry(r), service.WithVersion("1.2.3"), service.WithZone("north"),
		service.WithTags("blue", "canary"), service.WithMetadata(map[string]string{"team": "accounts"}),
		service.WithInstance("Users.1"), service.WithAdvertise("https://users.example:8443"))
	start(t, s)
	eventually(t, "it is registered", func() bool { _, ok := only(r, "users"); return ok })
	in, _ := only(r, "users")
	if in.ID != "users-1" || in.Version != "1.2.3" || in.Zone != "north" || strings.Join(in.Tags, " ") != "blue canary" ||
		in.Metadata["team"] != "accounts" || in.Address != "https://users.example:8443" || in.Port != 8443 ||
		in.Health != "https://users.example:8443/health" || s.Instance() != in.ID {
		t.Errorf("registered as %+v", in)
	}
}
