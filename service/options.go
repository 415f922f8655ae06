package service

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/inprocess"
	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/telemetry"
)

// Defaults of [New].
const (
	DefaultStopTimeout = 10 * time.Second
	DefaultDrainDelay  = 250 * time.Millisecond
	DefaultBodyLimit   = 1 << 20 // bytes
)

type options struct {
	version, id, zone       string
	host, advertise         string
	port                    int
	listener                net.Listener
	tags                    []string
	metadata                map[string]string
	registry                *registry.Registry
	telemetry               *telemetry.Telemetry
	log                     telemetry.Config
	stopTimeout, drainDelay time.Duration
	requestTimeout          time.Duration
	bodyLimit               int64
	concurrency             []concurrency.Option
	unlimited               bool
	cors                    middleware.Middleware
	neighbours              *inprocess.Directory
	forced                  <-chan struct{}
	environment             func(string) string
	err                     error
}

// apply returns the defaults changed by opts.
func apply(opts []Option) options {
	o := options{
		host: "127.0.0.1", version: "dev", stopTimeout: DefaultStopTimeout,
		drainDelay: DefaultDrainDelay, bodyLimit: DefaultBodyLimit,
	}
	environment := Environment(opts...) // read by options that may stand before the one that sets it
	for _, opt := range opts {
		o.environment = environment
		opt(&o)
	}
	return o
}

// Option changes a default of [New].
type Option func(*options)

// WithVersion sets the version that /health and the registry show; "dev" by default.
func WithVersion(v string) Option { return func(o *options) { o.version = v } }

// WithPort sets the port to listen on; 0, the default, takes a free one.
func WithPort(port int) Option { return func(o *options) { o.port = port } }

// WithHost sets the address to listen on. The default is 127.0.0.1: being
// reachable from other machines is a decision. Use "0.0.0.0" or "::" for all.
func WithHost(host string) Option { return func(o *options) { o.host = host } }

// WithListener has the service serve on l, a TCP listener that is open already,
// instead of on a host and port. Run closes it.
func WithListener(l net.Listener) Option { return func(o *options) { o.listener = l } }

// WithAdvertise sets the address under which others reach this instance: a host
// (with the port listened on), host:port or an absolute URL. By default it is
// the host listened on, or the machine's name when that is all.
func WithAdvertise(address string) Option { return func(o *options) { o.advertise = address } }

// WithInstance sets the instance's id; by default it is made of name, host and port.
func WithInstance(id string) Option { return func(o *options) { o.id = id } }

// WithTags sets the tags under which the instance can be discovered.
func WithTags(tags ...string) Option { return func(o *options) { o.tags = tags } }

// WithMetadata sets the instance's free metadata.
func WithMetadata(m map[string]string) Option { return func(o *options) { o.metadata = m } }

// WithZone sets the failure domain the instance runs in. Its calls to other
// services prefer instances of the same one; see balance.PreferZone.
func WithZone(zone string) Option { return func(o *options) { o.zone = zone } }

// WithRegistry has the service registered and gives its client the fleet. The
// registry stays the caller's, to close after Run. Without one the service is
// reached by address only.
func WithRegistry(r *registry.Registry) Option { return func(o *options) { o.registry = r } }

// WithTelemetry replaces the metrics and logs the service would set up.
func WithTelemetry(t *telemetry.Telemetry) Option { return func(o *options) { o.telemetry = t } }

// WithLogOutput sets where logs go; standard error by default. With
// [WithTelemetry] it does nothing.
func WithLogOutput(w io.Writer) Option { return func(o *options) { o.log.Output = w } }

// WithStopTimeout bounds the whole stop; [DefaultStopTimeout] by default and for 0.
func WithStopTimeout(d time.Duration) Option { return func(o *options) { o.stopTimeout = d } }

// WithDrainDelay sets how long the service goes on serving after it has left
// the registry; [DefaultDrainDelay] by default. It is part of the stop's time
// and must be less.
func WithDrainDelay(d time.Duration) Option { return func(o *options) { o.drainDelay = d } }

// WithRequestTimeout gives every request's context a deadline. By default only
// a deadline that came with the request counts, so streams may be as long as
// they like.
func WithRequestTimeout(d time.Duration) Option { return func(o *options) { o.requestTimeout = d } }

// WithBodyLimit sets how large a request's body may be, in bytes;
// [DefaultBodyLimit] by default, 0 or less for no limit.
func WithBodyLimit(n int64) Option { return func(o *options) { o.bodyLimit = n } }

// WithConcurrencyLimit sets how many requests may be under way at once, as
// concurrency.New takes it; what is more is refused with 503 (see middleware.Shed).
// By default the limit is adaptive: it refuses nothing until requests get much
// slower, and soon nothing again unless fewer at once are answered faster.
func WithConcurrencyLimit(opts ...concurrency.Option) Option {
	return func(o *options) { o.concurrency, o.unlimited = opts, false }
}

// WithoutConcurrencyLimit lets any number of requests be under way at once.
func WithoutConcurrencyLimit() Option {
	return func(o *options) { o.concurrency, o.unlimited = nil, true }
}

// limiter returns the limiter of requests, or nil for none.
func (o *options) limiter() (*concurrency.Limiter, error) {
	if o.unlimited {
		return nil, nil
	}
	return concurrency.New(o.concurrency...)
}

// WithCORS lets browsers call the service from other origins, as
// middleware.CORS made it.
func WithCORS(m middleware.Middleware) Option { return func(o *options) { o.cors = m } }

// WithInProcess has the service called without a socket by what shares d with it, and
// calls others so that share it, wherever its client would pick those instances anyway:
// see package inprocess. The service is in d while it listens. Nil means none.
func WithInProcess(d *inprocess.Directory) Option { return func(o *options) { o.neighbours = d } }

// WithForce cuts the stop short when c is closed; see lifecycle.Signals.
func WithForce(c <-chan struct{}) Option { return func(o *options) { o.forced = c } }

// check fills in defaults and tells everything that is wrong.
func (o *options) check(name string) error {
	var wrong []error
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if o.port < 0 || o.port > 65535 {
		refuse("the port is %d: give a number from 0 to 65535", o.port)
	}
	if o.stopTimeout == 0 {
		o.stopTimeout = DefaultStopTimeout
	}
	switch {
	case o.stopTimeout < 0:
		refuse("the stop timeout is %v: give more than 0", o.stopTimeout)
	case o.drainDelay < 0:
		refuse("the drain delay is %v: give 0 or more", o.drainDelay)
	case o.drainDelay >= o.stopTimeout:
		refuse("the drain delay is %v: give less than the stop timeout, %v", o.drainDelay, o.stopTimeout)
	}
	if o.requestTimeout < 0 {
		refuse("the request timeout is %v: give 0, for none, or more", o.requestTimeout)
	}
	// With a port in place of the one to come, the rest can be checked.
	host, port, err := o.advertised(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	if err == nil {
		in := o.instance(name, host, port)
		err = in.Normalize()
	}
	return errors.Join(append(wrong, err)...)
}

// advertised returns the address, and its port if that is not in it, under which
// others reach a listener at addr.
func (o *options) advertised(addr net.Addr) (host string, port int, err error) {
	tcp, ok := addr.(*net.TCPAddr)
	switch {
	case !ok:
		return "", 0, fmt.Errorf("listening on %s, which is no TCP address", addr)
	case hasPort(o.advertise):
		return o.advertise, 0, nil
	case o.advertise != "" || !tcp.IP.IsUnspecified():
		return cmp.Or(o.advertise, tcp.IP.String()), tcp.Port, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", 0, fmt.Errorf("find this machine's name (set KEELSON_ADVERTISE instead): %w", err)
	}
	return name, tcp.Port, nil
}
