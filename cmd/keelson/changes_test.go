package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bench is a rebuilder at work in a module of its own.
type bench struct {
	t          *testing.T
	dir        string
	program    *program
	stderr     *buffer
	installed  atomic.Int64
	restarting atomic.Bool
}

func newBench(t *testing.T, files map[string]string) *bench {
	t.Helper()
	base := map[string]string{
		"go.mod":     "module example.test/shop\n\ngo 1.26.0\n",
		"main.go":    "package main\n\nimport \"example.test/shop/lib\"\n\nfunc main() { println(lib.Say()) }\n",
		"lib/lib.go": say("one"),
	}
	for name, text := range files {
		base[name] = text
	}
	dir := writeFiles(t, t.TempDir(), base)
	b := &bench{t: t, dir: dir, program: newProgram(".", dir, filepath.Join(dir, ".keelson", "bin"))}
	out, _, stderr := testPrinter(t)
	b.stderr = stderr
	if changed, err := b.program.build(t.Context()); !changed || err != nil {
		t.Fatal(changed, err)
	}
	r := &rebuilder{
		dir: dir, programs: []*program{b.program}, out: out,
		installed:  func(*program, time.Time) { b.installed.Add(1) },
		restarting: b.restarting.Load,
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx, time.Now()) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	b.says("watching the source in")
	return b
}

func say(what string) string {
	return fmt.Sprintf("package lib\n\nfunc Say() string { return %q }\n", what)
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	writeFiles(b.t, b.dir, map[string]string{name: text})
}

func (b *bench) says(text string) {
	b.t.Helper()
	eventually(b.t, text, func() bool { return strings.Contains(b.stderr.String(), text) })
}

// runs waits until the program says something.
func (b *bench) runs(want string) {
	b.t.Helper()
	var got string
	eventually(b.t, fmt.Sprintf("a program that says %q", want), func() bool {
		out, err := exec.CommandContext(b.t.Context(), b.program.path).CombinedOutput()
		if err != nil {
			b.t.Fatalf("the program can't be run: %v\n%s", err, out)
		}
		got = strings.TrimSpace(string(out))
		return got == want
	})
}

// settled waits until nothing more comes of what was done: a build that it had
// led to would be over, since one that follows is.
func (b *bench) settled(marker string) {
	b.t.Helper()
	b.write("marker.go", "package main\n\nfunc init() { println(\""+marker+"\") }\n")
	eventually(b.t, marker, func() bool {
		out, err := exec.CommandContext(b.t.Context(), b.program.path).CombinedOutput()
		return err == nil && strings.Contains(string(out), marker)
	})
}

func TestChangesAreBuilt(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.runs("one")
	b.write("lib/lib.go", say("two"))
	b.runs("two")
	b.says("(lib.go)")

	// What does not build leaves the program alone, and says why.
	b.write("lib/lib.go", "package lib\n\nfunc Say() string { return 3 }\n")
	b.says(". does not build; the one before it runs on:\n  # example.test/shop/lib")
	b.says("cannot use 3")
	b.runs("two")
	b.write("lib/lib.go", say("two"))
	b.says("builds again, and is what runs already")
	if n := b.installed.Load(); n != 1 {
		t.Errorf("%d programs were installed, want 1", n)
	}

	// As editors save: a new file in the place of the old one.
	if err := os.Rename(filepath.Join(b.dir, "lib/lib.go"), filepath.Join(b.dir, "lib/lib.go~")); err != nil {
		t.Fatal(err)
	}
	b.write("lib/.lib.go.new", say("three"))
	if err := os.Rename(filepath.Join(b.dir, "lib/.lib.go.new"), filepath.Join(b.dir, "lib/lib.go")); err != nil {
		t.Fatal(err)
	}
	b.runs("three")
}

func TestWhatChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	now := time.Now()
	if err := os.Chtimes(filepath.Join(b.dir, "lib/lib.go"), now, now); err != nil {
		t.Fatal(err)
	}
	b.write("lib/lib_test.go", "package lib\n\nfunc broken")
	b.write("lib/.#lib.go", "x")
	b.write("README.md", "x")
	b.write(".keelson/data/users.db", "x")
	b.write("lib/users.db", "x")
	b.settled("first")
	b.says("(marker.go)")             // and nothing else in this batch
	b.write("lib/lib.go", say("one")) // saved as it was
	b.settled("second")
	eventually(t, "the marker's program", func() bool { return b.installed.Load() >= 2 })
	if n := b.installed.Load(); n > 2 {
		t.Errorf("%d programs, want only those of the markers:\n%s", n, b.stderr)
	}
}

func TestFoldersComeAndGo(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"page.go":         "package main\n\nimport \"embed\"\n\n//go:embed pages\nvar pages embed.FS\n\nfunc init() {\n\tb, _ := pages.ReadFile(\"pages/new/a.txt\")\n\tprintln(string(b))\n}\n",
		"pages/index.txt": "index",
	})
	b.runs("one") // after an empty line
	// A package in a folder that was not there.
	b.write("extra/deep/d.go", "package deep\n\nconst D = \"deep\"\n")
	b.write("main.go", "package main\n\nimport (\n\t\"example.test/shop/extra/deep\"\n\t\"example.test/shop/lib\"\n)\n\nfunc main() { println(lib.Say(), deep.D) }\n")
	b.runs("one deep")
	b.write("extra/deep/d.go", "package deep\n\nconst D = \"deeper\"\n")
	b.runs("one deeper")
	// Gone, and back with other content.
	if err := os.Rename(filepath.Join(b.dir, "extra"), filepath.Join(b.dir, ".away")); err != nil {
		t.Fatal(err)
	}
	b.says("does not build")
	b.write(".away/deep/d.go", "package deep\n\nconst D = \"deepest\"\n") // where the old watch would be
	if err := os.Rename(filepath.Join(b.dir, ".away"), filepath.Join(b.dir, "extra")); err != nil {
		t.Fatal(err)
	}
	b.runs("one deepest")
	b.write("extra/deep/d.go", "package deep\n\nconst D = \"abyss\"\n")
	b.runs("one abyss")
	if err := os.RemoveAll(filepath.Join(b.dir, "extra")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second complaint", func() bool { return strings.Count(b.stderr.String(), "does not build") > 1 })
	b.write("extra/deep/d.go", "package deep\n\nconst D = \"again\"\n")
	b.runs("one again")
	// Embedded files, in a folder that has just come.
	if err := os.Mkdir(filepath.Join(b.dir, "pages/new"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.settled("folder")
	b.write("pages/new/a.txt", "a page")
	eventually(t, "the page", func() bool {
		out, _ := exec.CommandContext(t.Context(), b.program.path).CombinedOutput()
		return strings.Contains(string(out), "a page")
	})
}

// Changes that come during a build are built, however often, and in the end the
// program is that of the last one.
func TestManyChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for n := range 40 {
		b.write("lib/lib.go", say(fmt.Sprint(n)))
		select {
		case <-time.After(time.Duration(n%7) * 40 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	b.runs("39")
	if n := b.installed.Load(); n > 20 {
		t.Errorf("%d programs were installed for 40 changes", n)
	}
	// As git does: many files at once.
	for n := range 200 {
		b.write(fmt.Sprintf("many/p%d/p.go", n), fmt.Sprintf("package p%d\n", n))
	}
	b.write("lib/lib.go", say("branch"))
	b.runs("branch")
}

// A service that writes into its own source when it starts is not restarted for
// ever.
func TestRestartLoopEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"count.go": "package main\n\nimport _ \"embed\"\n\n//go:embed count.txt\nvar count string\n\nfunc init() { println(count) }\n", "count.txt": "0"})
	b.restarting.Store(true)
	for n := range int64(maxEchoes) {
		b.write("count.txt", fmt.Sprint(n+1))
		eventually(t, "the next program", func() bool { return b.installed.Load() == n+1 })
	}
	b.says("count.txt changed 10 times just when services were restarted, and is not watched any more")
	b.restarting.Store(false)
	b.write("count.txt", "0")
	b.settled("after") // builds the new count.txt too
	b.write("count.txt", "1")
	b.settled("still") // other files are watched still
	eventually(t, "the programs of the markers", func() bool { return b.installed.Load() >= maxEchoes+2 })
	if n := b.installed.Load(); n != maxEchoes+2 {
		t.Errorf("%d programs, want no more for count.txt", n-maxEchoes)
	}
}

// What was changed between the start of `up` and the first watch is not lost.
func TestChangesBeforeTheWatch(t *testing.T) {
	t.Parallel()
	began := time.Now()
	dir := writeFiles(t, t.TempDir(), map[string]string{"go.mod": "module example.test/shop\n\ngo 1.26.0\n", "main.go": "package main\n\nfunc main() {}\n"})
	p := newProgram(".", dir, filepath.Join(dir, ".keelson"))
	if _, err := p.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"main.go": "package main\n\nfunc main() { println(1) }\n"})
	out, _, stderr := testPrinter(t)
	installed := make(chan struct{}, 1)
	r := &rebuilder{dir: dir, programs: []*program{p}, out: out, installed: func(*program, time.Time) { installed <- struct{}{} }, restarting: func() bool { return false }}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx, began) })
	select {
	case <-installed:
	case <-time.After(time.Minute):
		t.Errorf("nothing was built\n%s", stderr)
	}
	cancel()
	wg.Wait()
}

func TestBuildOfOneProgram(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, t.TempDir(), map[string]string{"go.mod": "module example.test/shop\n\ngo 1.26.0\n", "main.go": "package main\n\nfunc main() {}\n"})
	p := newProgram(".", dir, filepath.Join(dir, "bin"))
	if changed, err := p.build(t.Context()); !changed || err != nil || p.installed() != 1 {
		t.Fatal(changed, err)
	}
	before, err := os.Stat(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := p.build(t.Context()); changed || err != nil || p.installed() != 1 {
		t.Errorf("the same once more: %t, %v", changed, err)
	}
	if after, err := os.Stat(p.path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file is another one: %v", err)
	}
	// The next `up` finds it there: it is new to it, and the same file.
	q := newProgram(".", dir, filepath.Join(dir, "bin"))
	if changed, err := q.build(t.Context()); !changed || err != nil || q.installed() != 1 {
		t.Errorf("in the next run: %t, %v", changed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.build(ctx); err == nil || ctx.Err() == nil {
		t.Errorf("cancelled: %v", err)
	}
	writeFiles(t, dir, map[string]string{"main.go": "package main\n\nfunc main() { x }\n"})
	if changed, err := p.build(t.Context()); changed || err == nil || !strings.Contains(fmt.Sprintf("%+v", err), "does not build") {
		t.Errorf("a mistake: %t, %v", changed, err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "bin"))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The go command and its compilers are cut off in the middle.
func TestCancelledBuildLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, t.TempDir(), map[string]string{"go.mod": "module example.test/shop\n\ngo 1.26.0\n", "main.go": "package main\n\nfunc main() {}\n"})
	p := newProgram(".", dir, filepath.Join(dir, "bin"))
	// It is cancelled as soon as there is something to leave behind.
	ctx, cancel := context.WithCancel(t.Context())
	var seen atomic.Bool
	var watching sync.WaitGroup
	over := make(chan struct{})
	watching.Go(func() {
		defer cancel()
		for !seen.Load() {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
				work, _ := filepath.Glob(filepath.Join(dir, "bin", "*", "go-build*"))
				seen.Store(len(work) > 0)
			}
		}
	})
	_, err := p.build(ctx)
	close(over)
	watching.Wait()
	if !seen.Load() || !errors.Is(err, context.Canceled) {
		t.Fatalf("its temporary files were seen: %t; %v", seen.Load(), err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "bin")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Neither does the next one after a build that nobody could clean up after.
	writeFiles(t, dir, map[string]string{"bin/" + filepath.Base(p.path) + ".tmp/go-build1/b001/_pkg_.a": "half of it"})
	if changed, err := p.build(t.Context()); !changed || err != nil {
		t.Errorf("the next build: %t, %v", changed, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "bin")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
