package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// ProbeResult is what one probe says about an instance.
type ProbeResult int

// Results of a probe.
const (
	ProbeOK        ProbeResult = iota + 1 // it answers
	ProbeRefused                          // nobody listens at its address
	ProbeOther                            // another instance answers at its address
	ProbeBroken                           // the connection was cut: perhaps it is just dying
	ProbeFailed                           // too slow, unreachable, or it says that it is unwell
	ProbeForbidden                        // its address is none that may be asked: see [CheckableAddress]
)

// String returns the result in words, for logs.
func (p ProbeResult) String() string {
	switch p {
	case ProbeOK:
		return "answers"
	case ProbeRefused:
		return "connection refused"
	case ProbeOther:
		return "another instance answers"
	case ProbeBroken:
		return "connection cut"
	case ProbeFailed:
		return "no good answer"
	case ProbeForbidden:
		return "its address may not be checked"
	}
	return fmt.Sprintf("ProbeResult(%d)", int(p))
}

// Prober finds out whether an instance is alive. It is safe for concurrent use, and
// gives up when its context ends.
type Prober interface {
	Probe(ctx context.Context, in Instance) ProbeResult
}

// InstanceHeader is the response header by which a Keelson service says which
// instance answered its health check.
const InstanceHeader = "X-Instance-Id"

// ProbeTimeout bounds one probe.
const ProbeTimeout = 2 * time.Second

type httpProber struct {
	client *http.Client
	dialer net.Dialer
}

// NewProber returns the prober that asks an instance's health URL, or opens a
// connection to its address where it has none. Each probe opens a connection of
// its own, follows no redirect, takes at most [ProbeTimeout] and reads no body.
// It uses no proxy and keeps no cookies, and wherever a name may lead, it connects
// to no address but a [CheckableAddress].
func NewProber() Prober {
	p := &httpProber{dialer: net.Dialer{ControlContext: DialCheckable}}
	p.client = &http.Client{
		Timeout: ProbeTimeout,
		Transport: &http.Transport{
			Proxy:                  nil, // not even the environment's
			DialContext:            p.dial,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			ReadBufferSize:         1 << 10, // one small answer for each
			WriteBufferSize:        1 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

func (p *httpProber) Probe(ctx context.Context, in Instance) ProbeResult {
	ctx, cancel := context.WithTimeout(ctx, ProbeTimeout)
	defer cancel()
	if in.Health == "" {
		return p.connect(ctx, in)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, in.Health, nil)
	if err != nil {
		return ProbeFailed
	}
	req.Header.Set("User-Agent", "keelson-check")
	resp, err := p.client.Do(req)
	if err != nil {
		return classify(err)
	}
	defer resp.Body.Close()
	if id := resp.Header.Get(InstanceHeader); id != "" && id != in.ID {
		return ProbeOther
	}
	if resp.StatusCode/100 != 2 {
		return ProbeFailed
	}
	return ProbeOK
}

func (p *httpProber) connect(ctx context.Context, in Instance) ProbeResult {
	u, err := url.Parse(in.Address)
	if err != nil {
		return ProbeFailed
	}
	conn, err := p.dial(ctx, "tcp", u.Host)
	if err != nil {
		return classify(err)
	}
	conn.Close()
	return ProbeOK
}

// dial connects as usual, but tells a refused connection only when every
// address of the host refuses: one that is silent may be the instance's.
func (p *httpProber) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.dialer.DialContext(ctx, network, address)
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
		return conn, err
	}
	host, port, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, err
	}
	addrs, lookupErr := net.DefaultResolver.LookupHost(ctx, host)
	if lookupErr != nil {
		return nil, lookupErr
	}
	if len(addrs) == 1 {
		return nil, err
	}
	for _, a := range addrs {
		conn, err := p.dialer.DialContext(ctx, network, net.JoinHostPort(a, port))
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
	}
	return nil, err
}

func classify(err error) ProbeResult {
	switch {
	case errors.Is(err, errNotCheckable):
		return ProbeForbidden
	case errors.Is(err, syscall.ECONNREFUSED):
		return ProbeRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ProbeBroken
	}
	return ProbeFailed
}
