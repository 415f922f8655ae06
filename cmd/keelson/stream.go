package main

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"strings"
)

// sse is a server-sent event.
type sse struct {
	id, event string
	data      []byte
}

// readEvents reads a stream of server-sent events to its end, which is an error
// too: io.EOF, or why it broke. alive is called for each line, comments
// included. An event that is cut off is none.
//
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
func readEvents(r io.Reader, alive func()) iter.Seq2[sse, error] {
	return func(yield func(sse, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxAnswer)
		lines.Split(splitLines)
		var e sse
		var data [][]byte
		var id string
		for lines.Scan() {
			alive()
			line := lines.Text()
			if line == "" {
				if data != nil {
					e.id, e.data = id, bytes.Join(data, []byte("\n"))
					if !yield(e, nil) {
						return
					}
				}
				e, data = sse{}, nil
				continue
			}
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "event":
				e.event = value
			case "data":
				data = append(data, []byte(value))
			case "id":
				if !strings.Contains(value, "\x00") {
					id = value
				}
			}
		}
		err := lines.Err()
		if err == nil {
			err = io.EOF
		}
		yield(sse{}, err)
	}
}

// splitLines is a bufio.SplitFunc for lines that end with CR LF, LF or CR; a
// last one without an end is left out.
func splitLines(b []byte, atEOF bool) (advance int, line []byte, err error) {
	i := bytes.IndexAny(b, "\r\n")
	switch {
	case i < 0:
		if atEOF {
			return len(b), nil, nil
		}
		return 0, nil, nil
	case b[i] == '\n':
		return i + 1, b[:i], nil
	case i+1 < len(b):
		if b[i+1] == '\n' {
			return i + 2, b[:i], nil
		}
		return i + 1, b[:i], nil
	case atEOF:
		return i + 1, b[:i], nil
	}
	return 0, nil, nil // whether LF follows is not known yet
}
