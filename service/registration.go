package service

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/keelson-go/keelson/registry"
)

// patience is how long checks may fail at the start before the log tells.
const patience = 2 * time.Second

// condition is the name under which /health shows the registration.
const condition = "registry"

// describe returns the instance as it is registered when the service listens at
// addr.
func (s *Service) describe(addr net.Addr) (registry.Instance, error) {
	host, port, err := s.options.advertised(addr)
	if err != nil {
		return registry.Instance{}, err
	}
	in := s.options.instance(s.name, host, port)
	return in, in.Normalize()
}

// announce is the registration as a component: last to start, first to stop.
func (s *Service) announce(ctx context.Context, ready func()) error {
	if err := s.waitReady(ctx); err != nil {
		return nil //nolint:nilerr // ctx has ended: the group is stopping, which is no failure of this component
	}
	s.health.Started()
	log := s.Log().With("address", "http://"+s.addr.String())
	if s.options.registry == nil {
		log.Info("serving")
		ready()
		<-ctx.Done()
		s.leave(ctx, nil)
		return nil
	}
	in := s.self
	in.Status = s.health.Status()
	reg, err := s.options.registry.Register(ctx, in)
	if err != nil {
		return err
	}
	log.Info("serving", "instance", in.ID)
	ready()
	s.keepAnnounced(ctx, reg)
	s.leave(ctx, reg)
	return nil
}

// waitReady waits for the critical checks, and tells what it waits for.
func (s *Service) waitReady(ctx context.Context) error {
	for {
		wait, cancel := context.WithTimeout(ctx, patience)
		err := s.health.WaitReady(wait)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.Log().Warn("not ready to serve yet", "error", err)
	}
}

// keepAnnounced carries the status to the registry, and the state of the
// registration to the status, until ctx ends. One goroutine does both, from what
// is so at that moment, so that nothing old overtakes something new.
func (s *Service) keepAnnounced(ctx context.Context, reg *registry.Registration) {
	changed := make(chan struct{}, 1)
	change := func() {
		select {
		case changed <- struct{}{}:
		default: // it is going to look anyway
		}
	}
	reg.OnChange(func(error) { change() })
	s.health.OnChange(func(_, _ registry.Status) { change() })
	for registered := true; ; {
		err := reg.Err()
		s.health.Set(condition, err, false)
		switch {
		case err != nil && registered:
			s.Log().Warn("not registered; trying again for as long as it takes", "error", err)
		case err == nil && !registered:
			s.Log().Info("registered again")
		}
		registered = err == nil
		if now := s.health.Status(); now != reg.Instance().Status {
			// Its failure shows in the registration's own state, which tries again.
			_ = reg.SetStatus(ctx, now)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// leave takes the instance out of rotation and gives callers time to see it. reg
// may be nil.
func (s *Service) leave(ctx context.Context, reg *registry.Registration) {
	ctx, cancel := s.stopping(ctx)
	defer cancel()
	s.health.Drain()
	s.leaving.Store(true)
	if reg != nil {
		if err := reg.Deregister(ctx); err != nil {
			s.Log().Warn("could not leave the registry; the instance will be probed and removed", "error", err)
		}
	}
	timer := time.NewTimer(s.options.drainDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// stopping returns a context, with ctx's values, that ends when the time of the
// stop is over or force is used. The stop begins with the first call.
func (s *Service) stopping(ctx context.Context) (context.Context, context.CancelFunc) {
	s.stopOnce.Do(func() { s.stopBy = time.Now().Add(s.options.stopTimeout) })
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), s.stopBy)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-s.options.forced:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		wg.Wait()
	}
}

// instance returns the record of an instance at host and port.
func (o *options) instance(name, host string, port int) registry.Instance {
	return registry.Instance{
		ID: o.id, Name: name, Address: host, Port: port, Health: "/health",
		Version: o.version, Tags: o.tags, Metadata: o.metadata, Zone: o.zone,
	}
}

// hasPort reports whether an address brings its own port.
func hasPort(address string) bool {
	if strings.Contains(address, "://") {
		return true
	}
	_, _, err := net.SplitHostPort(address)
	return err == nil
}
