package keelsontest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

// patience is how long the fleet may take to be up, and an instance to be in
// rotation.
const patience = 30 * time.Second

// Fleet is a running fleet. Its methods are safe for concurrent use; those that
// may end the test say so, and must be called by the test's own goroutine.
type Fleet struct {
	// URL is the gateway's base URL, AdminURL that of the admin API; see package
	// console.
	URL, AdminURL string

	t         testing.TB
	platform  *platform.Platform
	key       *auth.DevKey
	transport *http.Transport
	data      string
	output    *output
	instances []*Instance
	life      context.Context // ends when the fleet does, with why as its cause
	told      atomic.Bool     // why it ended has been told
	broken    atomic.Bool     // an instance ended by itself
}

// errOver is the cause of a life that ended well.
var errOver = errors.New("the fleet has stopped")

// Start runs a fleet until the test ends, and returns when every instance is in
// rotation; it ends the test if that takes more than 30 s. It must be called by
// the test's own goroutine, and not in a synctest bubble.
func Start(t testing.TB, parts ...Option) *Fleet {
	t.Helper()
	// A bubble's clock begins at 2000-01-01; other clocks are past that.
	if time.Now().Year() < 2020 {
		t.Fatal("keelsontest: Start was called in a synctest bubble, where an engine can't run: start the fleet outside of it")
	}
	plan := plan{gateway: gateway.Config{AccessLog: gateway.LogErrors}} // services log every request themselves
	for _, part := range parts {
		part(&plan)
	}
	f := &Fleet{t: t, transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	// Before the fleet's own cleanup, so that the folder goes after it.
	f.data = t.TempDir()
	f.output = &output{to: t.Output()}
	err := f.start(&plan)
	if err == nil {
		err = f.ready(f.instances...)
	}
	if err != nil {
		f.told.Store(true)
		t.Fatalf("keelsontest: %v", err)
	}
	return f
}

// start runs the plan until the test ends.
func (f *Fleet) start(plan *plan) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.t.Context()))
	key, err := auth.LoadOrCreateDevKey(filepath.Join(f.data, "dev.key"))
	if err != nil {
		cancel()
		return err
	}
	f.key = key
	jwt, err := auth.NewJWT(ctx, key.JWTConfig())
	if err != nil {
		cancel()
		return err
	}
	if plan.gateway.Authenticator == nil {
		plan.gateway.Authenticator = jwt
	}
	f.platform, err = f.listen(ctx, plan)
	if err != nil {
		cancel()
		jwt.Close()
		return err
	}
	f.URL, f.AdminURL = f.platform.GatewayURL(), f.platform.AdminURL()
	life, over := context.WithCancelCause(context.Background())
	f.life = life
	f.t.Cleanup(func() {
		f.transport.CloseIdleConnections()
		failed := life.Err() != nil || f.broken.Load()
		cancel()
		<-life.Done()
		jwt.Close()
		f.output.close()
		switch err := context.Cause(life); {
		case f.told.Load(), errors.Is(err, errOver):
		case failed:
			f.t.Errorf("keelsontest: the fleet ended before the test did: %v", err)
		default:
			f.t.Errorf("keelsontest: the fleet did not stop cleanly: %v", err)
		}
	})
	go func() {
		err := f.platform.Run(ctx)
		if err == nil {
			err = errOver
		}
		over(err)
	}()
	return nil
}

// listen is the platform with an instance for each one planned.
func (f *Fleet) listen(ctx context.Context, plan *plan) (*platform.Platform, error) {
	for _, m := range plan.services {
		if m.instances < 1 {
			return nil, fmt.Errorf("%s: Instances is %d: give 1 or more", m.name, m.instances)
		}
		for n := range m.instances {
			f.instances = append(f.instances, newInstance(f, m, n+1))
		}
	}
	tel, err := telemetry.New(telemetry.Config{Service: "keelson", LogFormat: "text", Output: f.output.writer("keelson")})
	if err != nil {
		return nil, err
	}
	cfg := platform.Config{
		Gateway: plan.gateway, Telemetry: tel,
		Engine:      embedded.Config{Listen: "127.0.0.1:0", Logger: tel.Logger()},
		StopTimeout: platform.GatewayGrace + time.Duration(len(f.instances))*(service.DefaultStopTimeout+time.Second) + 5*time.Second,
	}
	p, err := platform.Listen(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, in := range f.instances {
		p.Add(in.id, in.run)
	}
	return p, nil
}

// ready waits until the gateway serves, and it and every running instance see
// these in rotation.
func (f *Fleet) ready(all ...*Instance) error {
	ctx, cancel := context.WithTimeout(f.life, patience)
	defer cancel()
	select {
	case <-f.platform.Up():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, in := range all {
		if err := in.launched(ctx); err != nil {
			return err
		}
	}
	views := []*registry.Registry{f.platform.Registry()}
	for _, in := range f.instances {
		if p := in.current(); p != nil {
			views = append(views, p.registry)
		}
	}
	for _, in := range all {
		for _, view := range views {
			if err := in.awaitRotation(ctx, view); err != nil {
				return err
			}
		}
	}
	return nil
}

// Token returns a token that the gateway takes, with these scopes, of the subject
// "dev". It ends the test if a scope is no scope.
func (f *Fleet) Token(scopes ...string) string { f.t.Helper(); return f.TokenOf("", scopes...) }

// TokenOf is [Fleet.Token] of another subject.
func (f *Fleet) TokenOf(subject string, scopes ...string) string {
	f.t.Helper()
	token, err := f.key.Mint(auth.TokenRequest{Subject: subject, Scopes: scopes, TTL: 24 * time.Hour})
	if err != nil {
		f.t.Fatalf("keelsontest: %v", err)
	}
	return token
}

// Client returns a client whose requests to the gateway carry a token with these
// scopes. It ends the test if a scope is no scope.
func (f *Fleet) Client(scopes ...string) *http.Client {
	f.t.Helper()
	return f.ClientWith(f.Token(scopes...))
}

// ClientWith returns a client whose requests to the gateway carry this token, or
// none if it is "".
func (f *Fleet) ClientWith(token string) *http.Client {
	gateway, err := url.Parse(f.URL)
	if err != nil { // the platform made it
		panic(err)
	}
	return &http.Client{Transport: &bearer{f.transport, gateway.Host, token}}
}

// bearer adds a token to requests to one host that have none.
type bearer struct {
	next        http.RoundTripper
	host, token string
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" && r.URL.Host == b.host && r.Header.Get("Authorization") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// Registry returns the gateway's view of the fleet.
func (f *Fleet) Registry() *registry.Registry { return f.platform.Registry() }

// Instances returns a service's instances, in the order of their ids. It ends the
// test if there is no such service.
func (f *Fleet) Instances(service string) []*Instance {
	f.t.Helper()
	var all []*Instance
	for _, in := range f.instances {
		if in.member.name == service {
			all = append(all, in)
		}
	}
	if all == nil {
		f.t.Fatalf("keelsontest: the fleet has no service %q", service)
	}
	return all
}
