package client

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/registry"
)

// Discoverer knows the instances of services; *registry.Registry is one.
// Endpoints must be fast and safe for concurrent use: it is asked for every
// try. It should return the same set and the same endpoints for as long as nothing
// changes, since what is known of them is kept there.
type Discoverer interface {
	Endpoints(service string) *balance.Set
}

// DialTimeout bounds the opening of a connection to an instance.
const DialTimeout = 2 * time.Second

// Transport sends requests to instances of services. It is safe for concurrent
// use. A request's context ends it and whatever it waits for.
type Transport struct {
	settings
	discover Discoverer
	carrier  http.RoundTripper
	grpc     http.RoundTripper // HTTP/2 without TLS, which gRPC needs

	mu        sync.Mutex
	upstreams atomic.Pointer[map[string]*upstream] // copied when a service is first called
}

// New returns a transport over the snapshot of d. The error says which option is wrong
// and what it may be.
func New(d Discoverer, opts ...Option) (*Transport, error) {
	t := &Transport{settings: defaults(), discover: d}
	for _, o := range opts {
		o(&t.settings)
	}
	if err := t.normalize(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if t.carrier = t.base; t.base == nil {
		t.carrier = t.newCarrier()
	}
	t.grpc = t.carrier
	if h, ok := t.carrier.(*http.Transport); ok {
		h2 := h.Clone()
		h2.Protocols = new(http.Protocols)
		h2.Protocols.SetUnencryptedHTTP2(true)
		t.grpc = h2
	}
	t.upstreams.Store(&map[string]*upstream{})
	return t, nil
}

func (t *Transport) newCarrier() *http.Transport {
	dialer := &net.Dialer{Timeout: DialTimeout, KeepAlive: 15 * time.Second, ControlContext: t.control}
	return &http.Transport{
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true, // over TLS, where a dialer of one's own switches it off
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		// What passes through, passes unchanged; callers that want gzip ask for it.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// Client returns an http.Client over t. It has no timeout of its own: give each
// request a context with a deadline.
func (t *Transport) Client() *http.Client { return &http.Client{Transport: t} }

// CloseIdleConnections closes connections that no request is using.
func (t *Transport) CloseIdleConnections() {
	for _, rt := range []http.RoundTripper{t.carrier, t.grpc} {
		if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// serviceName returns the service a host stands for: a service's name, without
// a port. "localhost" is this machine.
func serviceName(host string) (string, bool) {
	return host, registry.ValidName(host) && host != "localhost"
}

// RoundTrip implements http.RoundTripper. For a service's name every error is
// an [*Error]; any other host is called as it is written.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	service, ok := serviceName(req.URL.Host)
	if !ok {
		return t.carrier.RoundTrip(req)
	}
	up, err := t.begin(service, req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	return t.call(up, req)
}

// begin returns the service to call, if there is a point in calling it.
func (t *Transport) begin(service string, req *http.Request) (*upstream, error) {
	if req.URL.Scheme == "https" {
		return nil, &Error{Service: service, Kind: Refused, Err: ErrScheme}
	}
	if err := deadline.Check(req.Context()); err != nil {
		return nil, &Error{Service: service, Kind: classify(req.Context(), err), Err: err}
	}
	// Breaker and limit are not asked: they would learn nothing.
	if t.discover.Endpoints(service).Len() == 0 {
		return nil, noInstance(service)
	}
	return t.upstream(service)
}

func noInstance(service string) *Error {
	return &Error{Service: service, Kind: NoInstance, Err: &registry.NoInstanceError{Service: service}}
}

// upstream returns the service's own state. Only services that have had
// instances get one, so strangers can't make the map grow.
func (t *Transport) upstream(service string) (*upstream, error) {
	if u := (*t.upstreams.Load())[service]; u != nil {
		return u, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := (*t.upstreams.Load())[service]; u != nil {
		return u, nil
	}
	u, err := newUpstream(service, &t.settings)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err) // New has tried it: only an option that changes its mind
	}
	next := maps.Clone(*t.upstreams.Load())
	next[service] = u
	t.upstreams.Store(&next)
	return u, nil
}

// Services returns what is known of each service that was called, in the order of
// their names.
func (t *Transport) Services() iter.Seq2[string, Stats] {
	return func(yield func(string, Stats) bool) {
		all := *t.upstreams.Load()
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !yield(name, t.stats(all[name])) {
				return
			}
		}
	}
}
