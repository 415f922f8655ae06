package client

import (
	"context"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/telemetry"
)

// Discoverer knows the instances of services; *registry.Registry is one.
// Endpoints must be fast and safe for concurrent use: it is asked for every
// attempt.
type Discoverer interface {
	Endpoints(service string) *balance.Set
}

// DefaultAttempts is how many instances one request may be sent to.
const DefaultAttempts = 3

// DialTimeout bounds the opening of a connection to an instance.
const DialTimeout = 2 * time.Second

// requestTimeout tells an instance how many milliseconds the caller waits.
const requestTimeout = "Request-Timeout"

// deadlineMargin is kept of a deadline for the way back.
const deadlineMargin = 5 * time.Millisecond

// Option changes a default of [New].
type Option func(*Transport)

// WithAttempts sets how many instances one request may be sent to in all; at
// least 1, the default is [DefaultAttempts].
func WithAttempts(n int) Option { return func(t *Transport) { t.attempts = max(n, 1) } }

// WithPicker sets how a service's picker is made; balance.P2C by default.
func WithPicker(newPicker func() balance.Picker) Option {
	return func(t *Transport) { t.newPicker = newPicker }
}

// WithZone tells the zone of the caller. Requests then stay in that zone while it can
// take them: see [balance.PreferZone]. An empty zone changes nothing.
func WithZone(zone string) Option { return func(t *Transport) { t.zone = zone } }

// WithMetrics records the duration of every attempt.
func WithMetrics(m *telemetry.ClientMetrics) Option { return func(t *Transport) { t.metrics = m } }

// WithDialControl has control asked before each connection is made, with the
// address that a name has led to; see net.Dialer.ControlContext. It does not go
// together with [WithBase].
func WithDialControl(control func(ctx context.Context, network, address string, c syscall.RawConn) error) Option {
	return func(t *Transport) { t.control = control }
}

// WithBase sets the transport for HTTP/1 and TLS. The Transport owns it from
// then on.
func WithBase(base *http.Transport) Option { return func(t *Transport) { t.base = base } }

// Transport sends requests to instances of services. It is safe for concurrent
// use. A request's context ends it and whatever it waits for.
type Transport struct {
	discover  Discoverer
	attempts  int
	newPicker func() balance.Picker
	zone      string
	metrics   *telemetry.ClientMetrics
	control   func(ctx context.Context, network, address string, c syscall.RawConn) error
	base      *http.Transport
	grpc      *http.Transport // HTTP/2 without TLS, which gRPC needs

	mu      sync.Mutex
	pickers atomic.Pointer[map[string]balance.Picker] // copied when a service is first called
}

// New returns a transport over the snapshot of d.
func New(d Discoverer, opts ...Option) *Transport {
	t := &Transport{discover: d, attempts: DefaultAttempts, newPicker: balance.P2C}
	for _, o := range opts {
		o(t)
	}
	if t.zone != "" {
		within := t.newPicker
		t.newPicker = func() balance.Picker { return balance.PreferZone(t.zone, within) }
	}
	if t.base == nil {
		t.base = t.newBase()
	}
	t.grpc = t.base.Clone()
	t.grpc.Protocols = new(http.Protocols)
	t.grpc.Protocols.SetUnencryptedHTTP2(true)
	t.pickers.Store(&map[string]balance.Picker{})
	return t
}

func (t *Transport) newBase() *http.Transport {
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
	t.base.CloseIdleConnections()
	t.grpc.CloseIdleConnections()
}

// serviceName returns the service a host stands for: a service's name, without
// a port. "localhost" is this machine.
func serviceName(host string) (string, bool) {
	return host, registry.ValidName(host) && host != "localhost"
}

// RoundTrip implements http.RoundTripper. For a service's name every error is
// an [*Error].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	service, ok := serviceName(req.URL.Host)
	if !ok {
		return t.base.RoundTrip(req)
	}
	if req.URL.Scheme == "https" {
		closeBody(req)
		return nil, &Error{Service: service, Kind: Refused, Err: ErrScheme}
	}
	body := newBody(req)
	defer body.settle()
	key := keyFrom(req.Context())
	var tried []*balance.Endpoint
	var last *Error
	for attempt := 1; attempt <= t.attempts; attempt++ {
		ep := t.pick(service, key, tried)
		if ep == nil {
			break
		}
		resp, err := t.attempt(req, body, service, ep)
		if err == nil {
			return resp, nil
		}
		last = &Error{Service: service, Instance: ep.ID, Attempts: attempt, Kind: classify(req.Context(), err), Err: err}
		if !last.Kind.retryable(req) || !body.rewind(req) {
			break
		}
		tried = append(tried, ep)
	}
	if last == nil {
		last = &Error{Service: service, Kind: NoInstance, Err: &registry.NoInstanceError{Service: service}}
	}
	return nil, last
}

func (t *Transport) pick(service, key string, tried []*balance.Endpoint) *balance.Endpoint {
	set := t.discover.Endpoints(service)
	if set.Len() == 0 {
		return nil
	}
	return balance.PickKeyExcept(t.picker(service), set, key, tried)
}

// picker returns the service's own picker. Only services that have had
// instances get one, so strangers can't make the map grow.
func (t *Transport) picker(service string) balance.Picker {
	if p := (*t.pickers.Load())[service]; p != nil {
		return p
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := (*t.pickers.Load())[service]; p != nil {
		return p
	}
	next := maps.Clone(*t.pickers.Load())
	next[service] = t.newPicker()
	t.pickers.Store(&next)
	return next[service]
}

// attempt sends the request to one instance.
func (t *Transport) attempt(req *http.Request, body *body, service string, ep *balance.Endpoint) (*http.Response, error) {
	out := outgoing(req, ep)
	if body != nil {
		out.Body = body.lend()
	}
	base := t.base
	if out.URL.Scheme == "http" && isGRPC(out) {
		base = t.grpc
	}
	ep.Begin()
	start := time.Now()
	resp, err := base.RoundTrip(out)
	took := time.Since(start)
	if err != nil {
		kind := classify(req.Context(), err)
		// A caller who gave up says nothing about the instance but how long it
		// kept him waiting, which counts: a deadline of his own choice must not
		// make a healthy instance look broken.
		ep.End(took, kind != Canceled && kind != Timeout)
		if t.metrics != nil {
			t.metrics.Observe(service, req.Method, 0, kind.String(), took)
		}
		return nil, err
	}
	if t.metrics != nil {
		t.metrics.Observe(service, req.Method, resp.StatusCode, "", took)
	}
	resp.Request = req
	resp.Body = countBody(resp.Body, ep, took, resp.StatusCode >= http.StatusInternalServerError)
	return resp, nil
}

// isGRPC reports whether a request is a gRPC call, which needs HTTP/2. gRPC-Web
// is another protocol, made for HTTP/1.
func isGRPC(req *http.Request) bool {
	rest, ok := strings.CutPrefix(req.Header.Get("Content-Type"), "application/grpc")
	return ok && req.Method == http.MethodPost && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// outgoing returns req as it goes to one instance. req itself is not changed.
func outgoing(req *http.Request, ep *balance.Endpoint) *http.Request {
	out := new(http.Request)
	*out = *req
	u := *req.URL
	u.Scheme, u.Host, _ = strings.Cut(ep.Address, "://")
	out.URL = &u
	if out.Host == req.URL.Host {
		out.Host = ""
	}
	ctx := req.Context()
	trace, traced := telemetry.TraceFrom(ctx)
	deadline, bounded := ctx.Deadline()
	bounded = bounded && req.Header.Get(requestTimeout) == ""
	id := telemetry.RequestID(ctx)
	traced = traced && req.Header.Get("Traceparent") == ""
	if id != "" && req.Header.Get("X-Request-Id") != "" {
		id = ""
	}
	if traced || bounded || id != "" {
		out.Header = maps.Clone(req.Header)
		if out.Header == nil {
			out.Header = http.Header{}
		}
		if traced {
			out.Header.Set("Traceparent", trace.Child().String())
			if trace.State != "" {
				out.Header.Set("Tracestate", trace.State)
			}
		}
		if id != "" {
			out.Header.Set("X-Request-Id", id)
		}
		if bounded {
			left := max(time.Until(deadline)-deadlineMargin, time.Millisecond)
			out.Header.Set(requestTimeout, strconv.FormatInt(left.Milliseconds(), 10))
		}
	}
	return out
}
