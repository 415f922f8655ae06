package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// carrier is the context that takes an exchange through httputil.ReverseProxy.
type carrier struct {
	context.Context
	x *exchange
}

// Deadline tells the transport how long the gateway waits for an answer, so that it
// does not begin what can't end in time. It is the call's timer that ends the context.
func (c *carrier) Deadline() (time.Time, bool) {
	if c.x.call.state.Load() == waiting && !c.x.call.until.IsZero() {
		return c.x.call.until, true
	}
	return c.Context.Deadline()
}

type exchangeKey struct{}

func (c *carrier) Value(key any) any {
	if key == (exchangeKey{}) {
		return c.x
	}
	return c.Context.Value(key)
}

func exchangeOf(r *http.Request) *exchange {
	return r.Context().Value(exchangeKey{}).(*exchange)
}

// newProxy returns the one proxy of a gateway; all that is of one request is in
// its exchange.
func newProxy(g *Gateway) httputil.ReverseProxy {
	return httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { exchangeOf(pr.In).rewrite(pr) },
		Transport:      timedTransport{g.deps.Transport},
		ModifyResponse: func(res *http.Response) error { return exchangeOf(res.Request).modify(res) },
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { exchangeOf(r).fail(err) },
		ErrorLog:       log.New(io.Discard, "", 0), // the access log tells it, with the request
		BufferPool:     &buffers,
	}
}

// proxy sends the request to the upstream and its answer to the client.
func (x *exchange) proxy() {
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	x.call.cancel = cancel
	defer x.call.settle()
	x.carrier = carrier{ctx, x}
	x.gateway.proxy.ServeHTTP(&x.out, x.in.WithContext(&x.carrier))
}

// rewrite makes the upstream's request. ReverseProxy has taken off what concerns
// one connection only (RFC 9110, section 7.6.1).
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	target := x.UpstreamTarget()
	out.URL.Scheme, out.URL.Host, out.URL.Opaque, out.URL.User = "http", x.Service, "", nil
	out.URL.Path = strings.TrimPrefix(x.Path, x.Route.StripPrefix)
	if out.URL.Path == "" {
		out.URL.Path = "/"
	}
	out.URL.RawPath = target
	out.URL.RawQuery, out.URL.ForceQuery = x.in.URL.RawQuery, x.in.URL.ForceQuery
	if !x.Route.PreserveHost {
		out.Host = ""
	}
	for name := range out.Header {
		if !x.Forwards(name) {
			delete(out.Header, name)
		}
	}
	x.UpstreamHeader(func(name, value string) { out.Header[name] = x.values.one(value) })
	// Other protocols would be a tunnel past every policy: h2c (RFC 7540,
	// section 3.2) is the known one. After a body nobody could tell where the
	// tunnel begins, and no WebSocket begins with one.
	if up := out.Header["Upgrade"]; up != nil {
		if len(up) == 1 && strings.EqualFold(up[0], "websocket") && x.in.ProtoMajor == 1 && !x.HasBody {
			x.call.upgrade = true
		} else {
			delete(out.Header, "Upgrade")
			delete(out.Header, "Connection")
		}
	}
	delete(out.Header, "Http2-Settings")
	x.reqBody.attach(x, out)
}

// modify looks at the upstream's answer before it goes on.
func (x *exchange) modify(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols {
		if !x.call.upgrade || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
			return errors.New("the upstream switched to a protocol nobody asked for")
		}
		x.out.status = res.StatusCode
		x.decorate(res.Header)
		x.call.endOn(x.gateway.draining)
		return nil
	}
	if res.StatusCode < 200 {
		return fmt.Errorf("the upstream answered with %d, which is no status", res.StatusCode)
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		x.call.endOn(x.gateway.draining)
	}
	x.respBody = responseBody{ReadCloser: res.Body, x: x}
	res.Body = &x.respBody
	if x.Route.StripPrefix != "" {
		restorePrefix(res.Header, x.Route.StripPrefix)
	}
	// ReverseProxy would copy them one by one, and reads the type alone.
	h := x.out.Header()
	for name, values := range res.Header {
		if name != "Content-Type" {
			h[name] = values
			delete(res.Header, name)
		}
	}
	x.decorate(h)
	return nil
}

// responseBody notes why an answer broke off.
type responseBody struct {
	io.ReadCloser
	x *exchange
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.x.err = fmt.Errorf("read the answer of %s: %w", b.x.Service, err)
	}
	return n, err
}

// fail answers for an upstream that gave no answer.
func (x *exchange) fail(err error) {
	x.refused = "upstream"
	x.err = err
	if x.out.status != 0 {
		// Only after a failed switch of protocols: the connection is not HTTP any more.
		panic(http.ErrAbortHandler)
	}
	p := x.call.verdict()
	if p == nil && x.in.Context().Err() != nil {
		x.gone = true
		panic(http.ErrAbortHandler)
	}
	if p == nil {
		p = x.classify(err)
	}
	if p.Status == http.StatusServiceUnavailable && p.Retryable {
		x.resp.Set("Retry-After", retryAfter(err))
	}
	x.answer(p)
}

// buffers are for copying bodies.
var buffers = bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[32 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }
