package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/keelson-go/keelson/console"
)

const (
	maxJournalLines = 2000
	maxJournalBytes = 2 << 20
	lineOverhead    = 128 // bytes a line takes besides its text
)

// streamKeelson is the stream of the lines that say what is missing.
const streamKeelson = "keelson"

// journal has the last lines of each instance of a service: 2,000 of them, and
// 2 MiB. Writing to it never waits for a reader.
type journal struct {
	service string

	mu     sync.Mutex
	pages  map[string]*page // by instance
	more   chan struct{}    // closed at the next line; nil if nobody waits
	closed bool
}

// page is what is kept of an instance: lines after the first gone ones.
type page struct {
	lines []console.LogLine
	gone  int // lines that were dropped at the front
	bytes int
}

func newJournal(service string) *journal {
	return &journal{service: service, pages: map[string]*page{}}
}

// add keeps a line. Times of an instance's lines only rise, so that each line has
// one of its own.
func (j *journal) add(line console.LogLine) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.pages[line.Instance]
	if p == nil {
		p = &page{}
		j.pages[line.Instance] = p
	}
	if n := len(p.lines); n > 0 && !line.Time.After(p.lines[n-1].Time) {
		line.Time = p.lines[n-1].Time.Add(time.Nanosecond)
	}
	p.lines = append(p.lines, line)
	p.bytes += len(line.Text) + lineOverhead
	for len(p.lines) > maxJournalLines || p.bytes > maxJournalBytes {
		p.bytes -= len(p.lines[0].Text) + lineOverhead
		p.lines[0] = console.LogLine{} // its text is not needed any more
		p.lines = p.lines[1:]
		p.gone++
	}
	j.signal()
}

// close ends those who follow, after the last line.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.signal()
}

func (j *journal) signal() {
	if j.more != nil {
		close(j.more)
		j.more = nil
	}
}

// read yields the last tail lines, and with follow those that come until ctx or
// the journal ends. A reader who is so slow that lines are gone before it reads
// them gets a line in their place that says how many.
func (j *journal) read(ctx context.Context, tail int, follow bool) iter.Seq[console.LogLine] {
	return func(yield func(console.LogLine) bool) {
		at := map[string]int{} // the next line to read of each instance, counted from its first ever
		lines := j.first(at, tail)
		for {
			for _, line := range lines {
				if !yield(line) {
					return
				}
			}
			if !follow || ctx.Err() != nil {
				return
			}
			var more <-chan struct{}
			var closed bool
			if lines, more, closed = j.next(at); len(lines) > 0 {
				continue
			}
			if closed {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}

// first returns the last lines, oldest first, and notes in at what comes next.
func (j *journal) first(at map[string]int, tail int) []console.LogLine {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []console.LogLine
	for instance, p := range j.pages {
		lines = append(lines, p.lines[max(0, len(p.lines)-tail):]...)
		at[instance] = p.gone + len(p.lines)
	}
	inOrder(lines)
	return lines[max(0, len(lines)-tail):]
}

// next returns the lines after those in at, and what is closed when there are
// more.
func (j *journal) next(at map[string]int) (lines []console.LogLine, more <-chan struct{}, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for instance, p := range j.pages {
		from := at[instance]
		if missed := p.gone - from; missed > 0 {
			from = p.gone
			mark := console.LogLine{Time: time.Now(), Service: j.service, Instance: instance, Stream: streamKeelson, Text: fmt.Sprintf("… %s dropped", plural(missed, "line"))}
			if len(p.lines) > 0 {
				mark.Time = p.lines[0].Time.Add(-1)
			}
			lines = append(lines, mark)
		}
		lines = append(lines, p.lines[from-p.gone:]...)
		at[instance] = p.gone + len(p.lines)
	}
	if len(lines) == 0 && j.more == nil {
		j.more = make(chan struct{})
	}
	inOrder(lines)
	return lines, j.more, j.closed
}

func inOrder(lines []console.LogLine) {
	slices.SortStableFunc(lines, func(a, b console.LogLine) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Instance, b.Instance))
	})
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
