package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

// fleet is the manifest's services as child processes.
type fleet struct {
	manifest *manifest.Manifest
	work     *workspace
	platform *platform.Platform
	out      *printer
	logLevel string
	members  []member
	builds   map[string]func(context.Context) error // by package

	mu         sync.Mutex
	started    map[string]time.Time              // since when each instance's process runs
	registered map[string]*registry.Registration // instances that don't register themselves
}

// restartGap is less than what lies between a process's end and the next start.
const restartGap = 250 * time.Millisecond

// stopGrace is how long a child has to stop: a service's own time, and a little.
const stopGrace = service.DefaultStopTimeout + 2*time.Second

// member is one instance of one service.
type member struct {
	service  manifest.Service
	instance string
	port     int
}

// newFleet gives each instance its port, and says so if a fixed one is taken.
func newFleet(ctx context.Context, m *manifest.Manifest, work *workspace, p *platform.Platform, out *printer, logLevel string) (*fleet, error) {
	f := &fleet{
		manifest: m, work: work, platform: p, out: out, logLevel: logLevel,
		builds: map[string]func(context.Context) error{}, started: map[string]time.Time{},
		registered: map[string]*registry.Registration{},
	}
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
			one := member{service: s, instance: prefix + name + "-" + strconv.Itoa(n)}
			if n == 1 {
				one.port = s.Port
			}
			f.members = append(f.members, one)
		}
		if s.Package != "" && f.builds[s.Package] == nil {
			f.builds[s.Package] = f.build(s.Package)
		}
	}
	return f, f.takePorts(ctx)
}

// takePorts chooses the free ports and tries those the manifest fixes. All are
// held until the last one is found, so that none is found twice.
func (f *fleet) takePorts(ctx context.Context) error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close() // nothing was accepted on it
		}
	}()
	// Fixed ones first: a free one must not be one of them.
	order := slices.Clone(f.members)
	slices.SortStableFunc(order, func(a, b member) int { return cmp.Compare(b.port, a.port) })
	for _, m := range order {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(m.port))
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return portFailure(m.instance, addr, "services."+m.service.Name+".port")
		}
		if err != nil {
			return fmt.Errorf("take a port for %s: %w", m.instance, err)
		}
		held = append(held, l)
		i := slices.IndexFunc(f.members, func(o member) bool { return o.instance == m.instance })
		f.members[i].port = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// run builds, starts and keeps the services until ctx ends. healthy is called
// when all are.
func (f *fleet) run(ctx context.Context, forced <-chan struct{}, healthy func()) error {
	url, credentials := f.platform.Engine()
	err := f.work.note(func(r *runfile.File) {
		r.Engine = runfile.Engine{URL: url, Credentials: credentials, Embedded: f.manifest.Engine.URL == ""}
	})
	if err != nil {
		return err
	}
	var children []supervise.Child
	for _, m := range f.members {
		children = append(children, f.child(m, url, credentials))
	}
	var s *supervise.Supervisor
	s, err = supervise.New(supervise.Config{
		Children: children, Grace: stopGrace,
		OnLine: func(l supervise.Line) { f.out.line(l.Name, l.Instance, l.Text) },
		OnState: func(st supervise.Status) {
			f.note(st)
			f.out.state(st)
			if err := f.noteChildren(s.List); err != nil {
				f.out.say("the run file can't be written: %v", err)
			}
		},
	})
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		select {
		case <-forced:
			s.Kill()
		case <-stopped:
		}
	})
	err = s.Run(ctx, healthy)
	close(stopped)
	killer.Wait()
	return err
}

// note remembers since when an instance runs. One that `up` registered itself
// leaves the registry with its process.
func (f *fleet) note(st supervise.Status) {
	f.mu.Lock()
	f.started[st.Instance] = st.StartedAt
	reg := f.registered[st.Instance]
	ended := st.State == supervise.Restarting || st.State == supervise.Stopped
	if ended {
		delete(f.registered, st.Instance)
	}
	f.mu.Unlock()
	if ended && reg != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := reg.Deregister(ctx); err != nil {
			f.out.say("%s could not be taken out of the registry: %v", st.Instance, err)
		}
	}
}

func (f *fleet) noteChildren(list func() []supervise.Status) error {
	return f.work.note(func(r *runfile.File) {
		r.Children = []runfile.Child{}
		for _, st := range list() {
			if st.Process != (process.ID{}) && st.State != supervise.Stopped {
				r.Children = append(r.Children, runfile.Child{Name: st.Name, Instance: st.Instance, ID: st.Process, StartedAt: st.StartedAt.UTC()})
			}
		}
	})
}

func (f *fleet) child(m member, engineURL, credentials string) supervise.Child {
	s := m.service
	c := supervise.Child{
		Name: s.Name, Instance: m.instance, DependsOn: s.DependsOn, Dir: f.manifest.Dir(),
		Command: append(slices.Clone(s.Command), s.Args...),
		Healthy: f.healthy(m),
	}
	if s.Package != "" {
		c.Build = f.builds[s.Package]
		c.Command = append([]string{f.binary(s.Package)}, s.Args...)
	}
	// What the manifest says goes before our proposals, not before our facts.
	env := append(environ(), "KEELSON_LOG_FORMAT=text", "KEELSON_LOG_LEVEL="+f.logLevel,
		"KEELSON_DATABASE_URL="+(&url.URL{Scheme: "sqlite", Path: filepath.Join(f.work.data, "data", s.Name+".db")}).String())
	for k, v := range s.Env {
		env = append(env, k+"="+v)
	}
	c.Env = append(env,
		"PORT="+strconv.Itoa(m.port), "KEELSON_SERVICE="+s.Name, "KEELSON_INSTANCE="+m.instance,
		"KEELSON_ENGINE_URL="+engineURL, "KEELSON_ENGINE_CREDENTIALS="+credentials, "KEELSON_ADMIN_URL="+f.platform.AdminURL())
	return c
}

// binary is where a package's program is built to: a name people recognise, and
// a hash, since other packages may have that name too.
func (f *fleet) binary(pkg string) string {
	sum := sha256.Sum256([]byte(pkg))
	return filepath.Join(f.work.dir, "bin", fmt.Sprintf("%s-%x", registry.SanitizeID(filepath.Base(pkg)), sum[:4]))
}

// build returns what builds a package, once for all services that run it.
func (f *fleet) build(pkg string) func(context.Context) error {
	var once sync.Mutex
	done := false
	return func(ctx context.Context) error {
		once.Lock()
		defer once.Unlock()
		if done {
			return nil
		}
		began := time.Now()
		progress := f.out.building(pkg)
		defer progress()
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", f.binary(pkg), pkg) //nolint:gosec // the manifest is the user's own
		cmd.Dir = f.manifest.Dir()
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		// A Ctrl-C in the terminal is for us alone; the compilers go when we say so.
		cmd.SysProcAttr = buildAttributes()
		cmd.Cancel = func() error { return process.SignalGroup(cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 2 * time.Second
		err := cmd.Run()
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("build %s: the go command is not installed, or not in PATH", pkg)
		}
		if err != nil && ctx.Err() == nil {
			return &buildError{pkg, strings.TrimSpace(said.String())}
		}
		if err != nil {
			return ctx.Err()
		}
		done = true
		f.out.built(pkg, time.Since(began))
		return nil
	}
}

type buildError struct{ pkg, output string }

func (e *buildError) Error() string { return e.pkg + " does not build" }

// healthy reports whether an instance is in rotation. A program that does not
// register itself is registered by us, as soon as its /health says that it is
// well.
func (f *fleet) healthy(m member) func(context.Context) error {
	key := registry.Key{Service: m.service.Name, ID: m.instance}
	return func(ctx context.Context) error {
		f.mu.Lock()
		since, registered := f.started[m.instance], f.registered[m.instance] != nil
		f.mu.Unlock()
		in, ok := f.platform.Registry().Get(key)
		// An older record is of a process that has ended. The moment is noted
		// just after the start, and no restart comes sooner than that.
		if ok && in.RegisteredAt.After(since.Add(-restartGap)) {
			if in.Status.Serving() {
				return nil
			}
			return fmt.Errorf("it is registered, but %s", in.Status)
		}
		if registered {
			return errors.New("its registration is under way")
		}
		if m.service.Package != "" {
			return errors.New("it has not registered")
		}
		return f.introduce(ctx, m)
	}
}

// healthClient follows no redirect: a login page is no health.
var healthClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// introduce registers an instance that answers /health and is no Keelson service.
func (f *fleet) introduce(ctx context.Context, m member) error {
	address := fmt.Sprintf("http://127.0.0.1:%d", m.port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := healthClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s/health answers %s", address, resp.Status)
	}
	if resp.Header.Get(registry.InstanceHeader) != "" {
		return errors.New("it has not registered")
	}
	reg, err := f.platform.Registry().Register(ctx, registry.Instance{
		Name: m.service.Name, ID: m.instance, Address: address, Health: "/health",
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.registered[m.instance] = reg
	f.mu.Unlock()
	return errors.New("its registration is under way")
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
