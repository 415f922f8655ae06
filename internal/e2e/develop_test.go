//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// greeter is a program without any dependency, so that it builds quickly. It
// registers itself over HTTP.
const greeter = `package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"example.test/greeter/lib"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		panic(err)
	}
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /greet", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", lib.Say(), os.Getenv("KEELSON_INSTANCE"), os.Getenv("GREETING"))
	})
	s := &http.Server{}
	go s.Serve(l)
	body := fmt.Sprintf("{\"name\": %q, \"id\": %q, \"address\": \"http://%s\", \"health\": \"/health\"}", os.Getenv("KEELSON_SERVICE"), os.Getenv("KEELSON_INSTANCE"), l.Addr())
	resp, err := http.Post(os.Getenv("KEELSON_ADMIN_URL")+"/v1/services", "application/json", strings.NewReader(body))
	if err != nil || resp.StatusCode/100 != 2 {
		panic(fmt.Sprint(resp, err))
	}
	fmt.Println("serving", lib.Say())
	<-ctx.Done()
	s.Shutdown(context.Background())
}
`

func say(expression string) string {
	return "package lib\n\nfunc Say() string { return " + expression + " }\n"
}

// developing is a project with the greeter's source.
func developing(t *testing.T, instances int) *project {
	t.Helper()
	p := newProject(t)
	for _, dir := range []string{"cmd/greeter", "lib"} {
		if err := os.MkdirAll(filepath.Join(p.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.write("go.mod", "module example.test/greeter\n\ngo 1.26.0\n")
	p.write("cmd/greeter/main.go", greeter)
	p.write("lib/lib.go", say(`"one"`))
	p.manifest("    - {path: /greet, service: greeter, public: true}\n", fmt.Sprintf("  greeter: {package: ./cmd/greeter, instances: %d}\n", instances))
	return p
}

// greets is a request to the greeter.
func (p *project) greets() error {
	r, err := p.send("GET", "/greet", "")
	if err == nil && r.status != 200 {
		err = fmt.Errorf("%d %s", r.status, r.body)
	}
	return err
}

// saying waits until all of the instances say something.
func (p *project) saying(what string, instances ...string) {
	p.t.Helper()
	p.await(fmt.Sprintf("%q from %s", what, instances), patience, func() error {
		for range 4 * len(instances) {
			r, err := p.send("GET", "/greet", "")
			if err != nil || r.status != 200 {
				return fmt.Errorf("%d %s %v", r.status, r.body, err)
			}
			if words := strings.Fields(r.body + " -"); words[0] != what {
				return fmt.Errorf("%s says %s", words[1], words[0])
			}
		}
		return nil
	})
}

// What is saved is served, and nobody notices but by the answers.
func TestSavedSourceIsServed(t *testing.T) {
	t.Parallel()
	p := developing(t, 2)
	up := p.up().ready()
	up.says("watching the source in 2 folders")
	p.saying("one", "greeter-1", "greeter-2")
	began := p.children()

	readers := startLoad(4, p.greets)
	saved := time.Now()
	p.write("lib/lib.go", say(`"two"`))
	p.await("the first new answer", patience, func() error {
		r, err := p.send("GET", "/greet", "")
		if err == nil && !strings.HasPrefix(r.body, "two ") {
			err = fmt.Errorf("%s", r.body)
		}
		return err
	})
	t.Logf("serving %v after the file was saved", time.Since(saved).Round(time.Millisecond))
	p.saying("two", "greeter-1", "greeter-2")
	t.Logf("nothing else %v after it", time.Since(saved).Round(time.Millisecond))
	up.says("built ./cmd/greeter in ")
	up.says("lib.go)") // alone, unless the others were written just before the start
	up.says("greeter serves the change, ")

	// A mistake is told, and changes nothing.
	running := p.children()
	if running["greeter-1"] == began["greeter-1"] || running["greeter-2"] == began["greeter-2"] {
		t.Errorf("not all were restarted: %v, %v", began, running)
	}
	p.write("lib/lib.go", say(`3`))
	up.says("./cmd/greeter does not build; the one before it runs on:")
	up.says("lib/lib.go:3:28: cannot use 3")
	p.write("lib/lib.go", say(`"two"`))
	up.says("builds again, and is what runs already")
	// What builds, but does not come up, takes one instance at most.
	p.write("lib/lib.go", strings.Replace(say(`"three"`), "package lib\n", "package lib\n\nimport \"os\"\n\nfunc init() { os.Exit(7) }\n", 1))
	up.says("the other instances of greeter run what they did before until it is up")
	readers.more(p, 200)
	p.write("lib/lib.go", say(`"four"`))
	p.saying("four", "greeter-1", "greeter-2")
	readers.flawless(p, "GETs over a change, a mistake, a crash and a mended one")

	up.signal(syscall.SIGINT)
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
}

// Children and `up` itself die while source changes: what is saved is served in
// the end, and no process is left.
func TestSourceChangesWhileThingsDie(t *testing.T) {
	t.Parallel()
	p := developing(t, 2)
	up := p.up().ready()
	for n := range 3 {
		p.write("lib/lib.go", say(fmt.Sprintf("\"n%d\"", n)))
		p.kill(p.child("greeter-1"), syscall.SIGKILL)
		p.kill(p.child("greeter-2"), syscall.SIGKILL)
	}
	p.saying("n2", "greeter-1", "greeter-2")
	p.write("lib/lib.go", say(`"last"`))
	<-time.After(300 * time.Millisecond) // a build is likely under way
	up.note()
	if err := syscall.Kill(up.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	up.exit(patience)
	up.gone(patience)
	again := p.up().ready()
	p.saying("last", "greeter-1", "greeter-2")
	again.signal(syscall.SIGINT)
	if code := again.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, again)
	}
	again.gone(patience)
}

// The commands that steer a running system, without a watch on the source.
func TestSteering(t *testing.T) {
	t.Parallel()
	p := developing(t, 2)
	p.write(".env", "GREETING=\"from env\"\nPORT=1\n")
	up := p.up("--no-watch").ready()
	up.says("PORT (" + filepath.Join(p.dir, ".env") + ":2) is not used")
	greeting := func() string {
		r, err := p.send("GET", "/greet", "")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(r.body, " greeter-")
		return rest[2:]
	}
	if got := greeting(); got != "from env" {
		t.Errorf("GREETING is %q", got)
	}
	p.write(".env.local", "GREETING=local\n")
	up.says("counts for each service from its next start")
	p.write("lib/lib.go", say(`"two"`))
	p.saying("one", "greeter-1", "greeter-2")

	// A restart builds what nobody watches, and takes what .env says.
	readers := startLoad(4, p.greets)
	got := p.keelson("restart", "greeter")
	if got.code != 0 || !strings.Contains(got.stderr, "greeter is in rotation again (2 instances") || strings.Count(got.stdout, "healthy") != 2 {
		t.Errorf("restart: %s", got)
	}
	p.saying("two", "greeter-1", "greeter-2")
	if got := greeting(); got != "local" {
		t.Errorf("after the restart GREETING is %q", got)
	}
	// What can't be started is no reason to stop the rest.
	p.write("lib/lib.go", "package lib\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc init() { fmt.Println(\"no way\"); os.Exit(7) }\n\nfunc Say() string { return \"\" }\n")
	got = p.keelson("restart", "--all")
	if got.code != 1 || !strings.Contains(got.stderr, "exit status 7") || !strings.Contains(got.stderr, "no way") {
		t.Errorf("restart of what can't start: %s", got)
	}
	p.write("lib/lib.go", "package lib\n\nfunc Say() string { return 4 }\n")
	if got = p.keelson("restart", "greeter"); got.code != 1 || !strings.Contains(got.stderr, "lib/lib.go:3:28: cannot use 4") {
		t.Errorf("restart of what does not build: %s", got)
	}
	p.write(".env.local", "GREETING='hunter2\n")
	if got = p.keelson("restart", "greeter"); got.code != 1 || !strings.Contains(got.stderr, "this quote is never closed") || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("restart with a bad .env: %s", got)
	}
	p.write(".env.local", "")
	p.write("lib/lib.go", say(`"three"`))
	if got = p.keelson("restart", "greeter"); got.code != 0 {
		t.Errorf("restart: %s", got)
	}
	p.saying("three", "greeter-1", "greeter-2")
	readers.flawless(p, "GETs over four restarts, two of which fail")

	got = p.keelson("logs", "greeter", "--instance", "greeter-2")
	if want := "serving one\nserving two\nserving three\n"; got.code != 0 || got.stdout != want {
		t.Errorf("logs: %s, want %q", got, want)
	}
	got = p.keelson("logs", "-n", "1", "-o", "json")
	if got.code != 0 || !strings.Contains(got.stdout, `"text":"serving three"`) {
		t.Errorf("logs as JSON: %s", got)
	}
	follow := p.start(p.command(t.Context(), keelson, "logs", "-f", "-n", "1"))
	p.await("the last line", patience, func() error { return contains(follow.out.String(), "serving three") })

	got = p.keelson("down")
	if got.code != 0 || !strings.Contains(got.stderr, "it has stopped after") {
		t.Errorf("down: %s", got)
	}
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
	if got = p.keelson("down"); got.code != 0 || !strings.Contains(got.stderr, "nothing runs") {
		t.Errorf("a second down: %s", got)
	}
	// Who follows finds the next run.
	follow.says("connecting again")
	next := p.up("--no-watch", "-o", "json").ready()
	follow.says("connected again")
	p.await("the new lines", patience, func() error {
		if n := strings.Count(follow.out.String(), "greeter#2 │ serving three"); n != 1 && n != 2 {
			return fmt.Errorf("%d of the second instance", n)
		}
		return contains(next.out.String(), `"event":"state","service":"greeter","instance":"greeter-2","state":"healthy"`)
	})
	follow.signal(syscall.SIGINT)
	if code := follow.exit(patience); code != 0 {
		t.Errorf("logs -f: exit code %d for Ctrl-C\n%s", code, follow)
	}
	next.signal(syscall.SIGTERM)
	if code := next.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, next)
	}
}

func contains(text, part string) error {
	if strings.Contains(text, part) {
		return nil
	}
	return fmt.Errorf("no %q in %q", part, text)
}

// A bad .env stops `up` before anything runs.
func TestBadVariables(t *testing.T) {
	t.Parallel()
	p := developing(t, 1)
	p.write(".env", "A=1\nhunter2\n")
	got := p.keelson("up")
	if got.code != 2 || !strings.Contains(got.stderr, filepath.Join(p.dir, ".env")+":2:1: ") || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("%s", got)
	}
	if got := p.keelson("up", "-o", "json"); got.code != 2 || !strings.HasPrefix(got.stderr, `{"code":"usage"`) {
		t.Errorf("%s", got)
	}
}
