package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

const (
	// selfRegistering is how long a plain program has, once it is well, to register
	// itself over HTTP before we do it.
	selfRegistering = 200 * time.Millisecond
	// leaveTimeout bounds taking an instance out of the registry.
	leaveTimeout = time.Second
)

// healthy reports whether an instance is in rotation. A program that does not
// register itself is registered by us, as soon as its /health says that it is
// well.
func (f *fleet) healthy(m *member) func(context.Context) error {
	return func(ctx context.Context) error {
		f.mu.Lock()
		since, registered := m.started, m.registration != nil
		f.mu.Unlock()
		// An older record is of a process that has ended.
		if in, ok := f.record(m); ok && in.RegisteredAt.After(since) {
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

// record returns what the registry has of an instance: under its id, or, if the
// program chose another one, under its port.
func (f *fleet) record(m *member) (registry.Instance, bool) {
	if in, ok := f.platform.Registry().Get(registry.Key{Service: m.service.Name, ID: m.instance}); ok {
		return in, true
	}
	if f.manifest.Engine.URL != "" { // others may have this port on their machines
		return registry.Instance{}, false
	}
	for _, in := range f.platform.Registry().Discover(m.service.Name) {
		if in.Port == m.port {
			return in, true
		}
	}
	return registry.Instance{}, false
}

// introduce registers an instance that answers /health and is no Keelson service.
func (f *fleet) introduce(ctx context.Context, m *member) error {
	address := fmt.Sprintf("http://127.0.0.1:%d", m.port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := straight.Do(req)
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
	f.mu.Lock()
	if m.answered.IsZero() {
		m.answered = time.Now()
	}
	wait := time.Since(m.answered) < selfRegistering
	f.mu.Unlock()
	if wait {
		return errors.New("it is well, and has a moment to register itself")
	}
	reg, err := f.platform.Registry().Register(ctx, registry.Instance{
		Name: m.service.Name, ID: m.instance, Address: address, Health: "/health",
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	m.registration = reg
	f.mu.Unlock()
	return errors.New("its registration is under way")
}

// leave takes an instance out of the registry whose process can't do so itself or
// has ended: one that we registered, or that has registered over HTTP. It reports
// whether there was anything to do.
func (f *fleet) leave(m *member) bool {
	f.mu.Lock()
	reg := m.registration
	m.registration = nil
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	var err error
	in, known := f.record(m)
	switch {
	case reg != nil:
		err = reg.Deregister(ctx)
	case known && in.Lease != registry.LeaseConnection:
		err = f.platform.Registry().Remove(ctx, in.Key())
	default:
		return false
	}
	if err != nil {
		f.out.say("%s could not be taken out of the registry: %v", m.instance, err)
	}
	return true
}

// withdraw is leave for a process that is about to be stopped, as a Keelson
// service does it by itself: callers get a moment to notice.
func (f *fleet) withdraw(m *member) {
	if !f.leave(m) {
		return
	}
	select {
	case <-time.After(service.DefaultDrainDelay):
	case <-f.ending:
	}
}
