package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
	"github.com/keelson-go/keelson/internal/workspace"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

// fleet is the manifest's services as child processes.
type fleet struct {
	manifest *manifest.Manifest
	work     *workspace.Workspace
	platform *platform.Platform // see attach
	out      *printer
	logLevel string
	watching bool // the source
	members  []*member
	programs map[string]*program // by package
	journals map[string]*journal // by service

	variables  atomic.Pointer[[]string] // of the .env files
	supervisor atomic.Pointer[supervise.Supervisor]
	ending     chan struct{} // closed when everything stops
	kick       chan struct{} // has room for one: the rollout shall look again

	mu        sync.Mutex           // held for the fields below, and the members' own
	taken     map[string]bool      // services that are being restarted
	changed   map[string]time.Time // services that don't serve a change yet, since when
	supersede context.CancelFunc   // of the rollout's restart, if one is under way
	restarted time.Time            // when the rollout last did something
}

// stopGrace is how long a child has to stop: a service's own time, and a little.
const stopGrace = service.DefaultStopTimeout + 2*time.Second

// member is one instance of one service.
type member struct {
	service  manifest.Service
	instance string
	port     int
	held     *ports.Held // until the first start; may be nil

	version      int                    // of the program that its process was started from
	started      time.Time              // since when its process may exist
	answered     time.Time              // when /health was first well; of a plain command
	registration *registry.Registration // of one that does not register itself
}

// newFleet makes the instances of a manifest's services.
func newFleet(m *manifest.Manifest, work *workspace.Workspace, out *printer, logLevel string) (*fleet, error) {
	f := &fleet{
		manifest: m, work: work, out: out, logLevel: logLevel,
		programs: map[string]*program{}, journals: map[string]*journal{},
		ending: make(chan struct{}), kick: make(chan struct{}, 1),
		taken: map[string]bool{}, changed: map[string]time.Time{},
	}
	f.variables.Store(new([]string))
	prefix := ""
	if m.Engine.URL != "" { // the registry is shared with other machines
		host, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		prefix = registry.SanitizeID(host) + "-"
	}
	for _, name := range m.Order() {
		s := m.Services[name]
		for n := 1; n <= s.Instances; n++ {
			one := &member{service: s, instance: prefix + name + "-" + strconv.Itoa(n)}
			if n == 1 {
				one.port = s.Port
			}
			f.members = append(f.members, one)
		}
		f.journals[name] = newJournal(name)
		if s.Package != "" && f.programs[s.Package] == nil {
			f.programs[s.Package] = newProgram(s.Package, m.Dir(), work.Path("bin"))
		}
	}
	return f, nil
}

// attach gives the fleet the platform it is part of, and each instance its port;
// it says so if a fixed one is taken. Free ports are held until they are used,
// so that nobody else gets them while services build.
func (f *fleet) attach(ctx context.Context, p *platform.Platform) error {
	f.platform = p
	// Fixed ones first: a free one must not be one of them.
	order := slices.Clone(f.members)
	slices.SortStableFunc(order, func(a, b *member) int { return cmp.Compare(b.port, a.port) })
	for _, m := range order {
		if m.port > 0 {
			addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(m.port))
			free, err := ports.Free(ctx, addr)
			if err != nil {
				return fmt.Errorf("take a port for %s: %w", m.instance, err)
			}
			if !free {
				return portFailure(m.instance, addr, "services."+m.service.Name+".port")
			}
		}
		held, err := ports.Hold(m.port)
		switch {
		case err == nil:
			m.held, m.port = held, held.Port()
		case m.port > 0 && errors.Is(err, syscall.EADDRINUSE): // used a moment ago, and free for who listens
		default:
			return fmt.Errorf("take a port for %s: %w", m.instance, err)
		}
	}
	return nil
}

// detach gives back the ports that were never used.
func (f *fleet) detach() {
	for _, m := range f.members {
		if m.held != nil {
			m.held.Release()
		}
	}
}

// run builds, starts and keeps the services until ctx ends. healthy is called
// when all are. Changes of the source since began are built.
func (f *fleet) run(ctx context.Context, forced <-chan struct{}, began time.Time, healthy func()) error {
	url, credentials := f.platform.Engine()
	err := f.work.Note(func(r *runfile.File) {
		r.Engine = runfile.Engine{URL: url, Credentials: credentials, Embedded: f.manifest.Engine.URL == ""}
	})
	if err != nil {
		return err
	}
	var children []supervise.Child
	for _, m := range f.members {
		children = append(children, f.child(m, url, credentials))
	}
	s, err := supervise.New(supervise.Config{Children: children, Grace: stopGrace, OnLine: f.line, OnState: f.state})
	if err != nil {
		return err
	}
	f.supervisor.Store(s)
	stopEnding := context.AfterFunc(ctx, sync.OnceFunc(func() { close(f.ending) }))
	defer stopEnding()
	background, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	others.Go(func() {
		select {
		case <-forced:
			s.Kill()
		case <-background.Done():
		}
	})
	others.Go(func() { f.rollout(background, s) })
	if f.watching && len(f.programs) > 0 {
		r := &rebuilder{dir: f.manifest.Dir(), out: f.out, installed: f.newProgram, restarting: f.justRestarted}
		for _, name := range f.manifest.Order() {
			if p := f.programs[f.manifest.Services[name].Package]; p != nil && !slices.Contains(r.programs, p) {
				r.programs = append(r.programs, p)
			}
		}
		others.Go(func() { r.run(background, began) })
	}
	err = s.Run(ctx, healthy)
	cancel()
	others.Wait()
	for _, j := range f.journals {
		j.close()
	}
	return err
}

// line takes a line of a child.
func (f *fleet) line(l supervise.Line) {
	line := console.LogLine{Time: time.Now().UTC(), Service: l.Name, Instance: l.Instance, Stream: string(l.Stream), Text: l.Text}
	f.journals[l.Name].add(line)
	f.out.line(line)
}

// state takes a change of a child's state.
func (f *fleet) state(st supervise.Status) {
	m := f.member(st.Instance)
	switch st.State {
	case supervise.Stopping:
		f.withdraw(m)
	case supervise.Restarting, supervise.Stopped:
		f.leave(m)
	}
	f.out.state(processOf(m, st), st)
	if err := f.noteChildren(); err != nil {
		f.out.say("the run file can't be written: %v", err)
	}
	f.wake()
}

func (f *fleet) noteChildren() error {
	return f.work.Note(func(r *runfile.File) {
		r.Children = []runfile.Child{}
		for _, st := range f.supervisor.Load().List() {
			if st.Process != (process.ID{}) && st.State != supervise.Stopped {
				r.Children = append(r.Children, runfile.Child{Name: st.Name, Instance: st.Instance, ID: st.Process, StartedAt: st.StartedAt.UTC()})
			}
		}
	})
}

func (f *fleet) member(instance string) *member {
	i := slices.IndexFunc(f.members, func(m *member) bool { return m.instance == instance })
	return f.members[i]
}

func (f *fleet) child(m *member, engineURL, credentials string) supervise.Child {
	s := m.service
	p := f.programs[s.Package]
	c := supervise.Child{
		Name: s.Name, Instance: m.instance, DependsOn: s.DependsOn, Dir: f.manifest.Dir(),
		Command: append(slices.Clone(s.Command), s.Args...),
		Healthy: f.healthy(m),
		Environ: func() []string {
			f.starting(m, p)
			return f.environment(m, engineURL, credentials)
		},
	}
	if p != nil {
		c.Build = f.firstBuild(p)
		c.Command = append([]string{p.path}, s.Args...)
	}
	return c
}

// starting notes that a process is about to be started. Should its program be
// replaced in this moment, it is taken for an old one and restarted once more.
func (f *fleet) starting(m *member, p *program) {
	if m.held != nil {
		m.held.Release()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m.started, m.answered = time.Now(), time.Time{}
	if p != nil {
		m.version = p.installed()
	}
}

// firstBuild returns what builds a program before its first start, once for all
// that run it.
func (f *fleet) firstBuild(p *program) func(context.Context) error {
	return func(ctx context.Context) error {
		p.first.Lock()
		defer p.first.Unlock()
		if p.installed() > 0 {
			return nil
		}
		began := time.Now()
		stop := f.out.building(p.pkg)
		_, err := p.build(ctx)
		stop()
		if err == nil {
			f.out.say("built %s in %.1fs", p.pkg, time.Since(began).Seconds())
		}
		return err
	}
}

// startFailure says why a service did not start, or returns nil.
func startFailure(err error) *failure {
	start, ok := errors.AsType[*supervise.StartError](err)
	if !ok {
		return nil
	}
	f := &failure{code: exitFailed, message: start.Error()}
	if b, ok := errors.AsType[*buildError](err); ok {
		f.message, f.detail = b.Error(), indent(strings.Split(b.output, "\n"))
	} else if len(start.Lines) > 0 {
		f.detail = "its last lines:\n" + indent(start.Lines)
	} else {
		f.detail = "it wrote nothing"
	}
	return f
}

func indent(lines []string) string {
	return "  " + strings.Join(lines, "\n  ")
}
