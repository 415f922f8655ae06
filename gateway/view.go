package gateway

import (
	"context"
	"net/netip"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/telemetry"
)

// Header is a request's or a response's header as policies see it. Names are in
// canonical form ("X-Request-Id"). http.Header is one.
type Header interface {
	Get(name string) string      // the first value, or ""
	Values(name string) []string // all values; not to be changed
	Set(name, value string)
	Add(name, value string)
	Del(name string)
}

// Request is one request as policies see it. The data plane fills in the first
// group, the chain the others. It belongs to one request and is not safe for
// concurrent use.
type Request struct {
	Method    string
	Authority string     // the Host header or :authority, as sent
	Target    string     // the path as sent, percent-encoded, without the query
	TLS       bool       // the peer's connection to us is encrypted
	Peer      netip.Addr // who opened the connection; invalid if it has no IP address
	Header    Header
	HasBody   bool // a body follows, of known length or not

	// Set before the first policy.

	Host             string     // Authority in lower case, without port
	Path             string     // Target decoded
	Client           netip.Addr // whom the request is from; invalid if unknown
	Trusted          bool       // Peer is a trusted proxy
	Scheme           string     // "http" or "https", as the client sees it
	RequestID        string
	GatewayRequestID string
	Trace            telemetry.Trace
	Deadline         time.Time // the client's own, zero if it gave none

	// Set by the chain.

	Route    *Route               // the route that matched; not to be changed
	Priority concurrency.Priority // what the service is told: a trusted proxy's word, or else the route's
	Service  string               // the service the request goes to
	Identity *auth.Identity       // who sent it; nil on public routes

	table   *table
	route   *route
	refused string // the policy that ended the chain
}

// Policy decides whether a request passes. Implementations are safe for
// concurrent use, honour ctx and do not keep r.
type Policy interface {
	// Name tells the policy from others in logs.
	Name() string
	// Check returns nil to let r pass. A *problem.Problem refuses it and is the
	// answer; an *Answer ends the chain too; any other error is answered as an
	// internal one. Headers set on resp go out with the response, whoever makes it.
	Check(ctx context.Context, r *Request, resp Header) error
}

// Answer ends the chain without being a failure: Policy.Check returns it as an
// error.
type Answer struct {
	// Status is that of a response without a body, such as 204.
	Status int
	// Endpoint, if not empty, is the path of one of the gateway's own endpoints,
	// which makes the response.
	Endpoint string
}

// Error implements error.
func (a *Answer) Error() string { return "gateway: answered by the gateway itself" }

// credentials is the view authenticators have of a request.
type credentials struct{ header Header }

func (c credentials) Header(name string) string         { return c.header.Get(name) }
func (c credentials) HeaderValues(name string) []string { return c.header.Values(name) }
