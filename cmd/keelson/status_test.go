package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	gateway := health.Report{Status: health.Healthy}
	r.system.Gateway.URL = newStub(t, func(w http.ResponseWriter, _ *http.Request) {
		if !gateway.Status.Serving() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = writeJSON(w, gateway)
	})
	r.processes = []console.Process{{Service: "user-service", Instance: "u1", State: "healthy", PID: 77, Port: 3001, StartedAt: time.Now().Add(-time.Hour), Restarts: 3, LastExit: "exit status 2"}}
	r.service("user-service", "u1", nil)
	pay := health.Healthy
	p1 := r.service("pay", "p1", func() health.Report {
		return health.Report{Status: pay, Dependencies: map[string]health.Dependency{"bank": {Status: health.Unhealthy, Error: "no route to host"}}}
	})
	got := r.run("status")
	if got.code != exitOK || got.stderr != "" {
		t.Errorf("all is well: %+v", got)
	}
	for _, want := range []string{"v1.2.3", "up for 1m", "pid 42", "all is well", r.system.Gateway.URL + "  healthy", "embedded", "durability fast", "2 instances of 2 services", "user-service   1/1", "u1", "77", "3001", "1h", "exit status 2"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("lacks %q:\n%s", want, got.stdout)
		}
	}

	// Degraded is in rotation; what is the matter is told.
	if err := p1.SetStatus(t.Context(), health.Degraded); err != nil {
		t.Fatal(err)
	}
	eventually(t, "pay degraded", func() bool { return r.status("pay", "p1") == health.Degraded })
	if got := r.run("status"); got.code != exitOK || !strings.Contains(got.stdout, "p1: bank unhealthy: no route to host") {
		t.Errorf("degraded: %+v", got)
	}
	pay = health.Unhealthy
	if err := p1.SetStatus(t.Context(), health.Unhealthy); err != nil {
		t.Fatal(err)
	}
	eventually(t, "pay unhealthy", func() bool { return r.status("pay", "p1") == health.Unhealthy })
	got = r.run("status", "--color", "always")
	if got.code != exitFailed || !strings.Contains(got.stdout, "not all is well") || !strings.Contains(got.stdout, "\x1b[31m0/1\x1b[0m") || got.stderr != "" {
		t.Errorf("unhealthy: %+v", got)
	}
	gateway.Status = health.Unhealthy
	var o overview
	got = r.run("status", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &o); err != nil || got.code != exitFailed || got.stderr != "" {
		t.Fatalf("%v: %+v", err, got)
	}
	want := []string{"the gateway: it answers 503 Service Unavailable, unhealthy", "pay: 1 of 1 not in rotation"}
	if diff := cmp.Diff(want, o.Problems); diff != "" || o.Well || o.System.Version != "v1.2.3" || len(o.Processes) != 1 {
		t.Errorf("%s\n%+v", diff, o)
	}
	if got := r.run("status", "-o", "yaml"); !strings.Contains(got.stdout, "well: false") || !strings.Contains(got.stdout, "pid: 77") {
		t.Errorf("%+v", got)
	}
	if got := keelson(t, nil, "status", "--url", "http://127.0.0.1:1"); got.code != exitUnreachable || got.stdout != "" {
		t.Errorf("nothing runs: %+v", got)
	}
}

// A system without processes of its own, and without a gateway, is no less well.
func TestStatusOfLittle(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *console.Config) { c.Processes = nil })
	got := r.run("status")
	if got.code != exitOK || strings.Contains(got.stdout, "PROCESS") || strings.Contains(got.stdout, "gateway") || !strings.Contains(got.stdout, "No service is registered.") {
		t.Errorf("%+v", got)
	}
	// No list is null: jq can't walk that.
	if got := r.run("status", "-o", "json"); !strings.Contains(got.stdout, `"services": []`) || !strings.Contains(got.stdout, `"processes": []`) {
		t.Errorf("%+v", got)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	well := func() overview {
		return overview{System: console.System{Status: health.Healthy, Registry: console.RegistryState{Synced: true}}}
	}
	for name, tt := range map[string]struct {
		change func(*overview)
		want   []string
	}{
		"well":     {func(*overview) {}, []string{}},
		"starting": {func(o *overview) { o.System.Status = health.Starting }, []string{"the system is starting"}},
		"degraded": {func(o *overview) {
			o.System.Status = health.Degraded
			o.System.Dependencies = map[string]health.Dependency{"mail": {Status: health.Unhealthy}}
		}, []string{}},
		"critical": {func(o *overview) {
			o.System.Status = health.Unhealthy
			o.System.Dependencies = map[string]health.Dependency{"engine": {Status: health.Unhealthy, Critical: true, Error: "away"}, "x": {Status: health.Healthy}}
		}, []string{"the system is unhealthy", "engine: unhealthy, critical: away"}},
		"never synced": {func(o *overview) { o.System.Registry.Synced = false }, []string{"the registry is not in step with the engine: it has not read it all yet"}},
		"behind":       {func(o *overview) { o.System.Registry.Error = "disconnected" }, []string{"the registry is not in step with the engine: disconnected"}},
		"gateway":      {func(o *overview) { o.Gateway = &checkup{Error: "connection refused"} }, []string{"the gateway: connection refused"}},
		"drained":      {func(o *overview) { o.Services = []serviceSummary{{Name: "pay", Instances: 3, InRotation: 1}} }, []string{"pay: 2 of 3 not in rotation"}},
	} {
		o := well()
		tt.change(&o)
		o.judge()
		if diff := cmp.Diff(tt.want, o.Problems); diff != "" || o.Well != (len(tt.want) == 0) {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	all := []registry.Instance{
		{Name: "pay", ID: "p1", Status: health.Healthy, Version: "v1"},
		{Name: "pay", ID: "p2", Status: health.Draining, Version: "v2"},
		{Name: "pay", ID: "p3", Status: health.Degraded, Version: "v1"},
	}
	processes := []console.Process{{Service: "pay", Instance: "p1"}, {Service: "mail", Instance: "mail-1", State: "restarting"}}
	got := summarize(all, []shown{{all[1], checkup{Error: "connection refused"}}}, processes)
	want := []serviceSummary{
		{Name: "mail", Instances: 1, Versions: []string{}, Status: health.Unhealthy, Failing: []string{"mail-1: its process is restarting, it is not registered"}},
		{Name: "pay", InRotation: 2, Instances: 3, Versions: []string{"v1", "v2"}, Status: health.Draining, Failing: []string{"p2: draining", "p2: connection refused"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRedraw(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text  string
		lines int
		want  string
	}{
		{"a\nb\n", 24, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"},
		{"a\nb\nc\nd\n", 4, "\x1b[Ha\x1b[K\nb\x1b[K\n…\x1b[K\n\x1b[J"},
		{"a\nb\n", 0, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"}, // a terminal that does not know its size
		{"", 24, "\x1b[H\x1b[K\n\x1b[J"},
	} {
		if got := string(redraw(tt.text, tt.lines)); got != tt.want {
			t.Errorf("redraw(%q, %d) = %q, want %q", tt.text, tt.lines, got, tt.want)
		}
	}
}

// Without a terminal one status follows the other; a system that goes is waited
// for, and Ctrl-C ends it well.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs buffer
	a := &app{stdout: &out, stderr: &errs, env: func(string) string { return "" }}
	code := make(chan int, 1)
	go func() { code <- a.run(ctx, strings.Fields("status --watch --interval 100ms --url "+r.url)) }()
	frames := func(n int) func() bool { return func() bool { return strings.Count(out.String(), "all is well") >= n } }
	eventually(t, "two frames", frames(2))
	r.instead(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	eventually(t, "the loss", func() bool { return strings.Contains(out.String(), "answers 503") })
	r.instead(nil)
	before := strings.Count(out.String(), "all is well")
	eventually(t, "its return", frames(before+1))
	cancel()
	if got := <-code; got != exitOK || errs.String() != "" || strings.Contains(out.String(), "\x1b") {
		t.Errorf("code %d, stderr %q", got, &errs)
	}
	if got := r.run("status", "--watch", "--interval", "1ms"); got.code != exitUsage {
		t.Errorf("too often: %+v", got)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	tab := newTable("  ", "NAME", "STATE")
	tab.row("é")
	tab.add("ill", red)
	tab.row("four\x1b[2J", "x")
	var b strings.Builder
	if err := tab.write(&b, true); err != nil {
		t.Fatal(err)
	}
	want := "  \x1b[1mNAME\x1b[0m       \x1b[1mSTATE\x1b[0m\n  é          \x1b[31mill\x1b[0m\n  four\ufffd[2J   x\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	if err := tab.write(fullDisk{}, false); err == nil {
		t.Error("a failed write is no error")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("full") }
