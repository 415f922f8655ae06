package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/registry"
)

// fleet is the manifest's services as child processes.
type fleet struct {
	manifest *manifest.Manifest
	work     *workspace
	platform *platform.Platform
	out      *printer
	logLevel string
	began    time.Time
	members  []member
	builds   map[string]func(context.Context) error // by package
}

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
		began: time.Now(), builds: map[string]func(context.Context) error{},
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
			if one.port == 0 {
				port, err := freePort(ctx)
				if err != nil {
					return nil, err
				}
				one.port = port
			} else {
				addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(one.port))
				free, err := ports.Free(ctx, addr)
				if err != nil {
					return nil, err
				}
				if !free {
					return nil, portFailure(name, addr, "services."+name+".port")
				}
			}
			f.members = append(f.members, one)
		}
		if s.Package != "" && f.builds[s.Package] == nil {
			f.builds[s.Package] = f.build(s.Package)
		}
	}
	return f, nil
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// run builds, starts and keeps the services until ctx ends. healthy is called
// when all are.
func (f *fleet) run(ctx context.Context, forced <-chan struct{}, healthy func()) error {
	url, credentials := f.platform.Engine()
	err := f.work.note(func(r *runfile.File) {
		r.Gateway, r.Admin = f.platform.GatewayURL(), f.platform.AdminURL()
		r.Engine = runfile.Engine{URL: url, Credentials: credentials}
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
		Children: children,
		OnLine:   func(l supervise.Line) { f.out.line(l.Name, l.Instance, l.Text) },
		OnState: func(st supervise.Status) {
			f.out.state(st)
			if err := f.noteChildren(s.List()); err != nil {
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

func (f *fleet) noteChildren(all []supervise.Status) error {
	return f.work.note(func(r *runfile.File) {
		r.Children = []runfile.Child{}
		for _, st := range all {
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
		"KEELSON_DATABASE_URL=sqlite://"+filepath.Join(f.work.data, "data", s.Name+".db"))
	for k, v := range s.Env {
		env = append(env, k+"="+v)
	}
	c.Env = append(env,
		"PORT="+strconv.Itoa(m.port), "KEELSON_SERVICE="+s.Name, "KEELSON_INSTANCE="+m.instance,
		"KEELSON_ENGINE_URL="+engineURL, "KEELSON_ENGINE_CREDENTIALS="+credentials, "KEELSON_ADMIN_URL="+f.platform.AdminURL())
	return c
}

// binary is where a package's program is built to.
func (f *fleet) binary(pkg string) string {
	return filepath.Join(f.work.dir, "bin", strings.Trim(registry.SanitizeID(filepath.Clean(pkg)), "-"))
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
		cmd := exec.CommandContext(ctx, "go", "build", "-o", f.binary(pkg), pkg) //nolint:gosec // the manifest is the user's own
		cmd.Dir = f.manifest.Dir()
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
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
// register itself is healthy when its /health says so.
func (f *fleet) healthy(m member) func(context.Context) error {
	key := registry.Key{Service: m.service.Name, ID: m.instance}
	url := fmt.Sprintf("http://127.0.0.1:%d/health", m.port)
	return func(ctx context.Context) error {
		in, ok := f.platform.Registry().Get(key)
		// An older record is of an instance that an earlier run left.
		if ok && in.RegisteredAt.After(f.began) {
			if in.Status.Serving() {
				return nil
			}
			return fmt.Errorf("it is registered, but %s", in.Status)
		}
		if m.service.Package != "" {
			return errors.New("it has not registered")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return nil
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
