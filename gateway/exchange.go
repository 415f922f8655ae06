package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
)

// statusClientGone is logged for a client that left before it got an answer. It
// is never sent.
const statusClientGone = 499

// exchange is one request and its response in the net/http data plane. One
// allocation holds all of it. It is not reused: the transport may still read from
// the request's body when the handler has returned.
type exchange struct {
	Request
	gateway  *Gateway
	in       *http.Request
	ctx      context.Context // with the trace and the request id
	traced   telemetry.TraceContext
	carrier  carrier
	out      recorder
	resp     fields
	values   valueSlots
	call     call
	reqBody  requestBody
	respBody responseBody
	start    time.Time
	err      error // what went wrong, for the log
	gone     bool  // the client left
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{gateway: g, in: r, start: time.Now()}
	x.out.ResponseWriter = w
	x.out.patience = g.patience
	if r.ProtoMajor == 1 {
		x.out.free = freeBytes
	}
	x.Request = Request{
		Method:    r.Method,
		Authority: r.Host,
		Target:    r.URL.EscapedPath(),
		TLS:       r.TLS != nil,
		Header:    r.Header,
		HasBody:   r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody,
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		x.Peer = peer.Addr()
	}
	g.metrics.Route(r.Method, "").Begin()
	defer func() { x.finish(recover()) }()
	x.ctx = r.Context()
	if err := g.Admit(x.ctx, &x.Request, &x.resp); err != nil {
		x.describe()
		x.answer(err)
		return
	}
	x.describe()
	if err := x.checkArrival(); err != nil {
		x.refused = "arrival"
		x.answer(err)
		return
	}
	if err := x.limitBody(); err != nil {
		x.refused = "body"
		x.answer(err)
		return
	}
	x.proxy()
}

// describe makes the context that logs and the transport see.
func (x *exchange) describe() {
	x.traced = telemetry.TraceContext{Context: x.ctx, Trace: x.Trace}
	x.ctx = telemetry.ContextWithRequestID(&x.traced, x.RequestID)
	if x.Priority != concurrency.Normal {
		x.ctx = concurrency.ContextWithPriority(x.ctx, x.Priority)
	}
}

// checkArrival refuses what can't go on to an upstream as it came: a space in the
// query, which HTTP/2 can carry, would end the target in the request line of an
// HTTP/1 upstream, and what follows it would be read as the version (RFC 9113,
// section 10.3); and gRPC needs HTTP/2 all the way.
func (x *exchange) checkArrival() error {
	if strings.IndexByte(x.in.URL.RawQuery, ' ') >= 0 {
		return badRequest(errQuerySpace)
	}
	if x.in.ProtoMajor == 1 && grpcType(x.Header) {
		return problem.New(http.StatusHTTPVersionNotSupported, codeHTTPVersion, "gRPC needs HTTP/2; over HTTP/1 there is gRPC-Web.")
	}
	return nil
}

// answer makes the response without an upstream.
func (x *exchange) answer(err error) {
	if x.reqBody.x == nil && x.HasBody {
		// The server reads the body before it answers.
		_ = x.stopReading(time.Now().Add(lingerTimeout))
	}
	x.decorate(x.out.Header())
	if a, ok := errors.AsType[*Answer](err); ok {
		if a.Endpoint != "" {
			x.gateway.serveEndpoint(&x.out, x.in.WithContext(x.ctx), a.Endpoint)
			return
		}
		x.out.WriteHeader(a.Status)
		return
	}
	if _, ok := errors.AsType[*problem.Problem](err); !ok {
		x.err = err
	}
	p := problem.From(err)
	p.TraceID = x.Trace.TraceIDString()
	problem.Write(&x.out, x.in, p)
}

// decorate puts the gateway's own headers and the policies' on a response.
func (x *exchange) decorate(h http.Header) {
	if x.table != nil && x.table.cors {
		for name := range h {
			if strings.HasPrefix(name, "Access-Control-") {
				delete(h, name)
			}
		}
	}
	h[headerRequestID] = x.values.one(x.RequestID)
	h[headerGatewayRequestID] = x.values.one(x.GatewayRequestID)
	if x.Service != "" {
		h[headerServiceName] = x.values.one(x.Service)
	}
	x.resp.apply(h, &x.values)
	// If there was a Content-Length beside Transfer-Encoding, a proxy before us
	// may have gone by it, and what follows on the connection is not what that
	// proxy thinks. net/http hides whether there was; RFC 9112, section 6.1, has
	// us close. The same goes for a body that was not read to its end, and for
	// HTTP/1.0, where net/http ignores Transfer-Encoding: a proxy must not keep such
	// a connection (RFC 9112, section 9.3).
	if x.in.ProtoMajor == 1 && (x.in.ProtoMinor == 0 || len(x.in.TransferEncoding) > 0 || x.reqBody.unread()) {
		h["Connection"] = x.values.one("close")
	}
}

// finish recovers from panics, logs and measures.
func (x *exchange) finish(panicked any) {
	status := x.out.status
	switch {
	case panicked == nil || panicked == http.ErrAbortHandler: //nolint:errorlint // net/http compares so, too
	case status == 0:
		x.panicLog(panicked)
		panicked = nil
		x.answer(problem.New(http.StatusInternalServerError, problem.CodeInternal, "The gateway failed to handle this request."))
		status = x.out.status
	default:
		// It is too late for an answer: cut the connection, so that nobody
		// takes the half of one for a whole.
		x.panicLog(panicked)
		panicked = http.ErrAbortHandler
	}
	// At the end, and whatever happens: this may wait for the client, which is no
	// part of how long the answer took.
	defer x.out.settle()
	defer x.reqBody.end(panicked == nil && status != 0)
	took := time.Since(x.start)
	if x.out.failed || panicked != nil && x.in.Context().Err() != nil {
		x.gone, x.err = true, nil
	}
	pattern := ""
	if x.Route != nil {
		pattern = x.Route.Path
	} else if x.refused == "endpoints" {
		pattern = x.Path
	}
	if x.gone && status == 0 {
		status = statusClientGone
		x.gateway.metrics.Route(x.in.Method, pattern).End(0, took)
	} else {
		if status == 0 && panicked == nil {
			status = http.StatusOK // net/http will say so
		}
		x.gateway.metrics.Route(x.in.Method, pattern).End(status, took)
	}
	x.log(status, took, panicked != nil && !x.gone)
	if panicked != nil {
		panic(panicked)
	}
}

func (x *exchange) panicLog(panicked any) {
	x.gateway.deps.Logger.ErrorContext(x.ctx, "panic", "panic", panicked, "stack", string(debug.Stack()))
}

// log writes the access log's record. Neither query nor headers are in it.
func (x *exchange) log(status int, took time.Duration, cut bool) {
	level := slog.LevelInfo
	if status >= 500 || cut {
		level = slog.LevelWarn
	}
	logger := x.gateway.deps.Logger
	if x.table == nil || x.table.log == LogNone || x.table.log == LogErrors && status < 400 && !cut || !logger.Enabled(x.ctx, level) {
		return
	}
	var buf [16]slog.Attr
	attrs := append(buf[:0],
		slog.String("method", clip(x.in.Method, 32)),
		slog.String("path", clip(x.Target, maxPath)),
		slog.Int("status", status),
		slog.Int64("bytes", x.out.bytes),
		slog.Duration("duration", took),
	)
	if x.Client.IsValid() {
		attrs = append(attrs, slog.String("client", x.Client.String()))
	}
	if x.Host != "" {
		attrs = append(attrs, slog.String("host", x.Host))
	}
	if x.Route != nil {
		attrs = append(attrs, slog.String("route", x.Route.Path), slog.String("service", x.Service))
	}
	if x.Identity != nil {
		attrs = append(attrs, slog.String("subject", x.Identity.Subject))
	}
	if x.refused != "" && status >= 400 {
		attrs = append(attrs, slog.String("refused_by", x.refused))
	}
	if x.gone {
		attrs = append(attrs, slog.Bool("client_gone", true))
	}
	if cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	if x.err != nil {
		attrs = append(attrs, slog.Any("error", x.err))
	}
	logger.LogAttrs(x.ctx, level, "request", attrs...)
}

// clip bounds what a client can write into the log.
func clip(s string, n int) string { return s[:min(len(s), n)] }

// fields is the Header policies set response headers on: there are few, and
// they are copied once.
type fields struct {
	n     int
	first [8]field
	more  []field
}

type field struct {
	name, value string
	add         bool
}

func (f *fields) each(yield func(*field) bool) {
	for i := range f.n {
		if !yield(&f.first[i]) {
			return
		}
	}
	for i := range f.more {
		if !yield(&f.more[i]) {
			return
		}
	}
}

func (f *fields) Get(name string) string {
	for it := range f.each {
		if it.name == canonical(name) {
			return it.value
		}
	}
	return ""
}

func (f *fields) Values(name string) []string {
	var values []string
	for it := range f.each {
		if it.name == canonical(name) {
			values = append(values, it.value)
		}
	}
	return values
}

func (f *fields) Set(name, value string) {
	f.Del(name)
	f.push(field{canonical(name), value, false})
}

func (f *fields) Add(name, value string) { f.push(field{canonical(name), value, true}) }

func (f *fields) push(it field) {
	if f.n < len(f.first) {
		f.first[f.n] = it
		f.n++
		return
	}
	f.more = append(f.more, it)
}

func (f *fields) Del(name string) {
	name = canonical(name)
	for it := range f.each {
		if it.name == name {
			it.name = "" // apply leaves it out
		}
	}
}

// apply puts the fields on h. A name replaces what the upstream said of it,
// except for Vary, where both hold.
func (f *fields) apply(h http.Header, slots *valueSlots) {
	for it := range f.each {
		if it.name != "" && it.name != "Vary" {
			delete(h, it.name)
		}
	}
	for it := range f.each {
		if it.name == "" {
			continue
		}
		if prior := h[it.name]; len(prior) > 0 {
			h[it.name] = append(prior, it.value)
		} else {
			h[it.name] = slots.one(it.value)
		}
	}
}

// valueSlots hands out header values without an allocation for each.
type valueSlots struct {
	n     int
	slots [24]string
}

func (s *valueSlots) one(v string) []string {
	if s.n == len(s.slots) {
		return []string{v}
	}
	s.slots[s.n] = v
	s.n++
	return s.slots[s.n-1 : s.n : s.n]
}
