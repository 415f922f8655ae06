package platform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/workspace"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

// patience is how long the gateway waits for this process's services before it
// begins without those that are not ready: their routes answer 503 until they are.
const patience = 2 * time.Second

// place are the variables that tell a process its place in a fleet. They are this
// process's, not its services'.
var place = []string{
	"PORT", "KEELSON_HOST", "KEELSON_ADVERTISE", "KEELSON_SERVICE", "KEELSON_INSTANCE",
	"KEELSON_ADMIN_URL", "KEELSON_ENGINE_URL", "KEELSON_ENGINE_CREDENTIALS",
}

// surroundings is this process's environment, as far as it is its services' too.
func surroundings(name string) string {
	if slices.Contains(place, name) {
		return ""
	}
	return os.Getenv(name)
}

// member is a service of this process.
type member struct {
	name    string
	id      string                          // of the instance; "" leaves it to the service
	service atomic.Pointer[service.Service] // nil until it is made
}

// AddService has the platform run a service beside the gateway, behind what was
// added before. construct makes it, under that same name, once the registry is
// there. It serves on a listener of its own: a free port of loopback, unless opts
// say otherwise (service.WithPort). It is registered like any other, so that other
// processes and their gateways reach it too, and has logs and metrics of its own.
// Adding one name several times runs several instances. Over an engine in this
// process their ids are the name and a number, such as user-service-1, so that
// after a crash they take the place of their own old records.
//
// Services start side by side, and stop one after another, the last added first,
// once the gateway has stopped. One that fails stops everything; the error names
// it, and is a [*BusyError] if its port is taken.
//
// A service's environment is what opts give it by service.WithEnvironment, or else
// this process's without PORT, KEELSON_HOST, KEELSON_ADVERTISE and
// KEELSON_INSTANCE, which can't be true of several. Where KEELSON_DATABASE_URL is
// not set there, it is an SQLite file in Config.DataDir; KEELSON_SERVICE,
// KEELSON_INSTANCE, KEELSON_ADMIN_URL, KEELSON_ENGINE_URL and
// KEELSON_ENGINE_CREDENTIALS are as for a process of its own. All else that opts say goes before the environment.
//
// AddService must not be called after Run.
func (p *Platform) AddService(name string, construct service.Constructor, opts ...service.Option) {
	m := &member{name: name}
	if p.config.External.URL == "" { // else somebody else may have the same
		n := 1
		for _, other := range p.members {
			if other.name == name {
				n++
			}
		}
		m.id = fmt.Sprintf("%s-%d", name, n)
	}
	p.members = append(p.members, m)
	p.Add(name, func(ctx context.Context, ready func()) error {
		ready() // the next one need not wait for it, as processes don't
		return p.runService(ctx, m, construct, opts)
	})
}

func (p *Platform) runService(ctx context.Context, m *member, construct service.Constructor, opts []service.Option) error {
	if construct == nil {
		return errors.New("there is no constructor: give AddService one")
	}
	s, err := construct(ctx, p.serviceOptions(m, opts)...)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop before there was a service: it has
		}
		return err
	}
	if s.Name() != m.name {
		return fmt.Errorf("its constructor made the service %q: add it under that name", s.Name())
	}
	m.service.Store(s)
	err = s.Run(ctx)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" && errors.Is(err, syscall.EADDRINUSE) {
		return &BusyError{m.name, op.Addr.String(), err}
	}
	return err
}

// serviceOptions are what the platform says to a service, around what the caller
// says.
func (p *Platform) serviceOptions(m *member, opts []service.Option) []service.Option {
	own := service.Environment(append([]service.Option{service.WithEnvironment(surroundings)}, opts...)...)
	all := []service.Option{service.WithInstance(m.id), service.FromEnvironment(), service.WithRegistry(p.Registry()), service.WithForce(p.config.Forced), service.WithInProcess(p.neighbours)}
	all = append(all, opts...)
	return append(all, service.WithEnvironment(p.environment(m, own)))
}

// environment is own, and what a service's surroundings tell it besides.
func (p *Platform) environment(m *member, own func(string) string) func(string) string {
	return func(name string) string {
		if v := own(name); v != "" {
			return v
		}
		engineURL, credentials := p.Engine()
		switch name {
		case "KEELSON_SERVICE":
			return m.name
		case "KEELSON_INSTANCE":
			return m.id
		case "KEELSON_ADMIN_URL":
			return p.AdminURL()
		case "KEELSON_ENGINE_URL":
			return engineURL
		case "KEELSON_ENGINE_CREDENTIALS":
			return credentials
		case "KEELSON_DATABASE_URL":
			if p.config.DataDir != "" {
				return workspace.DatabaseURL(p.config.DataDir, m.name)
			}
		}
		return ""
	}
}

// WaitServices waits until everything that was added by AddService is in
// rotation. If ctx ends first, or the platform stops, the error says of each one
// that is not, why. It is meant to be called while Run runs.
func (p *Platform) WaitServices(ctx context.Context) error {
	select {
	case <-p.opened:
	case <-ctx.Done():
		return fmt.Errorf("platform: wait for the services: the registry is not open: %w", context.Cause(ctx))
	}
	for range p.Registry().Watch(ctx) { // their own changes come last
		if len(p.missing()) == 0 {
			return nil
		}
	}
	missing := p.missing()
	if len(missing) == 0 {
		return nil
	}
	cause := context.Cause(ctx)
	if cause == nil {
		cause = errors.New("the registry was closed")
	}
	return fmt.Errorf("platform: wait for the services: %s: %w", strings.Join(missing, "; "), cause)
}

// missing says of each service that is not in rotation why it is not.
func (p *Platform) missing() []string {
	var all []string
	for _, m := range p.members {
		if why := p.whyMissing(m); why != "" {
			all = append(all, m.name+" "+why)
		}
	}
	return all
}

func (p *Platform) whyMissing(m *member) string {
	s := m.service.Load()
	if s == nil {
		return "is being made"
	}
	if s.Addr() == nil {
		return "does not listen yet"
	}
	in, ok := p.Registry().Get(registry.Key{Service: m.name, ID: s.Instance()})
	if ok && in.Status.Serving() {
		return ""
	}
	report := s.Health().Report()
	for name, d := range report.Dependencies {
		if d.Error != "" {
			return fmt.Sprintf("is %s: %s: %s", report.Status, name, d.Error)
		}
	}
	if !ok {
		return "is not registered yet"
	}
	return fmt.Sprintf("is registered, but %s", in.Status)
}

// awaitServices is the last component before the gateway, so that the first
// request finds services.
func (p *Platform) awaitServices(ctx context.Context, ready func()) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.WaitServices(wait); err != nil && ctx.Err() == nil {
		p.log().Warn("the gateway begins before all services are ready", "error", err)
	}
	ready()
	<-ctx.Done()
	return nil
}
