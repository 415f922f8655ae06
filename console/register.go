package console

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/openapi"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/registry"
)

const (
	maxBody = 64 << 10 // bytes of a request; the largest record has 60 KiB

	// storeRetry is when to ask again while the store is away, in seconds.
	storeRetry = "2"
)

// joinLimit is how many instances one client may register.
var joinLimit = ratelimit.Limit{Name: "registrations", Requests: 1000, Window: time.Minute, Burst: 1000}

type (
	// registration is what a service says about itself. The registry judges the
	// values; its errors name the fix.
	registration struct {
		Name     string            `json:"name" doc:"The service's name: 1 to 63 lower-case letters, digits and '-', beginning with a letter or digit"`
		Address  string            `json:"address" doc:"Absolute URL of the instance, or a bare host, which needs port"`
		Port     int               `json:"port,omitempty" doc:"1 to 65535; may be left out if address has it"`
		Health   string            `json:"health,omitempty" doc:"URL or path of the health check, on address's host; any 2xx answer passes. Without it the instance has to send heartbeats"`
		Version  string            `json:"version,omitempty" doc:"At most 64 bytes"`
		Tags     []string          `json:"tags,omitempty" doc:"At most 32, each of at most 64 bytes"`
		Metadata map[string]string `json:"metadata,omitempty" doc:"At most 64 entries, keys of at most 64 and values of at most 1024 bytes. metrics_path and metrics=off are for Prometheus"`
		ID       string            `json:"id,omitempty" doc:"Unique within the service; made of name, host and port if it is left out. What is no letter, digit or '-' becomes '-'"`
		Zone     string            `json:"zone,omitempty" doc:"The failure domain it runs in; at most 64 bytes"`

		// What an answer has beside, so that it can be sent back as it is.
		Status        any `json:"status,omitempty" doc:"Ignored: the registry sets it"`
		Announced     any `json:"announced,omitempty" doc:"Ignored: the registry sets it"`
		Lease         any `json:"lease,omitempty" doc:"Ignored: the registry sets it"`
		RegisteredAt  any `json:"registeredAt,omitempty" doc:"Ignored: the registry sets it"`
		LastHeartbeat any `json:"lastHeartbeat,omitempty" doc:"Ignored: the registry sets it"`
		TTL           any `json:"ttl,omitempty" doc:"Ignored: the registry sets it"`
	}
	registerInput struct {
		Body registration

		caller netip.Addr // invalid if it is not known
	}
	// registered is an instance as it was registered.
	registered struct {
		registry.Instance
		TTL int `json:"ttl" doc:"How long the lease lasts without being renewed, in seconds"`
	}
	registerOutput struct {
		Status   int
		Location string `header:"Location" doc:"Path of the instance"`
		Body     registered
	}
)

// Resolve implements huma.Resolver.
func (in *registerInput) Resolve(ctx huma.Context) []error {
	in.caller = callerAddr(ctx.RemoteAddr())
	return nil
}

func callerAddr(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	ip, _ := netip.ParseAddr(host)
	return ip
}

func (c *Console) register(ctx context.Context, in *registerInput) (*registerOutput, error) {
	b := &in.Body
	one := registry.Instance{
		ID: b.ID, Name: b.Name, Address: b.Address, Port: b.Port, Health: b.Health, Version: b.Version,
		Tags: b.Tags, Metadata: b.Metadata, Zone: b.Zone, Lease: registry.LeaseHeartbeats,
	}
	if one.Health != "" {
		one.Lease = registry.LeaseChecks
	}
	if err := one.Normalize(); err != nil {
		return nil, c.refuse(ctx, err)
	}
	if one.ID == "pick" {
		return nil, openapi.Invalid(problem.FieldError{Pointer: "/id", Detail: "is the name of a call: give another one"})
	}
	if onLoopback(one.Address) {
		switch {
		case c.config.Shared:
			return nil, openapi.Invalid(problem.FieldError{Pointer: "/address",
				Detail: "is a loopback address, and other machines share this registry: give one at which they reach the instance"})
		case c.hosts == nil && !in.caller.IsLoopback():
			return nil, openapi.Invalid(problem.FieldError{Pointer: "/address",
				Detail: "is a loopback address, at which only this machine could reach the instance: give one that others reach it at"})
		}
	}
	one, created, err := c.config.Registry.Announce(ctx, one)
	if err != nil {
		return nil, c.refuse(ctx, err)
	}
	out := &registerOutput{Status: http.StatusOK, Body: registered{c.stamp(one), int(c.config.Registry.TTL() / time.Second)}}
	if created {
		out.Status, out.Location = http.StatusCreated, "/v1/services/"+one.Name+"/"+one.ID
	}
	return out, nil
}

// onLoopback reports whether a normalized address is, as it is written, this
// machine's own (RFC 6761 has the names).
func onLoopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// limitJoins is what one client may register: a flood is told so before it costs
// anything.
func (c *Console) limitJoins(ctx huma.Context, next func(huma.Context)) {
	client := "address " + callerAddr(ctx.RemoteAddr()).String()
	if id, ok := auth.FromContext(ctx.Context()); ok && id.Subject != "" {
		client = "subject " + id.Subject
	}
	d := c.joins.Allow(client)
	d.WriteHeaders(ctx.SetHeader)
	if !d.Allowed {
		r, w := humago.Unwrap(ctx)
		problem.Write(w, r, problem.New(http.StatusTooManyRequests, problem.CodeRateLimited,
			"You register too many instances; the header Retry-After says how many seconds to wait."))
		return
	}
	next(ctx)
}

func (c *Console) heartbeat(ctx context.Context, in *instanceInput) (*struct{}, error) {
	return nil, c.refuse(ctx, c.config.Registry.Heartbeat(ctx, in.key()))
}

func (c *Console) deregister(ctx context.Context, in *instanceInput) (*struct{}, error) {
	k := in.key()
	_, known := c.config.Registry.Get(k)
	if err := c.config.Registry.Remove(ctx, k); err != nil {
		return nil, c.refuse(ctx, err)
	}
	if known {
		c.note(ctx, "remove", k.Service, k.ID)
	}
	return nil, nil
}

// refuse makes what the caller may know of a registry's error into a problem.
func (c *Console) refuse(ctx context.Context, err error) error {
	if field, ok := errors.AsType[*registry.FieldError](err); ok {
		return openapi.Invalid(problem.FieldError{Pointer: problem.Pointer(field.Field), Detail: field.Problem + ": " + field.Fix})
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, registry.ErrUnknown):
		return unknownInstance()
	case errors.Is(err, registry.ErrOwnLease):
		return problem.New(http.StatusConflict, problem.CodeConflict,
			"An instance of this id has joined by itself and renews its own lease; use another id.")
	case errors.Is(err, registry.ErrFull):
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable,
			"As much is registered over HTTP as may be, 10,000 instances or 64 MiB: remove some first.")
	case errors.Is(err, registry.ErrConflict):
		return problem.New(http.StatusConflict, problem.CodeConflict, "The instance is being changed by others; try again.")
	}
	c.failed(ctx, err)
	return huma.ErrorWithHeaders(
		problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "The registry's store can't be reached now; try again soon."),
		http.Header{"Retry-After": {storeRetry}})
}
