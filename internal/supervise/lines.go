package supervise

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	maxLine  = 64 << 10 // bytes of a line delivered in one piece
	tailSize = 20       // lines kept
)

// readLines calls emit for each line of r, without its line end, until r ends
// or fails. A line over maxLine comes in several pieces, cut between runes. What
// follows the last line end is a line too. Bytes that are no UTF-8 become U+FFFD,
// so that no child can break the encoding of a log.
func readLines(r io.Reader, emit func(string)) {
	send := func(b []byte) {
		emit(strings.ToValidUTF8(string(bytes.TrimSuffix(b, []byte{'\r'})), "\uFFFD"))
	}
	buf := make([]byte, maxLine)
	n := 0 // bytes of an unfinished line in buf
	for {
		got, err := r.Read(buf[n:])
		rest := buf[:n+got]
		// Only what is new can hold a line end.
		for from := n; ; from = 0 {
			i := bytes.IndexByte(rest[from:], '\n')
			if i < 0 {
				break
			}
			send(rest[:from+i])
			rest = rest[from+i+1:]
		}
		if len(rest) == maxLine {
			cut := lastRuneStart(rest)
			send(rest[:cut])
			rest = rest[cut:]
		}
		n = copy(buf, rest)
		if err != nil {
			if n > 0 {
				send(buf[:n])
			}
			return
		}
	}
}

// lastRuneStart returns len(b), or where the rune begins that is cut off at
// the end of b.
func lastRuneStart(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				break
			}
			return i
		}
	}
	return len(b)
}

// tail keeps the last lines it was given. The zero value is empty and ready.
type tail struct {
	lines [tailSize]string
	next  int // where the next line goes
	full  bool
}

func (t *tail) add(line string) {
	t.lines[t.next] = line
	t.next++
	if t.next == tailSize {
		t.next, t.full = 0, true
	}
}

// all returns the lines, the oldest first.
func (t *tail) all() []string {
	if !t.full {
		return append([]string(nil), t.lines[:t.next]...)
	}
	return append(append([]string(nil), t.lines[t.next:]...), t.lines[:t.next]...)
}
