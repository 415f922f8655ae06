package main

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	a1, a2, b1 := registry.Key{Service: "a", ID: "a-1"}, registry.Key{Service: "a", ID: "a-2"}, registry.Key{Service: "b", ID: "b-1"}
	for _, tt := range []struct {
		args string
		want []registry.Key
	}{
		{"a a-1", []registry.Key{a1}},
		{"a a-1 a-2", []registry.Key{a1, a2}},
		{"a.a-1 b.b-1", []registry.Key{a1, b1}},
		{"a a-1 b.b-1", []registry.Key{a1, b1}},
		{"a.a-1 a.a-1", []registry.Key{a1}},
		{"a", nil},
		{"", nil},
		{"a.a-1 a-2", nil}, // of which service?
		{"A a-1", nil},
		{"a a_1", nil},
		{"a.", nil},
		{".a-1", nil},
		{"a.b.c", nil},
		{"../.. x", nil},
	} {
		got, err := keysOf(&cobra.Command{Use: "drain"}, strings.Fields(tt.args))
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.want != nil) {
			t.Errorf("%q: %v\n%s", tt.args, err, diff)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.service("user-service", "u1", nil)
	r.service("user-service", "u2", func() health.Report {
		return health.Report{Status: health.Degraded, Dependencies: map[string]health.Dependency{
			"mail":     {Status: health.Unhealthy, Error: "connection \x1brefused"},
			"database": {Status: health.Healthy, Critical: true, ResponseTime: 1.5},
		}}
	})
	got := r.run("services", "show", "user-service", "--color", "always")
	for _, want := range []string{
		"user-service.u1", "user-service.u2", "healthy, in rotation", "connection: the instance renews it itself",
		"\x1b[31munhealthy: connection \ufffdrefused\x1b[0m", "healthy (1.5 ms)", "200 degraded",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("lacks %q:\n%s", want, got.stdout)
		}
	}
	var one shown
	got = r.run("services", "show", "user-service.u2", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &one); err != nil || one.ID != "u2" || one.Checkup.Report == nil || one.Checkup.Report.Dependencies["mail"].Error == "" {
		t.Errorf("%v: %+v", err, got)
	}
	var all []shown
	got = r.run("services", "show", "user-service", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &all); err != nil || len(all) != 2 || !all[0].Checkup.well() {
		t.Errorf("%v: %+v", err, got)
	}
	if got := r.run("services", "show", "user-service", "u1", "-o", "yaml"); !strings.Contains(got.stdout, "port: "+strconv.Itoa(all[0].Port)+"\n") {
		t.Errorf("yaml: %+v", got)
	}
	if got := r.run("services", "show", "user-service", "-o", "name"); got.stdout != "user-service.u1\nuser-service.u2\n" {
		t.Errorf("names: %+v", got)
	}
	for args, hint := range map[string]string{
		"user-servic":        "did you mean user-service?",
		"user-service u3":    "did you mean u1 or u2?",
		"user-servic.u1":     "did you mean user-service?",
		"nothing-like-it u1": "keelson services",
	} {
		if got := r.run(append([]string{"services", "show"}, strings.Fields(args)...)...); got.code != exitNotFound || !strings.Contains(got.stderr, hint) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// An instance that can't be reached, has no health check, or whose port another
// one has by now, is shown as such.
func TestShowOfOdds(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	add := func(in registry.Instance) {
		t.Helper()
		if _, err := r.reg.Register(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		r.awaits(in.Name, in.ID, true)
	}
	add(registry.Instance{Name: "odd", ID: "plain", Address: "http://" + l.Addr().String()})
	add(registry.Instance{Name: "odd", ID: "away", Address: "http://127.0.0.1:1", Health: "/health"})
	r.service("user-service", "u1", nil)
	in, _ := r.reg.Get(registry.Key{Service: "user-service", ID: "u1"})
	add(registry.Instance{Name: "odd", ID: "taken", Address: in.Address, Health: "/health"})
	for id, want := range map[string]string{
		"plain": "takes connections", "away": "not reachable from here: connect: connection refused", "taken": "another instance answers there: u1",
	} {
		if got := r.run("services", "show", "odd", id); !strings.Contains(got.stdout, want) || got.code != exitOK {
			t.Errorf("%s lacks %q: %+v", id, want, got)
		}
	}
}

// That a filter leaves nothing does not read as if there were nothing at all.
func TestListOfNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if got := r.run("services"); got.code != exitOK || got.stdout != "" || got.stderr != "No instance is registered.\n" {
		t.Errorf("%+v", got)
	}
	register(t, r.reg, "pay", "p1")
	for _, args := range []string{"list pya", "--tag blue", "--status starting"} {
		got := r.run(append([]string{"services"}, strings.Fields(args)...)...)
		if got.code != exitOK || got.stdout != "" || !strings.Contains(got.stderr, "No such instance") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, id := range []string{"u1", "u2", "u3"} {
		r.service("user-service", id, nil)
	}
	r.service("pay", "p1", nil)
	got := r.run("services", "drain", "user-service", "u1", "--dry-run", "-o", "name")
	if got.code != exitOK || got.stdout != "user-service.u1\n" || !strings.Contains(got.stderr, "dry run") || r.status("user-service", "u1") != health.Healthy {
		t.Errorf("dry run: %+v", got)
	}
	got = r.run("services", "drain", "user-service", "u1", "u2")
	if got.code != exitOK || got.stdout != "" || !strings.Contains(got.stderr, "user-service.u2 is out of rotation") {
		t.Errorf("%+v", got)
	}
	if r.status("user-service", "u1") != health.Draining || r.status("user-service", "u2") != health.Draining {
		t.Error("they are in rotation still")
	}
	if got := r.run("services", "show", "user-service.u1"); !strings.Contains(got.stdout, "drained by hand; itself it says healthy") {
		t.Errorf("who drained it is not said: %+v", got)
	}
	// The last one, and one that is alone, are not drained without a word.
	for _, args := range [][]string{{"user-service.u3"}, {"user-service.u1", "pay.p1"}} {
		got := r.run(append([]string{"services", "drain"}, args...)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, "no instance of") || !strings.Contains(got.stderr, "--yes") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if r.status("user-service", "u3") != health.Healthy || r.status("pay", "p1") != health.Healthy {
		t.Error("one was drained all the same")
	}
	got = r.run("services", "drain", "user-service.u3", "pay.p1", "--yes", "-o", "json")
	var all []registry.Instance
	if err := json.Unmarshal([]byte(got.stdout), &all); err != nil || len(all) != 2 || all[1].Status != health.Draining {
		t.Errorf("%v: %+v", err, got)
	}
	if got := r.run("services", "undrain", "user-service", "u1", "u2", "u3"); got.code != exitOK || !strings.Contains(got.stderr, "user-service.u1 is in rotation, healthy") {
		t.Errorf("undrain: %+v", got)
	}
	if r.status("user-service", "u3") != health.Healthy {
		t.Error("u3 is not back")
	}
	for _, command := range []string{"drain", "undrain", "deregister"} {
		got := r.run("services", command, "user-service.u1", "user-service.u9", "--dry-run")
		if got.code != exitNotFound || !strings.Contains(got.stderr, "did you mean") {
			t.Errorf("%s of an unknown one: %+v", command, got)
		}
	}
	if got := r.run("services", "drain", "user-service.u1", "--timeout", "-1s"); got.code != exitUsage {
		t.Errorf("a timeout of the past: %+v", got)
	}
}

// Drain waits for the gateway, which here goes on with an instance for a while,
// or for ever.
func TestDrainWaitsForTheGateway(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.service("user-service", "u1", nil)
	asked := 0
	ever := false
	g := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
		in := registry.Instance{Name: "user-service", ID: "u1", Status: health.Healthy}
		if asked++; asked > 2 && !ever {
			in.Status = health.Draining
		}
		_ = writeJSON(w, []registry.Instance{in})
	})
	r.system.Gateway.URL = g
	if got := r.run("services", "drain", "user-service.u1", "-y"); got.code != exitOK || asked != 3 {
		t.Errorf("after %d looks: %+v", asked, got)
	}
	ever = true
	got := r.run("services", "drain", "user-service.u1", "-y", "--timeout", "200ms")
	if got.code != exitTimeout || !strings.Contains(got.stderr, "user-service.u1 is still in rotation after 200ms") {
		t.Errorf("%+v", got)
	}
	if got := r.run("services", "drain", "user-service.u1", "-y", "--wait=false"); got.code != exitOK {
		t.Errorf("without waiting: %+v", got)
	}
}

func TestDeregister(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.service("user-service", "u1", nil)
	got := r.run("services", "register", "mailer", "--address", "127.0.0.1", "--port", "2525", "--id", "m1")
	if got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	got = r.run("services", "deregister", "mailer.m1")
	if got.code != exitUsage || !strings.Contains(got.stderr, "no terminal") || !strings.Contains(got.stderr, "--yes") {
		t.Errorf("unasked: %+v", got)
	}
	got = r.run("services", "deregister", "mailer.m1", "--yes")
	if got.code != exitOK || strings.Contains(got.stderr, "warning") || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	r.awaits("mailer", "m1", false)
	got = r.run("services", "deregister", "user-service.u1", "--dry-run")
	if got.code != exitOK || !strings.Contains(got.stderr, "it will register again") || !strings.Contains(got.stderr, "services drain user-service.u1") {
		t.Errorf("one that is alive: %+v", got)
	}
	if got := r.run("services", "deregister", "mailer.m1", "--yes"); got.code != exitNotFound {
		t.Errorf("twice: %+v", got)
	}
}

func TestRegisterPickHeartbeat(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	got := r.run("services", "register", "--name", "mailer", "--address", "http://127.0.0.1:2525", "--tag", "blue", "--tag", "smtp",
		"--metadata", "owner=ops", "--metadata", "a=b=c", "--version", "v3", "--zone", "z1")
	if got.code != exitOK || got.stdout != "mailer.mailer-127-0-0-1-2525\n" || !strings.Contains(got.stderr, "--every 5s") {
		t.Fatalf("%+v", got)
	}
	key := strings.TrimSpace(got.stdout)
	in, ok := r.reg.Get(registry.Key{Service: "mailer", ID: "mailer-127-0-0-1-2525"})
	if !ok || !slices.Equal(in.Tags, []string{"blue", "smtp"}) || in.Metadata["a"] != "b=c" || in.Version != "v3" || in.Zone != "z1" || in.Lease != registry.LeaseHeartbeats {
		t.Errorf("%+v", in)
	}
	if got := r.run("services", "pick", "mailer"); got.stdout != "http://127.0.0.1:2525\n" || got.stderr != "" {
		t.Errorf("pick: %+v", got)
	}
	for format, want := range map[string]string{"name": key, "port": "2525", "yaml": "version: v3", "json": `"version": "v3"`} {
		if got := r.run("services", "pick", "mailer", "-o", format, "--tag", "blue", "--strategy", "round-robin"); !strings.Contains(got.stdout, want) {
			t.Errorf("pick -o %s: %+v", format, got)
		}
	}
	for args, want := range map[string]int{
		"pick mailer --tag green":             exitFailed,
		"pick mailr":                          exitNotFound,
		"pick mailer --strategy luck":         exitUsage,
		"pick Mailer":                         exitUsage,
		"heartbeat " + key:                    exitOK,
		"heartbeat mailer.other":              exitNotFound,
		"heartbeat " + key + " --every 1ns":   exitUsage,
		"register x":                          exitUsage,
		"register":                            exitUsage,
		"register x --name y --address h":     exitUsage,
		"register x --address h --port 0":     exitUsage,
		"register x --address http://h:1/p":   exitUsage,
		"register X --address http://h:1":     exitUsage,
		"register x --address h --metadata m": exitUsage,
	} {
		if got := r.run(append([]string{"services"}, strings.Fields(args)...)...); got.code != want || want != exitOK && got.stderr == "" {
			t.Errorf("%s: %+v, want %d", args, got, want)
		}
	}
	r.service("user-service", "u1", nil)
	if got := r.run("services", "heartbeat", "user-service", "u1"); got.code != exitConflict {
		t.Errorf("heartbeat of one that renews its own lease: %+v", got)
	}
}
