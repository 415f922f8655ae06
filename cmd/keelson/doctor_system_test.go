package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/registry"
)

func TestJudgeManifest(t *testing.T) {
	t.Parallel()
	m := project(t, "version: 1\nservices: {a: {command: [x]}}\ngateway:\n  routes: [{path: /a/*, service: a}, {path: /b/*, service: elsewhere}]\n")
	got := judgeManifest(m, nil)
	expect(t, "good", got[0], fine, "1 service, 2 routes", "")
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	expect(t, "a warning", got[1], doubtful, "elsewhere", "")
	expect(t, "none", judgeManifest(nil, &failure{message: "no keelson.yaml", hint: "write one", after: "version: 1"})[0], doubtful, "no keelson.yaml", "keelson up")
	expect(t, "bad", judgeManifest(nil, &failure{message: "it can't be used", detail: "3:4: routs\n5:6: x"})[0], broken, "can't be used", "3:4: routs; 5:6: x")
	expect(t, "another's", judgeManifest(nil, &failure{message: "belongs to another", hint: "--file x"})[0], broken, "another", "--file x")
}

func TestPortsOf(t *testing.T) {
	t.Parallel()
	list := func(text string) string {
		var all []string
		for _, u := range portsOf(project(t, text)) {
			all = append(all, u.part+" "+u.addr+" "+u.key)
		}
		return strings.Join(all, "\n")
	}
	got := list("version: 1\ngateway: {listen: \"127.0.0.1:4000\"}\nadmin: {listen: \"127.0.0.1:0\"}\nengine: {listen: \"127.0.0.1:4222\"}\nservices:\n  b: {command: [x], port: 4002}\n  a: {command: [x], port: 4001, dependsOn: [b]}\n  c: {command: [x]}\n")
	want := "gateway 127.0.0.1:4000 gateway.listen\nengine 127.0.0.1:4222 engine.listen\nb 127.0.0.1:4002 services.b.port\na 127.0.0.1:4001 services.a.port"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := list("version: 1\nengine: {url: \"nats://127.0.0.1:4222\"}\nservices: {}\n"); strings.Contains(got, "engine") {
		t.Errorf("the port of an engine elsewhere: %s", got)
	}
}

func TestJudgePort(t *testing.T) {
	t.Parallel()
	use := func(change func(*portUse)) finding {
		u := portUse{part: "gateway", addr: "127.0.0.1:3000", key: "gateway.listen"}
		change(&u)
		return judgePort(u)
	}
	nginx := ports.Holder{PID: 42, Command: "nginx"}
	expect(t, "free", use(func(u *portUse) { u.free = true }), fine, "gateway: free", "")
	expect(t, "ours", use(func(u *portUse) { u.holder, u.seen, u.runs, u.ours = nginx, true, true, true }), fine, "nginx (pid 42)", "")
	expect(t, "another's", use(func(u *portUse) { u.holder, u.seen = nginx, true }), broken, "in use by nginx (pid 42)", "kill 42), or set gateway.listen in keelson.yaml")
	expect(t, "another's, while ours runs", use(func(u *portUse) { u.holder, u.seen, u.runs = nginx, true, true }), broken, "nginx", "kill 42")
	expect(t, "free, while ours runs", use(func(u *portUse) { u.free, u.runs = true, true }), doubtful, "nobody listens", "keelson status")
	expect(t, "held by somebody", use(func(*portUse) {}), broken, "can't be seen", "ss -ltnp 'sport = :3000'")
	expect(t, "held, while ours runs", use(func(u *portUse) { u.runs = true }), fine, "held", "")
	expect(t, "not allowed", use(func(u *portUse) { u.err = errors.New("permission denied") }), broken, "permission denied", "gateway.listen")
}

func TestJudgeAdmin(t *testing.T) {
	t.Parallel()
	s := systemLook{base: "http://127.0.0.1:3100", source: "the default"}
	s.Version, s.Registry.Synced = "v1", true
	expect(t, "answers", judgeAdmin(s, nil, true), fine, "version v1", "")
	away := &failure{code: exitUnreachable, message: "no Keelson answers", hint: "start one", detail: "       refused"}
	expect(t, "none, by a guess", judgeAdmin(s, away, false), skipped, "no system runs here", "")
	expect(t, "none, though it runs", judgeAdmin(s, away, true), broken, "no Keelson answers: refused", "start one")
	expect(t, "a stranger, by a guess", judgeAdmin(s, strange(s.base, "answers a page"), false), skipped, "no system runs here", "")
	s.source = "--url"
	expect(t, "none, where one was named", judgeAdmin(s, away, false), broken, "no Keelson answers", "start one")
	expect(t, "no token", judgeAdmin(s, &failure{code: exitAuth, message: "A valid token is needed.", hint: "give a token"}, false), broken, "token", "give a token")
	expect(t, "an unreadable run file", judgeAdmin(systemLook{}, fmt.Errorf("run file: %w", runfile.ErrUnsafe), false), broken, "unsafe", "see what it says")
	s.Registry = console.RegistryState{Synced: true, Error: "disconnected"}
	expect(t, "behind", judgeAdmin(s, nil, true), broken, "not in step with the engine: disconnected", "engine")
}

func TestEngineOf(t *testing.T) {
	t.Parallel()
	none := func(string) string { return "" }
	env := func(k string) string {
		return map[string]string{"KEELSON_ENGINE_URL": "nats://env:1", "KEELSON_ENGINE_CREDENTIALS": "a:b"}[k]
	}
	m := project(t, "version: 1\nengine: {url: \"nats://manifest:1\", credentials: \"c:d\"}\nservices: {}\n")
	run := runfile.File{Engine: runfile.Engine{URL: "nats://run:1", Credentials: "e:f"}}
	for _, tt := range []struct {
		env                    func(string) string
		runs                   bool
		m                      *manifest.Manifest
		url, credentials, from string
	}{
		{env, true, m, "nats://env:1", "a:b", "KEELSON_ENGINE_URL"},
		{none, true, m, "nats://run:1", "e:f", "the run file"},
		{none, false, m, "nats://manifest:1", "c:d", "engine.url in keelson.yaml"},
		{none, false, nil, "", "", ""},
	} {
		cfg, from := engineOf(tt.env, run, tt.runs, tt.m)
		if cfg.URL != tt.url || cfg.Credentials != tt.credentials || from != tt.from {
			t.Errorf("%+v: %+v from %q", tt, cfg, from)
		}
	}
}

func TestJudgeEngine(t *testing.T) {
	t.Parallel()
	const url, from = "nats://127.0.0.1:4222", "the run file"
	expect(t, "well", judgeEngine(url, from, 1500*time.Microsecond, nil), fine, "answers in 1.5 ms", "")
	for err, fix := range map[error]string{
		engine.ErrUnreachable: "start it", engine.ErrCredentials: "KEELSON_ENGINE_CREDENTIALS", engine.ErrTLS: "certificate", engine.ErrNoJetStream: "-js",
		&engine.ConfigError{Field: "URL", Fix: "no"}: "mend it", errors.New("odd"): "log",
	} {
		expect(t, err.Error(), judgeEngine(url, from, 0, fmt.Errorf("connect: %w", err)), broken, err.Error(), fix)
	}
}

// The check of the engine is a real conversation with it.
func TestCheckEngine(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(t.Context(), embedded.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"KEELSON_ENGINE_URL": s.URL(), "KEELSON_ENGINE_CREDENTIALS": s.Credentials()}
	p := &patient{app: &app{env: func(k string) string { return env[k] }}}
	expect(t, "well", p.checkEngine(t.Context())[0], fine, "JetStream answers in", "")
	env["KEELSON_ENGINE_CREDENTIALS"] = "keelson:wrong"
	got := p.checkEngine(t.Context())[0]
	expect(t, "wrong credentials", got, broken, "refused the credentials", "KEELSON_ENGINE_CREDENTIALS")
	if strings.Contains(got.Message+got.Fix, "keelson:wrong") {
		t.Errorf("it tells the credentials: %+v", got)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, "stopped", p.checkEngine(t.Context())[0], broken, "unreachable", "start it")
	expect(t, "not known", (&patient{app: &app{env: func(string) string { return "" }}}).checkEngine(t.Context())[0], skipped, "KEELSON_ENGINE_URL is not set", "")
}

func TestJudgeGateway(t *testing.T) {
	t.Parallel()
	const url = "http://127.0.0.1:3000"
	expect(t, "well", judgeGateway(url, checkup{Reachable: true, Code: 200, ResponseTime: 1})[0], fine, url, "")
	expect(t, "away", judgeGateway(url, checkup{Error: "connection refused"})[0], broken, "does not answer: connection refused", "restart")
	ill := &health.Report{Status: health.Unhealthy, Dependencies: map[string]health.Dependency{
		"engine": {Status: health.Unhealthy, Critical: true, Error: "away"}, "mail": {Status: health.Unhealthy}, "fine": {Status: health.Healthy},
	}}
	got := judgeGateway(url, checkup{Reachable: true, Code: 503, Error: "it answers 503", Report: ill, URL: url + "/health"})
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	expect(t, "ill", got[0], broken, "503", url+"/health")
	expect(t, "critical", got[1], broken, "engine is unhealthy, critical: away", "engine")
	expect(t, "not critical", got[2], doubtful, "mail is unhealthy", "mail")
}

func TestJudgeRotation(t *testing.T) {
	t.Parallel()
	expect(t, "none", judgeRotation(nil)[0], doubtful, "no instance", "services register")
	all := []registry.Instance{{Name: "a", ID: "a1", Status: health.Healthy}, {Name: "a", ID: "a2", Status: health.Degraded}}
	expect(t, "all", judgeRotation(all)[0], fine, "2 instances of 1 service", "")
	all = append(all,
		registry.Instance{Name: "b", ID: "b1", Status: health.Unhealthy, Announced: health.Healthy},
		registry.Instance{Name: "b", ID: "b2", Status: health.Draining, Announced: health.Healthy},
		registry.Instance{Name: "b", ID: "b3", Status: health.Draining},
		registry.Instance{Name: "b", ID: "b4", Status: health.Starting})
	got := judgeRotation(all)
	if len(got) != 4 {
		t.Fatalf("%+v", got)
	}
	expect(t, "unhealthy", got[0], broken, "failed its checks; itself it says healthy", "services show b.b1")
	expect(t, "by hand", got[1], doubtful, "drained by hand", "keelson services undrain b.b2")
	expect(t, "leaving", got[2], doubtful, "draining", "services show b.b3")
	expect(t, "starting", got[3], doubtful, "starting", "services show b.b4")
}

func TestJudgeServices(t *testing.T) {
	t.Parallel()
	all := []registry.Instance{
		{Name: "a", ID: "a1", Status: health.Healthy}, {Name: "a", ID: "a2", Status: health.Healthy},
		{Name: "b", ID: "b1", Status: health.Healthy}, {Name: "b", ID: "b2", Status: health.Unhealthy}, {Name: "b", ID: "b3", Status: health.Healthy},
	}
	said := []checkup{{Reachable: true}, {Reachable: true}, {Error: "timeout"}, {Error: "refused"}, {Reachable: true, Error: "another instance answers there: x"}}
	var asked []shown
	for i, in := range all {
		asked = append(asked, shown{in, said[i]})
	}
	got := judgeServices(asked)
	if len(got) != 4 {
		t.Fatalf("%+v", got)
	}
	expect(t, "well", got[0], fine, "2 instances well", "")
	expect(t, "not from here", got[1], doubtful, "b.b1 can't be reached from here: timeout", "another network")
	expect(t, "gone", got[2], broken, "b.b2 does not answer: refused", "deregister b.b2")
	expect(t, "taken", got[3], broken, "another instance", "log")
}

// A remote system's loopback is not ours.
func TestGatewayOfAnotherMachine(t *testing.T) {
	t.Parallel()
	s := systemLook{base: "http://192.0.2.7:3100"}
	s.Gateway.URL = "http://127.0.0.1:3000"
	p := &patient{system: func() (systemLook, error) { return s, nil }}
	expect(t, "elsewhere", p.checkGateway(t.Context())[0], skipped, "another machine's loopback", "")
}

// Ports are told by who holds them: here this test itself.
func TestCheckPorts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := project(t, "version: 1\ngateway: {listen: \""+l.Addr().String()+"\"}\nadmin: {listen: \"127.0.0.1:0\"}\nservices: {}\n")
	p := &patient{manifest: m}
	if got := p.checkPorts(t.Context()); len(got) != 1 || got[0].Verdict != broken {
		t.Errorf("%+v", got)
	}
	p.runs, p.run.PID = true, os.Getpid()
	if got := p.checkPorts(t.Context()); len(got) != 1 || got[0].Verdict != fine {
		t.Errorf("our own: %+v", got)
	}
}
