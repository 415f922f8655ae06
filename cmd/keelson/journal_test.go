package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/console"
)

func written(j *journal, instance, text string) {
	j.add(console.LogLine{Time: time.Now(), Service: j.service, Instance: instance, Stream: "stdout", Text: text})
}

func texts(lines []console.LogLine) []string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return all
}

func TestJournalKeepsTheLastLines(t *testing.T) {
	t.Parallel()
	j := newJournal("users")
	for n := range 2 * maxJournalLines {
		written(j, "users-1", strconv.Itoa(n))
		if n%1000 == 0 {
			written(j, "users-2", strconv.Itoa(n))
		}
	}
	all := slices.Collect(j.read(t.Context(), 10*maxJournalLines, false))
	if len(all) != maxJournalLines+4 || !slices.ContainsFunc(all, func(l console.LogLine) bool { return l.Instance == "users-2" && l.Text == "0" }) {
		t.Errorf("%d lines; a quiet instance has lost its own because of another", len(all))
	}
	for i := 1; i < len(all); i++ {
		if !all[i].Time.After(all[i-1].Time) && all[i].Instance == all[i-1].Instance {
			t.Fatalf("line %d is not after the one before: %v", i, all[i-1:i+1])
		}
	}
	last := slices.Collect(j.read(t.Context(), 3, false))
	if got := texts(last); !slices.Equal(got, []string{"3997", "3998", "3999"}) {
		t.Errorf("the last three are %q", got)
	}
	if got := slices.Collect(j.read(t.Context(), 0, false)); got != nil {
		t.Errorf("the last none are %q", texts(got))
	}
}

func TestJournalIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	j := newJournal("users")
	long := strings.Repeat("x", 64<<10)
	for range 1000 {
		written(j, "users-1", long)
	}
	bytes := 0
	for l := range j.read(t.Context(), 1000, false) {
		bytes += len(l.Text)
	}
	if bytes > maxJournalBytes || bytes < maxJournalBytes*9/10 {
		t.Errorf("%d bytes are kept, want nearly %d", bytes, maxJournalBytes)
	}
}

func TestJournalIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal("users")
		written(j, "users-1", "old")
		written(j, "users-1", "one")
		var got []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for l := range j.read(t.Context(), 1, true) {
				got = append(got, l.Text)
			}
		}()
		synctest.Wait()
		written(j, "users-2", "two") // of an instance that had written nothing yet
		synctest.Wait()
		written(j, "users-1", "three")
		j.close()
		<-done
		if want := []string{"one", "two", "three"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q and the end", got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		j = newJournal("users")
		done = make(chan struct{})
		go func() {
			defer close(done)
			for range j.read(ctx, 1, true) {
				t.Error("a line from nowhere")
			}
		}()
		synctest.Wait()
		cancel()
		<-done
	})
}

// TestSlowReaders: whatever is written between a reader's steps, it gets each
// line once and in order, or is told how many it missed.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(maxJournalLines-10, maxJournalLines+10)), 1, 4).Draw(t, "lines between reads")
		j := newJournal("users")
		seen, n := 0, 0
		at := map[string]int{}
		for _, lines := range steps {
			for range lines {
				written(j, "users-1", strconv.Itoa(n))
				n++
			}
			got, _, _ := j.next(at)
			for i, l := range got {
				if l.Stream != streamKeelson {
					if l.Text != strconv.Itoa(seen) {
						t.Fatalf("line %q, want %d", l.Text, seen)
					}
					seen++
					continue
				}
				var missed int
				if _, err := fmt.Sscanf(l.Text, "… %d line", &missed); err != nil || i != 0 || l.Instance != "users-1" {
					t.Fatalf("mark %q as number %d: %v", l.Text, i, err)
				}
				seen += missed
			}
			if seen != n {
				t.Fatalf("%d of %d lines are accounted for", seen, n)
			}
		}
	})
}
