package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/ratelimit"
)

// Paths of the gateway's own endpoints.
const (
	pathHealth   = "/health"
	pathServices = "/services"
)

// endpoints answers for the gateway itself.
type endpoints struct{ paths []string }

func (p *endpoints) Name() string { return "endpoints" }

func (p *endpoints) Check(_ context.Context, r *Request, resp Header) error {
	for _, path := range p.paths {
		if r.Path != path {
			continue
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return notAllowed(resp, "GET, HEAD")
		}
		return &Answer{Endpoint: path}
	}
	return nil
}

// routing finds the route and the service.
type routing struct{ matcher *matcher }

func (p *routing) Name() string { return "routing" }

func (p *routing) Check(_ context.Context, r *Request, resp Header) error {
	found, allow := p.matcher.match(r.Host, r.Method, r.Path, r.Header)
	if found != nil {
		r.route, r.Route, r.Service = found, &found.Route, found.pick()
		r.Priority = r.priority()
		return nil
	}
	if len(allow) > 0 {
		return notAllowed(resp, strings.Join(allow, ", "))
	}
	return problem.New(http.StatusNotFound, problem.CodeNotFound, "No route leads there.")
}

func notAllowed(resp Header, allow string) error {
	resp.Set("Allow", allow)
	return problem.New(http.StatusMethodNotAllowed, problem.CodeMethodNotAllowed, "This path takes "+allow+".")
}

// addresses applies the route's address rules.
type addresses struct{}

func (addresses) Name() string { return "addresses" }

func (addresses) Check(_ context.Context, r *Request, _ Header) error {
	allow, deny := r.Route.Allow, r.Route.Deny
	if len(allow) == 0 && len(deny) == 0 {
		return nil
	}
	if !r.Client.IsValid() || contains(deny, r.Client) || len(allow) > 0 && !contains(allow, r.Client) {
		return problem.New(http.StatusForbidden, problem.CodeForbidden, "Your address may not use this path.")
	}
	return nil
}

// limits applies the gateway's limit for each client, and the route's unless it
// is by subject, which is known only after authentication.
type limits struct{ clients *ratelimit.Local }

func (p *limits) Name() string { return "limits" }

func (p *limits) Check(_ context.Context, r *Request, resp Header) error {
	var buf [16]byte
	if p.clients != nil {
		if err := decide(p.clients.Allow(string(clientKey(&buf, r.Client))), resp); err != nil {
			return err
		}
	}
	if r.route.limit == nil {
		return nil
	}
	switch r.Route.RateLimit.By {
	case ByClient:
		return decide(r.route.limit.Allow(string(clientKey(&buf, r.Client))), resp)
	case ByRoute:
		return decide(r.route.limit.Allow(""), resp)
	}
	return nil
}

// clientKey is what a client is counted by. An IPv6 client has a whole /64 to
// choose addresses from, so that is the client. All unknown ones are one.
func clientKey(buf *[16]byte, client netip.Addr) []byte {
	if client.Is6() {
		*buf = client.As16()
		return buf[:8]
	}
	if client.Is4() {
		v4 := client.As4()
		return append(buf[:0], v4[:]...)
	}
	return nil
}

// decide turns a decision into headers and, if it is a refusal, a problem. Of
// several limits each adds its own headers: they are lists.
func decide(d ratelimit.Decision, resp Header) error {
	d.WriteHeaders(resp.Add)
	if d.Allowed {
		return nil
	}
	return problem.New(http.StatusTooManyRequests, problem.CodeRateLimited,
		fmt.Sprintf("More than %d requests in %v; Retry-After says when to come back.", d.Limit.Requests, d.Limit.Window))
}

// authentication finds out who sends the request.
type authentication struct{ authenticator auth.Authenticator }

func (p *authentication) Name() string { return "authentication" }

func (p *authentication) Check(ctx context.Context, r *Request, resp Header) error {
	if r.Route.Public {
		return nil
	}
	id, err := p.authenticator.Authenticate(ctx, credentials{r.Header})
	if err == nil && id != nil {
		r.Identity = id
		return nil
	}
	if errors.Is(err, auth.ErrUnavailable) {
		resp.Set("Retry-After", "1")
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "The token can't be verified right now.")
	}
	resp.Set("Www-Authenticate", auth.Challenge(err))
	detail := "The token is not valid."
	switch {
	case errors.Is(err, auth.ErrNoCredentials):
		detail = "Send a token: \"Authorization: Bearer …\"."
	case errors.Is(err, auth.ErrExpired):
		detail = "The token has expired."
	}
	return problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, detail)
}

// authorisation checks the route's scopes, then its limit by subject.
type authorisation struct{}

func (authorisation) Name() string { return "authorisation" }

func (authorisation) Check(_ context.Context, r *Request, resp Header) error {
	if err := r.Identity.Require(r.Route.Scopes...); err != nil {
		resp.Set("Www-Authenticate", auth.Challenge(err))
		return problem.New(http.StatusForbidden, problem.CodeForbidden,
			"The token lacks a scope; this path needs: "+strings.Join(r.Route.Scopes, " ")+".")
	}
	if r.route.limit != nil && r.Route.RateLimit.By == BySubject {
		return decide(r.route.limit.Allow(r.Identity.Subject), resp)
	}
	return nil
}
