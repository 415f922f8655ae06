package keelsontest

import (
	"bytes"
	"io"
	"sync"
)

// output passes whole lines on to a test until it is over: after that a test
// panics when something is written.
type output struct {
	mu   sync.Mutex
	to   io.Writer
	over bool
}

// writer returns a writer whose lines begin with a name.
func (o *output) writer(name string) io.Writer { return &lines{output: o, name: name} }

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
}

type lines struct {
	output  *output
	name    string
	partial []byte
}

func (l *lines) Write(b []byte) (int, error) {
	o := l.output
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return len(b), nil
	}
	l.partial = append(l.partial, b...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		if _, err := io.WriteString(o.to, l.name+" │ "+string(line)+"\n"); err != nil {
			return 0, err
		}
		l.partial = rest
	}
}
