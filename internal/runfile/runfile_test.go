//go:build unix

package runfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample() runfile.File {
	at := time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	return runfile.File{
		ID:        process.ID{PID: 4000, Start: "boot/17"},
		StartedAt: at,
		Gateway:   "http://127.0.0.1:3000",
		Admin:     "http://127.0.0.1:3100",
		Engine:    runfile.Engine{URL: "nats://127.0.0.1:4222", Credentials: "up:hush"},
		Children: []runfile.Child{
			{Name: "user-service", Instance: "user-service-1", ID: process.ID{PID: 4001, Start: "boot/18"}, StartedAt: at},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	path := runfile.Path(t.TempDir())
	for _, f := range []runfile.File{sample(), {ID: process.ID{PID: 1}, StartedAt: sample().StartedAt, Children: []runfile.Child{}}} {
		if err := runfile.Write(path, f); err != nil {
			t.Fatal(err)
		}
		got, err := runfile.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, got); diff != "" {
			t.Errorf("read back (-written +read):\n%s", diff)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %04o, want 0600", info.Mode().Perm())
		}
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("temporary files left: %q", left)
	}
}

func TestWireShape(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"pid":4000,"start":"boot/17","startedAt":"2026-11-03T12:00:00Z","gateway":"http://127.0.0.1:3000","admin":"http://127.0.0.1:3100",` +
		`"engine":{"url":"nats://127.0.0.1:4222","credentials":"up:hush"},` +
		`"children":[{"name":"user-service","instance":"user-service-1","pid":4001,"start":"boot/18","startedAt":"2026-11-03T12:00:00Z"}]}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const base = `{"pid":5,"startedAt":"2026-11-03T12:00:00Z"`
	tests := []struct{ name, in, says string }{
		{"nothing", ``, "EOF"},
		{"cut short", base, "unexpected EOF"},
		{"no JSON", `pid: 5`, "invalid character"},
		{"two objects", base + `}{}`, "follows"},
		{"trailing text", base + `} x`, "follows"},
		{"unknown field", base + `,"color":"red"}`, `unknown field "color"`},
		{"unknown field of a child", base + `,"children":[{"nam":"a"}]}`, `unknown field "nam"`},
		{"wrong type", base + `,"gateway":7}`, "gateway"},
		{"no pid", `{"startedAt":"2026-11-03T12:00:00Z"}`, "pid: 0"},
		{"negative pid", `{"pid":-1,"startedAt":"2026-11-03T12:00:00Z"}`, "pid: -1"},
		{"no time", `{"pid":5}`, "startedAt: missing"},
		{"gateway no URL", base + `,"gateway":"localhost:3000"}`, "gateway:"},
		{"admin of another scheme", base + `,"admin":"file:///etc/passwd"}`, "admin:"},
		{"engine of another scheme", base + `,"engine":{"url":"http://x:1"}}`, "engine.url:"},
		{"credentials for nothing", base + `,"engine":{"credentials":"a:b"}}`, "engine.credentials:"},
		{"child without name", base + `,"children":[{"instance":"a","pid":9}]}`, "children[0].name"},
		{"child without instance", base + `,"children":[{"name":"a","pid":9}]}`, "children[0].instance"},
		{"child is everybody", base + `,"children":[{"name":"a","instance":"a","pid":-1}]}`, "children[0].pid"},
		{"child is init", base + `,"children":[{"name":"a","instance":"a","pid":1}]}`, "children[0].pid"},
		{"too large", base + `,"gateway":"` + strings.Repeat("x", runfile.MaxSize) + `"}`, "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := runfile.Decode(strings.NewReader(tt.in))
			if !errors.Is(err, runfile.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want ErrInvalid with %q", err, tt.says)
			}
		})
	}
}

func TestWriteRefusesWhatReadWould(t *testing.T) {
	t.Parallel()
	path := runfile.Path(t.TempDir())
	f := sample()
	f.Children[0].PID = 0
	if err := runfile.Write(path, f); !errors.Is(err, runfile.ErrInvalid) {
		t.Errorf("error %v, want ErrInvalid", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused file was written: %v", err)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	open, secret := sample(), sample()
	open.Engine.Credentials = ""
	tests := []struct {
		name  string
		file  runfile.File
		mode  fs.FileMode
		fails bool
	}{
		{"secret, private", secret, 0o600, false},
		{"secret, readable by the group", secret, 0o640, true},
		{"secret, readable by all", secret, 0o604, true},
		{"open, readable by all", open, 0o644, false},
		{"open, writable by the group", open, 0o660, true},
		{"open, writable by all", open, 0o602, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := runfile.Path(t.TempDir())
			if err := runfile.Write(path, tt.file); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := runfile.Read(path)
			if errors.Is(err, runfile.ErrUnsafe) != tt.fails || (err != nil) != tt.fails {
				t.Errorf("mode %04o: %v, want refused: %t", tt.mode, err, tt.fails)
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("the error shows the credentials: %v", err)
			}
		})
	}
}

func TestAnotherOwner(t *testing.T) {
	t.Parallel()
	path := "/etc/passwd" // root's
	if os.Geteuid() == 0 {
		path = runfile.Path(t.TempDir())
		if err := runfile.Write(path, sample()); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := runfile.Read(path); !errors.Is(err, runfile.ErrUnsafe) || !strings.Contains(err.Error(), "another user") {
		t.Errorf("error %v, want ErrUnsafe because of the owner", err)
	}
}

func TestNotARegularFile(t *testing.T) {
	t.Parallel()
	make := map[string]func(path string) error{
		"link": func(path string) error {
			target := filepath.Join(filepath.Dir(path), "target")
			if err := runfile.Write(target, sample()); err != nil {
				return err
			}
			return os.Symlink(target, path)
		},
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	}
	for name, f := range make {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), runfile.Name)
			if err := f(path); err != nil {
				t.Fatal(err)
			}
			if _, err := runfile.Read(path); !errors.Is(err, runfile.ErrUnsafe) {
				t.Errorf("error %v, want ErrUnsafe", err)
			}
		})
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b", "c")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := runfile.Find(deep); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none there: %v, want fs.ErrNotExist", err)
	}
	for _, dir := range []string{root, filepath.Join(root, "a")} { // the nearest wins
		want := runfile.Path(dir)
		if err := runfile.Write(want, sample()); err != nil {
			t.Fatal(err)
		}
		if got, err := runfile.Find(deep); err != nil || got != want {
			t.Errorf("Find = %q, %v; want %q", got, err, want)
		}
	}
	// A plain file where the folder should be is passed over.
	if err := os.WriteFile(filepath.Join(deep, runfile.Folder), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := runfile.Find(deep); err != nil || got != runfile.Path(filepath.Join(root, "a")) {
		t.Errorf("Find past a plain file = %q, %v", got, err)
	}
}

func TestReadersNeverSeeAPart(t *testing.T) {
	t.Parallel()
	path := runfile.Path(t.TempDir())
	if err := runfile.Write(path, sample()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				if _, err := runfile.Read(path); err != nil {
					t.Errorf("read during a replacement: %v", err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for n := range 25 {
		f := sample()
		for range n * 10 {
			f.Children = append(f.Children, f.Children[0])
		}
		if err := runfile.Write(path, f); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}

func TestRemove(t *testing.T) {
	t.Parallel()
	path := runfile.Path(t.TempDir())
	mine := sample()
	if err := runfile.Remove(path, mine.ID); err != nil {
		t.Errorf("remove none: %v", err)
	}
	if err := runfile.Write(path, mine); err != nil {
		t.Fatal(err)
	}
	if err := runfile.Remove(path, process.ID{PID: mine.PID, Start: "boot/99"}); err != nil {
		t.Error(err)
	}
	if _, err := runfile.Read(path); err != nil {
		t.Errorf("another process's file was removed: %v", err)
	}
	if err := runfile.Remove(path, mine.ID); err != nil {
		t.Error(err)
	}
	if _, err := runfile.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v, want fs.ErrNotExist", err)
	}
}

func TestCredentialsAreNotShown(t *testing.T) {
	t.Parallel()
	f := sample()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "engine", f.Engine)
	for _, s := range []string{log.String(), fmt.Sprint(f), fmt.Sprintf("%+v", f), fmt.Sprintf("%#v", f)} {
		if strings.Contains(s, "hush") {
			t.Errorf("shows the password: %s", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"pid":1,"startedAt":"2026-11-03T12:00:00Z","children":null}`))
	f.Add([]byte(`{"pid":1e3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := runfile.Decode(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, runfile.ErrInvalid) {
				t.Errorf("error %v is no ErrInvalid", err)
			}
			return
		}
		for _, c := range first.Children {
			if c.PID < 2 {
				t.Errorf("a child with pid %d got through", c.PID)
			}
		}
		// What was understood can be written and means the same.
		again, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := runfile.Decode(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("decode what was decoded: %v", err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Error(diff)
		}
	})
}

func Example() {
	dir, err := os.MkdirTemp("", "project")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	self, _ := process.Self()
	_ = runfile.Write(runfile.Path(dir), runfile.File{
		ID:        self,
		StartedAt: time.Now(),
		Admin:     "http://127.0.0.1:3100",
	})

	// Another command, started in a folder below.
	path, _ := runfile.Find(filepath.Join(dir, "examples", "shop"))
	f, _ := runfile.Read(path)
	fmt.Println(f.Admin, f.Alive())
	// Output: http://127.0.0.1:3100 true
}
