package supervise

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func collect(in string) []string {
	var got []string
	readLines(strings.NewReader(in), func(s string) { got = append(got, s) })
	return got
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	x := strings.Repeat("x", maxLine-1)
	tests := []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"lines", "a\nb\n", []string{"a", "b"}},
		{"empty lines", "\n\na\n", []string{"", "", "a"}},
		{"last line unfinished", "a\nb", []string{"a", "b"}},
		{"carriage return", "a\r\nb\rc\r\n", []string{"a", "b\rc"}},
		{"no UTF-8", "a\xff\xfeb\n", []string{"a\uFFFDb"}},
		{"longest line", x + "\n", []string{x}},
		{"too long", x + "yz\n", []string{x + "y", "z"}},
		{"too long, cut in a rune", x + "世界\n", []string{x, "世界"}},
		{"too long, many times", strings.Repeat(x+"y", 3), []string{x + "y", x + "y", x + "y"}},
		{"too long, no UTF-8", strings.Repeat("\x80", maxLine+1), []string{"\uFFFD", "\uFFFD"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, collect(tt.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzReadLines checks against splitting the whole at once, however it comes
// in, and that what is delivered is always sound.
func FuzzReadLines(f *testing.F) {
	f.Add([]byte("a\nb"), uint16(0))
	f.Add([]byte("\xe4\xb8\n\r\n"), uint16(maxLine-1))
	f.Add([]byte("世"), uint16(maxLine-2))
	f.Fuzz(func(t *testing.T, b []byte, pad uint16) {
		in := append(bytes.Repeat([]byte{'p'}, int(pad)), b...)
		var whole, single []string
		readLines(bytes.NewReader(in), func(s string) { whole = append(whole, s) })
		readLines(iotest.HalfReader(bytes.NewReader(in)), func(s string) { single = append(single, s) })
		if diff := cmp.Diff(whole, single); diff != "" {
			t.Errorf("it matters how the input is cut:\n%s", diff)
		}
		for _, s := range whole {
			if !utf8.ValidString(s) {
				t.Errorf("%q is no UTF-8", s)
			}
		}
		if len(in) < maxLine {
			want := strings.Split(string(in), "\n")
			if want[len(want)-1] == "" {
				want = want[:len(want)-1]
			}
			if len(want) != len(whole) {
				t.Errorf("%d lines, want %d", len(whole), len(want))
			}
		}
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	var last tail
	var all []string
	for i := range 50 {
		want := all
		if len(all) > tailSize {
			want = all[len(all)-tailSize:]
		}
		if diff := cmp.Diff(want, last.all()); diff != "" {
			t.Fatalf("after %d lines:\n%s", i, diff)
		}
		line := fmt.Sprint("line ", i)
		all = append(all, line)
		last.add(line)
	}
}
