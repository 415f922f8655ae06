package service

import (
	"context"
	"os"
)

// Constructor makes a service, whichever way it then runs: as a process of its
// own (package engine/join), together with others in one (package platform) or in
// a test (package keelsontest). It passes opts on to [New] behind its own
// options, so that they win: what the surroundings decide comes through them. What
// it reads from the environment it reads through [Environment]. ctx ends when the
// service is to stop.
type Constructor func(ctx context.Context, opts ...Option) (*Service, error)

// WithEnvironment sets where the service's environment comes from, in place of
// os.Getenv, so that several services in one process each have their own. get
// must be safe for concurrent use, and return "" for what is not set. Nil means
// os.Getenv.
func WithEnvironment(get func(name string) string) Option {
	if get == nil {
		get = os.Getenv
	}
	return func(o *options) { o.environment = get }
}

// Environment returns the environment that opts give a service: os.Getenv, unless
// [WithEnvironment] is among them. It is for constructors:
//
//	url := service.Environment(opts...)("KEELSON_DATABASE_URL")
func Environment(opts ...Option) func(name string) string {
	o := options{environment: os.Getenv}
	for _, opt := range opts {
		opt(&o)
	}
	return o.environment
}
