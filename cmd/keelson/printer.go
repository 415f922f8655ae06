package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/supervise"
	"github.com/keelson-go/keelson/platform"
)

// printer shows what `up` and its children say: the children's lines, each with
// its service's name, on stdout, and everything else on stderr. A goroutine of
// its own writes: a terminal that is paused holds up nobody, and what does not
// fit into the queue meanwhile is counted and left out.
type printer struct {
	prefixes
	talk    style // on stderr
	json    bool  // stdout gets NDJSON
	live    bool  // stderr is a terminal: progress may be drawn over
	stdout  io.Writer
	stderr  io.Writer
	queue   chan item
	dropped atomic.Int64
	crashed sync.Map // instances that have ended and were not up again yet
	closing chan struct{}
	gone    chan struct{}
}

// prefixes say who has written a line.
type prefixes struct {
	style  style
	width  int
	colors map[string]string // by service
}

func newPrefixes(s style, services []string) prefixes {
	p := prefixes{style: s, colors: map[string]string{}}
	for i, name := range services {
		p.width = max(p.width, len(name))
		p.colors[name] = prefixColors[i%len(prefixColors)]
	}
	p.width = min(p.width, 24)
	return p
}

// prefix is the service's name; one of several instances shows which.
func (p *prefixes) prefix(name, instance string) string {
	label := name
	if n, ok := strings.CutPrefix(instance, name+"-"); ok && n != "1" {
		label = name + "#" + n
	}
	return p.style.paint(p.colors[name], fmt.Sprintf("%-*s │", p.width, label))
}

// item is something to write: a whole text, or a progress line to draw.
type item struct {
	to       io.Writer
	text     string
	progress bool
}

// queueLength is some seconds of a busy fleet.
const queueLength = 8192

func newPrinter(stdout, stderr io.Writer, s style, live bool, services []string) *printer {
	p := &printer{
		prefixes: newPrefixes(s, append([]string{"keelson"}, services...)), stdout: stdout, stderr: stderr, live: live,
		queue: make(chan item, queueLength), closing: make(chan struct{}), gone: make(chan struct{}),
	}
	go p.write()
	return p
}

// close writes what is queued, for a second at most: nobody may be reading.
func (p *printer) close() {
	close(p.closing)
	select {
	case <-p.gone:
	case <-time.After(time.Second):
	}
}

func (p *printer) put(i item) {
	select {
	case p.queue <- i:
	default:
		p.dropped.Add(1)
	}
}

// write is the goroutine that writes.
func (p *printer) write() {
	defer close(p.gone)
	status := "" // the progress line on the screen, if any
	show := func(i item) {
		// What is shown is for people; an output that is gone stops nothing.
		if status != "" {
			_, _ = io.WriteString(p.stderr, "\r\x1b[K")
		}
		if n := p.dropped.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(p.stderr, "(%d lines were left out: nobody read them)\n", n)
		}
		if i.progress {
			status = i.text
		} else {
			_, _ = io.WriteString(i.to, i.text)
		}
		_, _ = io.WriteString(p.stderr, status)
	}
	for {
		select {
		case i := <-p.queue:
			show(i)
			continue
		default:
		}
		select {
		case i := <-p.queue:
			show(i)
		case <-p.closing:
			for {
				select {
				case i := <-p.queue:
					show(i)
				default:
					return
				}
			}
		}
	}
}

// line shows a child's line.
func (p *printer) line(l console.LogLine) {
	if p.json {
		p.object(l)
		return
	}
	p.put(item{to: p.stdout, text: fmt.Sprintf("%s %s\n", p.prefix(l.Service, l.Instance), l.Text)})
}

// object shows a value as a line of JSON.
func (p *printer) object(v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		p.say("a line can't be written as JSON: %v", err)
		return
	}
	p.put(item{to: p.stdout, text: b.String()})
}

// writer shows what is written to it line by line under a name.
func (p *printer) writer(name string) io.Writer { return &lineWriter{printer: p, name: name} }

type lineWriter struct {
	printer *printer
	name    string
	mu      sync.Mutex
	partial []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = append(w.partial, b...)
	for {
		line, rest, found := bytes.Cut(w.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		w.printer.line(console.LogLine{Time: time.Now().UTC(), Service: w.name, Stream: string(supervise.Stderr), Text: string(line)})
		w.partial = bytes.Clone(rest)
	}
}

// say tells the person something.
func (p *printer) say(format string, args ...any) {
	p.put(item{to: p.stderr, text: fmt.Sprintf(format+"\n", args...)})
}

// warn tells the person something that is probably not meant.
func (p *printer) warn(format string, args ...any) {
	p.say("%s %s", p.talk.paint(yellow, "warning:"), fmt.Sprintf(format, args...))
}

// broken tells that a program does not build.
func (p *printer) broken(err error) {
	text := p.talk.paint(red, err.Error()) + "; the one before it runs on"
	if b, ok := errors.AsType[*buildError](err); ok {
		text += ":\n" + indent(strings.Split(b.output, "\n"))
	}
	p.say("%s", text)
}

// stateEvent is a child's change of state in NDJSON.
type stateEvent struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // "state"
	console.Process
}

// state tells what becomes of a child, as far as its own lines don't.
func (p *printer) state(process console.Process, st supervise.Status) {
	if p.json {
		p.object(stateEvent{time.Now().UTC(), "state", process})
	}
	switch st.State {
	case supervise.Restarting:
		p.crashed.Store(st.Instance, true)
		why := fmt.Sprintf("%s has ended (%v)", st.Instance, st.Exit)
		if st.Err != nil {
			why = st.Err.Error()
		}
		p.say("%s; starting it again in %s", why, st.Delay.Round(100*time.Millisecond))
	case supervise.Healthy:
		if _, crashed := p.crashed.LoadAndDelete(st.Instance); crashed {
			p.say("%s is up again", st.Instance)
		}
	}
}

// building shows that a package is being built until the function it returns is
// called; on a terminal, with the seconds that it takes.
func (p *printer) building(pkg string) (stop func()) {
	if !p.live {
		p.say("building %s", pkg)
	}
	return p.rebuilding(pkg)
}

// rebuilding is building on a terminal, and silent elsewhere: perhaps nothing
// comes of it.
func (p *printer) rebuilding(pkg string) (stop func()) {
	if !p.live {
		return func() {}
	}
	began := time.Now()
	stopped, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			p.progress(fmt.Sprintf("building %s … %.1fs", pkg, time.Since(began).Seconds()))
			select {
			case <-tick.C:
			case <-stopped:
				p.progress("")
				return
			}
		}
	}()
	return func() {
		close(stopped)
		<-gone
	}
}

// progress draws a line that is drawn over by whatever comes next.
func (p *printer) progress(text string) { p.put(item{text: text, progress: true}) }

// banner says what is up, where, and what to try.
func (p *printer) banner(s style, m *manifest.Manifest, pl *platform.Platform, key *auth.DevKey, took time.Duration) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s in %.1fs\n\n", s.paint(bold, "Everything is up"), took.Seconds())
	row := func(title, text string) { fmt.Fprintf(&b, "  %s %s\n", s.paint(dim, fmt.Sprintf("%-9s", title)), text) }
	row("gateway", pl.GatewayURL())
	row("admin API", pl.AdminURL()+"/v1/services")
	title := "services"
	for _, name := range m.Order() {
		for _, in := range pl.Registry().Discover(name) {
			row(title, fmt.Sprintf("%s  %s", in.Address, in.ID))
			title = ""
		}
	}
	title = "routes"
	for _, r := range m.Gateway.Routes {
		var to []string
		for _, backend := range r.Backends {
			to = append(to, backend.Service)
		}
		row(title, r.Path+" → "+strings.Join(to, ", "))
		title = ""
	}
	if curl := example(m, pl.GatewayURL(), key); curl != "" {
		fmt.Fprintf(&b, "\n  Try it:\n\n  %s\n", curl)
	}
	fmt.Fprintf(&b, "\n  %s\n", s.paint(dim, "Ctrl-C stops everything."))
	p.say("%s", b.String())
}

// example is a request to the first route, with a token if it needs one.
func example(m *manifest.Manifest, base string, key *auth.DevKey) string {
	if len(m.Gateway.Routes) == 0 {
		return ""
	}
	r := m.Gateway.Routes[0]
	url := base + path.Clean(strings.TrimSuffix(r.Path, "*"))
	if r.Public {
		return "curl " + url
	}
	token := "$TOKEN"
	if !m.Gateway.Auth.JWT.Enabled() {
		minted, err := key.Mint(auth.TokenRequest{Scopes: r.Scopes})
		if err != nil {
			return ""
		}
		token = minted
	}
	return fmt.Sprintf("curl -H \"Authorization: Bearer %s\" %s", token, url)
}
