package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// sourceQuiet is how long there must be no more changes before a build:
	// editors, generators and git write several files, some of them twice.
	sourceQuiet = 200 * time.Millisecond
	// sourceWait bounds that for what never stops changing.
	sourceWait = 2 * time.Second
	// maxCancels is how many builds in a row a further change may cancel.
	maxCancels = 3
	// maxEchoes is how many times in a row a restart may be followed by a change
	// that leads to the next one.
	maxEchoes = 10
	// maxNewFolders bounds the folders that are watched because one has come.
	maxNewFolders = 1000
)

// rebuilder builds programs again when their source changes.
type rebuilder struct {
	dir      string // where the go command is run
	programs []*program
	out      *printer
	// installed is called when there is a new program.
	installed func(p *program, changed time.Time)
	// restarting reports whether processes are or were just restarted.
	restarting func() bool

	// These are run's own.
	watcher *fsnotify.Watcher
	sources *sources
	watched map[string]bool
	ignored map[string]bool   // files that change with each restart
	broken  map[*program]bool // of the builds
	full    bool              // it was said that not all can be watched
	pending batch
	echoes  int    // how often in a row
	echoed  string // these files have changed with a restart
}

// batch is what has changed.
type batch struct {
	programs map[*program]bool
	files    map[string]bool
	first    time.Time // when the first change was noticed,
	last     time.Time // and the last one
	echo     bool      // all came with a restart
}

func (b *batch) empty() bool { return len(b.programs) == 0 }

// names are the changed files for people.
func (b *batch) names() string {
	var names []string
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		names = append(names, filepath.Base(path))
	}
	names = slices.Compact(names)
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more files", strings.Join(names[:2], ", "), len(names)-2)
	}
	return strings.Join(names, ", ")
}

// rebuilt is what came of a batch.
type rebuilt struct {
	batch   batch
	left    []*program // not built: it was cancelled
	failed  bool       // one does not build
	changed bool       // there is a new program
	began   time.Time
	sources *sources // of all programs; nil if they could not be found out
}

// run watches and builds until ctx ends. Changes since began count.
func (r *rebuilder) run(ctx context.Context, began time.Time) {
	if err := r.open(ctx, began); err != nil {
		if ctx.Err() == nil {
			r.out.warn("the source can't be watched, and changes of it need a `keelson restart`: %v", err)
		}
		return
	}
	defer func() { _ = r.watcher.Close() }() // it never fails, says its source
	r.out.say("watching the source in %s: what changes is built and restarted", plural(r.sources.packages(), "folder"))

	quiet := time.NewTimer(sourceQuiet) // there may be changes already
	defer quiet.Stop()
	results := make(chan rebuilt)
	cancel := context.CancelFunc(func() {})
	due, busy, cancels := false, false, 0
	defer func() {
		cancel()
		if busy {
			<-results
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.watcher.Events:
			if r.handle(e) {
				due = false
				quiet.Reset(max(0, min(sourceQuiet, sourceWait-time.Since(r.pending.first))))
			}
		case err := <-r.watcher.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) { // what was missed may be anything
				r.note(r.programs, "many files")
				due = true
			}
		case <-quiet.C:
			if due = true; busy && !r.pending.empty() && cancels < maxCancels {
				cancels++
				cancel()
			}
		case done := <-results:
			cancel()
			busy, due = false, true
			if len(done.left) == 0 {
				cancels = 0
			}
			r.finish(done)
		}
		if due && !busy && !r.pending.empty() {
			b := r.pending
			r.pending, due = batch{}, false
			busy = true
			cancel = r.start(ctx, b, results)
		}
	}
}

// start builds a batch in the background until cancel is called. The result must
// be received.
func (r *rebuilder) start(ctx context.Context, b batch, results chan<- rebuilt) (cancel context.CancelFunc) {
	ctx, cancel = context.WithCancel(ctx)
	go func() { results <- r.build(ctx, b) }()
	return cancel
}

// open begins to watch.
func (r *rebuilder) open(ctx context.Context, began time.Time) (err error) {
	if r.watcher, err = fsnotify.NewWatcher(); err != nil {
		return err
	}
	r.sources = newSources()
	r.watched, r.ignored, r.broken = map[string]bool{}, map[string]bool{}, map[*program]bool{}
	found, err := listSources(ctx, r.dir, r.programs)
	if err != nil {
		return errors.Join(err, r.watcher.Close())
	}
	r.watch(found, began)
	return nil
}

// build builds the programs of a batch, and finds out what all are made of now.
func (r *rebuilder) build(ctx context.Context, b batch) rebuilt {
	done := rebuilt{batch: b, began: time.Now()}
	for _, p := range r.programs {
		if !b.programs[p] {
			continue
		}
		began := time.Now()
		stop := r.out.rebuilding(p.pkg)
		changed, err := p.build(ctx)
		stop()
		_, broken := errors.AsType[*buildError](err)
		switch {
		case ctx.Err() != nil:
			done.left = append(done.left, p)
			continue
		case err != nil:
			done.failed = true
			r.out.broken(err)
		case changed:
			done.changed = true
			r.out.say("built %s in %.1fs (%s)", p.pkg, time.Since(began).Seconds(), b.names())
			r.installed(p, b.last)
		case r.broken[p]:
			r.out.say("%s builds again, and is what runs already", p.pkg)
		}
		r.broken[p] = broken
	}
	if ctx.Err() == nil {
		// A failure leaves what was known: the next change tries again.
		done.sources, _ = listSources(ctx, r.dir, r.programs)
	}
	return done
}

// finish takes in what came of a batch.
func (r *rebuilder) finish(done rebuilt) {
	if len(done.left) > 0 {
		for path := range done.batch.files {
			r.noteAt(done.batch.last, done.left, path)
		}
	}
	if done.sources != nil {
		if done.failed { // what is missing now may come back
			done.sources.join(r.sources)
		}
		r.watch(done.sources, done.began)
	}
	if !done.changed {
		return
	}
	files := done.batch.names()
	if !done.batch.echo || files != r.echoed {
		r.echoed, r.echoes = files, 0
	}
	if r.echoes++; r.echoes == maxEchoes {
		maps.Copy(r.ignored, done.batch.files)
		r.out.warn("%s changed %d times just when services were restarted, and is not watched any more", files, maxEchoes)
	}
}

// note adds to what has changed just now.
func (r *rebuilder) note(programs []*program, path string) { r.noteAt(time.Now(), programs, path) }

func (r *rebuilder) noteAt(at time.Time, programs []*program, path string) {
	if r.pending.empty() {
		r.pending = batch{programs: map[*program]bool{}, files: map[string]bool{}, first: at, last: at, echo: true}
	}
	for _, p := range programs {
		r.pending.programs[p] = true
	}
	r.pending.files[path] = true
	r.pending.echo = r.pending.echo && r.restarting()
	if at.After(r.pending.last) {
		r.pending.last = at
	}
}

// handle takes a change of the file system, and reports whether it matters.
func (r *rebuilder) handle(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod || r.ignored[e.Name] {
		return false
	}
	programs := r.sources.affected(e.Name)
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		r.forget(e.Name)
	}
	if e.Has(fsnotify.Create) && r.arrive(e.Name) {
		return true
	}
	if len(programs) == 0 {
		return false
	}
	r.note(programs, e.Name)
	return true
}

// forget gives up the watches of a folder that has gone, and those below it,
// which a rename would leave on what is elsewhere now.
func (r *rebuilder) forget(path string) {
	for dir := range r.watched {
		if within(dir, path) {
			delete(r.watched, dir)
			_ = r.watcher.Remove(dir) // it may be gone already
		}
	}
}

// arrive watches a folder that has come, with those in it, as far as it is or may
// become part of a program. It reports whether there is something in it already.
func (r *rebuilder) arrive(path string) (found bool) {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() || temporary(filepath.Base(path)) {
		return false
	}
	before := len(r.pending.files)
	left := maxNewFolders
	_ = filepath.WalkDir(path, func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // it has gone again
		}
		if left--; left < 0 {
			return fs.SkipAll
		}
		for p, u := range r.sources.folders[filepath.Dir(dir)] {
			switch {
			case u&asEmbedded != 0:
				r.sources.add(dir, p, asEmbedded)
			case sourceFolder(filepath.Base(dir)):
				r.sources.add(dir, p, asNew)
			}
		}
		if r.sources.folders[dir] == nil {
			return fs.SkipDir
		}
		r.add(dir, time.Time{})
		return nil
	})
	return len(r.pending.files) > before
}

// watch makes found what is watched. In folders that were not watched before,
// changes since then count.
func (r *rebuilder) watch(found *sources, since time.Time) {
	for dir, uses := range maps.Clone(found.folders) { // embedded folders may have new ones in them
		for p, u := range uses {
			if u&asEmbedded != 0 {
				found.addEmbedded(dir, p)
			}
		}
	}
	r.sources = found
	for dir := range r.watched {
		if found.folders[dir] == nil {
			delete(r.watched, dir)
			_ = r.watcher.Remove(dir) // it may be gone already
		}
	}
	for dir := range found.folders {
		r.add(dir, since)
	}
}

// add watches a folder. What is newer in it than since has changed.
func (r *rebuilder) add(dir string, since time.Time) {
	// Also if it was watched: it may have been replaced by another one.
	err := r.watcher.Add(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil && !r.full {
		r.full = true
		r.out.warn("not all of the source can be watched: %v (see the sysctl fs.inotify.max_user_watches)", err)
	}
	if r.watched[dir] || err != nil {
		return
	}
	r.watched[dir] = true
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		programs := r.sources.affected(path)
		if entry.IsDir() || len(programs) == 0 {
			continue
		}
		// Files are stamped with a clock that is up to 10 ms behind.
		if info, err := entry.Info(); err == nil && info.ModTime().After(since.Add(-10*time.Millisecond)) {
			r.note(programs, path)
		}
	}
}
