package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/runfile"
)

// expect compares a finding: its verdict, and what its message and fix say.
func expect(t *testing.T, name string, got finding, want verdict, message, fix string) {
	t.Helper()
	if got.Verdict != want || !strings.Contains(got.Message, message) || !strings.Contains(got.Fix, fix) || got.Check == "" {
		t.Errorf("%s: %+v, want %s, %q and %q", name, got, want, message, fix)
	}
	if (got.Verdict == broken || got.Verdict == doubtful) && got.Fix == "" {
		t.Errorf("%s: %+v has no fix", name, got)
	}
}

func TestJudgeSpace(t *testing.T) {
	t.Parallel()
	expect(t, "plenty", judgeSpace("/x", 5<<30), fine, "5.0 GiB is free where /x is", "")
	expect(t, "exactly enough", judgeSpace("/x", 1<<30), fine, "1.0 GiB", "")
	expect(t, "little", judgeSpace("/x", 1<<30-1), doubtful, "only 1024.0 MiB", "make room")
	expect(t, "hardly any", judgeSpace("/x", 100<<20-1), broken, "only", "make room")
	expect(t, "none", judgeSpace("/x", 0), broken, "only 0 B", "make room")
	expect(t, "many inodes", judgeInodes("/x", 1e6, 2e6), fine, "1000000", "")
	expect(t, "few inodes", judgeInodes("/x", 9_999, 2e6), doubtful, "only 9999", "df -i /x")
	expect(t, "no inodes", judgeInodes("/x", 0, 2e6), broken, "only 0", "df -i /x")
	expect(t, "no such thing", judgeInodes("/x", 0, 0), fine, "no limit", "")
}

func TestJudgeFiles(t *testing.T) {
	t.Parallel()
	expect(t, "enough", judgeFiles(1024), fine, "1024", "")
	expect(t, "few", judgeFiles(1023), doubtful, "only 1023", "ulimit -n 65536")
	expect(t, "too few", judgeFiles(255), broken, "only 255", "LimitNOFILE")
	expect(t, "unlimited", judgeFiles(1<<64-1), fine, "as many", "")
}

func TestJudgeGo(t *testing.T) {
	t.Parallel()
	missing := goLook{packages: 1, err: &exec.Error{Name: "go", Err: exec.ErrNotFound}}
	expect(t, "missing", judgeGo(missing), broken, "to build 1 service", "https://go.dev/dl/")
	missing.packages = 2
	expect(t, "missing for two", judgeGo(missing), broken, "to build 2 services", "go.dev")
	missing.packages = 0
	expect(t, "missing, not needed", judgeGo(missing), fine, "no service of the manifest needs it", "")
	expect(t, "broken", judgeGo(goLook{packages: 1, err: errors.New("exit status 2")}), broken, "does not work: exit status 2", "install")
	expect(t, "right", judgeGo(goLook{version: "go1.26.0", packages: 1}), fine, "go1.26.0", "")
	expect(t, "later", judgeGo(goLook{version: "go1.30rc1", packages: 1}), fine, "go1.30rc1", "")
	expect(t, "in development", judgeGo(goLook{version: "devel go1.27-1a2b3c4d Mon", packages: 1}), fine, "go1.27", "")
	expect(t, "unknown", judgeGo(goLook{version: "gccgo", packages: 1}), doubtful, "gccgo", "install")
	expect(t, "old", judgeGo(goLook{version: "go1.25.9", toolchain: "local", packages: 1}), broken, "go1.25.9 is too old", "1.26")
	expect(t, "old, not needed", judgeGo(goLook{version: "go1.25.9", toolchain: "local"}), doubtful, "too old", "1.26")
	expect(t, "fetches", judgeGo(goLook{version: "go1.24.1", toolchain: "auto", packages: 1}), doubtful, "fetches a later one", "1.26")
	expect(t, "can't fetch", judgeGo(goLook{version: "go1.20", toolchain: "auto", packages: 1}), broken, "too old", "1.26")
}

func TestJudgeClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	expect(t, "synchronized", judgeClock(clockLook{now: now, known: true, synced: true}), fine, "synchronized", "")
	expect(t, "nobody tells", judgeClock(clockLook{now: now}), fine, "2027", "")
	expect(t, "free running", judgeClock(clockLook{now: now, known: true}), doubtful, "not synchronized", "timedatectl")
	expect(t, "1970", judgeClock(clockLook{now: time.Unix(0, 0)}), broken, "can't be", "timedatectl")
	expect(t, "far future", judgeClock(clockLook{now: now.AddDate(200, 0, 0)}), broken, "can't be", "timedatectl")
	compared := clockLook{now: now, compared: true, comparedWith: "http://there"}
	expect(t, "the same", judgeClock(compared), fine, "same as that of http://there", "")
	compared.skew = -3 * time.Second
	expect(t, "a little off", judgeClock(compared), doubtful, "differs by 3s", "timedatectl")
	compared.skew = time.Minute
	expect(t, "far off", judgeClock(compared), broken, "tokens are refused", "timedatectl")
	expect(t, "set back", judgeClock(clockLook{now: now, began: now.Add(time.Hour)}), doubtful, "set back", "timedatectl")
}

func TestSkew(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return time.UnixMilli(1_000_000_000_000 + int64(ms)) }
	for _, tt := range []struct {
		asked, answered, date int // ms; date is in whole seconds
		want                  time.Duration
	}{
		{100, 200, 0, 0}, {999, 1001, 0, 0}, {999, 1001, 1000, 0}, {0, 5000, 3000, 0},
		{100, 200, 5000, 4800 * time.Millisecond}, {5500, 5600, 0, -4500 * time.Millisecond},
	} {
		if got := skew(at(tt.asked), at(tt.answered), at(tt.date)); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestJudgeFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	judge := func() finding {
		info, err := os.Lstat(path)
		return judgeFolder(path, info, err, os.Geteuid())
	}
	expect(t, "none", judge(), fine, "not there yet", "")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, "private", judge(), fine, "yours alone", "")
	for mode, want := range map[fs.FileMode]verdict{0o755: doubtful, 0o750: doubtful, 0o770: broken, 0o777: broken} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		expect(t, mode.String(), judge(), want, "others", "chmod 700 "+path)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "another's", judgeFolder(path, info, nil, os.Geteuid()+1), broken, "another user", "chown")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, path); err != nil {
		t.Fatal(err)
	}
	expect(t, "a link", judge(), doubtful, "symbolic link", "folder")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "a file", judge(), broken, "no folder", "move")
	expect(t, "unreadable", judgeFolder(path, nil, fs.ErrPermission, 0), broken, "permission", "folders above")
}

// A manifest that was named and is not there is a failure that says what to do.
func TestJudgeManifestThatIsNotThere(t *testing.T) {
	t.Parallel()
	expect(t, "unreadable", judgeManifest(nil, fs.ErrNotExist)[0], broken, "not exist", "--file")
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	p := &patient{dir: t.TempDir()}
	path := filepath.Join(p.folder(), "dev.key")
	expect(t, "none", p.checkKey(t.Context())[0], fine, "none yet", "")
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatal("looking for the key has made it")
	}
	if err := os.MkdirAll(p.folder(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "no key", p.checkKey(t.Context())[0], broken, "not a PKCS #8", "delete it")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, "open to others", p.checkKey(t.Context())[0], broken, "0644", "chmod 600 "+path)
	expect(t, "another's", judgeKey(path, fs.ErrPermission), broken, "permission", "run as the user")
	expect(t, "good", judgeKey(path, nil), fine, "yours alone", "")
}

func TestJudgeLock(t *testing.T) {
	t.Parallel()
	run := runfile.File{}
	run.PID = 42
	expect(t, "nobody", judgeLock(lockLook{}), fine, "nothing runs here", "")
	expect(t, "runs", judgeLock(lockLook{held: true, holder: "42 keelson up", run: run, runs: true}), fine, "`keelson up` (pid 42) runs here", "")
	expect(t, "starting", judgeLock(lockLook{held: true, holder: "43"}), doubtful, "pid 43", "kill 43")
	expect(t, "nameless", judgeLock(lockLook{held: true}), doubtful, "pid unknown", "kill PID")
	expect(t, "lock lost", judgeLock(lockLook{run: run, runs: true}), doubtful, "pid 42 runs without the lock", "restart")
	expect(t, "killed", judgeLock(lockLook{run: run}), fine, "pid 42) was killed", "")
	expect(t, "killed, left some", judgeLock(lockLook{run: run, left: []int{7, 8}}), doubtful, "[7 8]", "keelson up")
	expect(t, "bad run file", judgeLock(lockLook{err: runfile.ErrUnsafe}), broken, "unsafe", "remove")
}

func TestLockHolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, runfile.Folder, "lock")
	if held, _, err := lockHolder(path); held || err != nil {
		t.Errorf("no lock: %v, %v", held, err)
	}
	w, err := openWorkspace(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	held, holder, err := lockHolder(path)
	if !held || !strings.HasPrefix(holder, strconv.Itoa(os.Getpid())) || err != nil {
		t.Errorf("held by us: %v, %q, %v", held, holder, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if held, _, err := lockHolder(path); held || err != nil {
		t.Errorf("given back: %v, %v", held, err)
	}
}

// Whatever a check is doing, the others' findings are shown in order, each as
// soon as those before it are.
func TestExamine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		one := func(name string, after time.Duration) check {
			return check{name, func(ctx context.Context) []finding {
				select {
				case <-time.After(after):
				case <-ctx.Done():
					return []finding{{name, broken, "cut off", "wait"}}
				}
				return []finding{{name, fine, "", ""}}
			}}
		}
		checks := []check{
			one("a", time.Second), one("b", 0), one("slow", time.Hour), one("c", 0),
			{"stuck", func(context.Context) []finding { <-release; return nil }}, one("d", 0), one("e", 2*time.Second),
		}
		began := time.Now()
		var got []string
		err := examine(t.Context(), checks, 5*time.Second, func(all []finding) error {
			for _, f := range all {
				got = append(got, f.Check+" "+string(f.Verdict)+" "+time.Since(began).String())
			}
			return nil
		})
		want := []string{"a ok 1s", "b ok 1s", "slow fail 5s", "c ok 5s", "stuck fail 5.5s", "d ok 5.5s", "e ok 5.5s"}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		close(release)

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err = examine(ctx, checks[2:3], 5*time.Second, func([]finding) error { t.Error("something is shown after Ctrl-C"); return nil })
		if f, ok := errors.AsType[*failure](err); !ok || f.code != exitInterrupted {
			t.Errorf("after Ctrl-C: %v", err)
		}
	})
}

// Without anything running, in an empty folder, nothing fails.
func TestDoctorOfNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	got := keelson(t, nil, "doctor", "-o", "json")
	var d diagnosis
	if err := json.Unmarshal([]byte(got.stdout), &d); err != nil || got.stderr != "" {
		t.Fatalf("%v: %+v", err, got)
	}
	seen := map[string]finding{}
	for _, f := range d.Checks {
		seen[f.Check] = f
	}
	expect(t, "manifest", seen["manifest"], doubtful, "no keelson.yaml", "keelson up")
	expect(t, "ports", seen["ports"], skipped, "without a manifest", "")
	expect(t, "working folder", seen["working folder"], fine, "not there yet", "")
	expect(t, "engine", seen["engine"], skipped, "KEELSON_ENGINE_URL is not set", "")
}

func TestDoctorOfASystem(t *testing.T) {
	t.Chdir(t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(manifest.Name, []byte("version: 1\ngateway: {listen: \""+l.Addr().String()+"\"}\nadmin: {listen: \"127.0.0.1:0\"}\nservices: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *console.Config) { c.Processes = nil })
	pay := health.Healthy
	r.service("user-service", "u1", nil)
	p1 := r.service("pay", "p1", func() health.Report {
		return health.Report{Status: pay, Dependencies: map[string]health.Dependency{"bank": {Status: health.Unhealthy, Critical: true, Error: "no route"}}}
	})
	got := r.run("doctor", "--color", "never")
	// The port of the manifest is held by this very test.
	if got.code != exitFailed || !strings.Contains(got.stdout, "is in use by") || !strings.Contains(got.stdout, "fix: stop it (kill ") {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"ok   user-service         1 instance well", "fail pay                  pay.p1: bank is unhealthy, critical: no route", "ok   rotation             2 instances of 2 services, all in rotation", "skip gateway"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("lacks %q:\n%s", want, got.stdout)
		}
	}
	l.Close()
	pay = health.Unhealthy
	if err := p1.SetStatus(t.Context(), health.Unhealthy); err != nil {
		t.Fatal(err)
	}
	eventually(t, "pay unhealthy", func() bool { return r.status("pay", "p1") == health.Unhealthy })
	if got := r.run("services", "drain", "user-service.u1", "--yes"); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	got = r.run("doctor")
	for _, want := range []string{"fail rotation             pay.p1 is unhealthy", "warn rotation             user-service.u1 is draining", "fix: keelson services undrain user-service.u1", "gateway: free"} {
		if !strings.Contains(got.stdout, want) || got.code != exitFailed {
			t.Errorf("lacks %q:\n%s", want, got.stdout)
		}
	}
}
