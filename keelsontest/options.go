package keelsontest

import (
	"context"
	"net/http"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/service"
)

// Option is a part of the fleet that [Start] runs.
type Option func(*plan)

// plan is what the options say.
type plan struct {
	services []*member
	gateway  gateway.Config
}

// member is one service of the plan.
type member struct {
	name      string
	construct service.Constructor
	instances int
	env       map[string]string
	options   []service.Option
}

// Service adds a service: one instance of it, on a free port, unless opts say
// otherwise. The name must be the one that construct gives it. Services start
// side by side, and stop one after another, the last one first.
func Service(name string, construct service.Constructor, opts ...ServiceOption) Option {
	m := &member{name: name, construct: construct, instances: 1, env: map[string]string{}}
	for _, o := range opts {
		o(m)
	}
	return func(p *plan) { p.services = append(p.services, m) }
}

// Handler adds a service that is nothing but a handler, in the place of one that
// others call.
func Handler(name string, h http.Handler, opts ...ServiceOption) Option {
	return Service(name, func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New(name, opts...)
		if err != nil {
			return nil, err
		}
		s.Handle("/", h)
		return s, nil
	}, opts...)
}

// ServiceOption changes how a service is run.
type ServiceOption func(*member)

// Instances sets how many instances of the service run; 1 by default.
func Instances(n int) ServiceOption { return func(m *member) { m.instances = n } }

// Env sets a variable of the service's environment (see service.Environment).
func Env(name, value string) ServiceOption { return func(m *member) { m.env[name] = value } }

// With passes options on to the service, such as service.WithVersion.
func With(opts ...service.Option) ServiceOption {
	return func(m *member) { m.options = append(m.options, opts...) }
}

// Route adds a route of the gateway: see gateway.Route for what path may be.
func Route(path, service string, opts ...RouteOption) Option {
	r := gateway.Route{Path: path, Service: service}
	for _, o := range opts {
		o(&r)
	}
	return func(p *plan) { p.gateway.Routes = append(p.gateway.Routes, r) }
}

// RouteOption changes a route: the functions here do, and any other that sets
// fields of gateway.Route.
type RouteOption func(*gateway.Route)

// StripPrefix takes a prefix off the path before the service sees it.
func StripPrefix(prefix string) RouteOption {
	return func(r *gateway.Route) { r.StripPrefix = prefix }
}

// Public lets requests pass without a token.
func Public() RouteOption { return func(r *gateway.Route) { r.Public = true } }

// Scopes demands that a token has all of these.
func Scopes(scopes ...string) RouteOption { return func(r *gateway.Route) { r.Scopes = scopes } }

// Gateway sets all of the gateway's configuration, so that a test can use the one
// of the program itself. Routes of [Route] come behind its own. Where it has no
// Authenticator, the fleet's own tokens are taken.
func Gateway(cfg gateway.Config) Option {
	return func(p *plan) {
		cfg.Routes = append(cfg.Routes[:len(cfg.Routes):len(cfg.Routes)], p.gateway.Routes...)
		p.gateway = cfg
	}
}
