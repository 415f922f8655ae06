package client

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/telemetry"
)

// isGRPC reports whether a request is a gRPC call, which needs HTTP/2. gRPC-Web
// is another protocol, made for HTTP/1.
func isGRPC(req *http.Request) bool {
	if req.Method != http.MethodPost {
		return false
	}
	rest, ok := strings.CutPrefix(req.Header.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// address makes the request that goes to the attempt's instance. req itself is not
// changed.
func (a *attempt) address(ctx context.Context, req *http.Request) {
	if ctx != req.Context() {
		req = req.WithContext(ctx)
	}
	a.out, a.url = *req, *req.URL
	a.url.Scheme, a.url.Host, _ = strings.Cut(a.ep.Address, "://")
	a.out.URL = &a.url
	if a.out.Host == req.URL.Host {
		a.out.Host = ""
	}
	p := passing(ctx, req.Header, isGRPC(req))
	if p == (passed{}) {
		return
	}
	if a.out.Header = maps.Clone(req.Header); a.out.Header == nil {
		a.out.Header = make(http.Header, 4)
	}
	p.write(ctx, a.out.Header)
}

// passed is what of a context goes along, unless the request says it already.
type passed struct {
	trace    bool
	id       string
	deadline bool
	grpc     bool // gRPC's deadline
	priority concurrency.Priority
}

func passing(ctx context.Context, h http.Header, grpc bool) (p passed) {
	if h["Traceparent"] == nil {
		_, p.trace = telemetry.TraceFrom(ctx)
	}
	if h["X-Request-Id"] == nil {
		p.id = telemetry.RequestID(ctx)
	}
	if at, ok := ctx.Deadline(); ok {
		p.deadline = !tells(h, deadline.Header, at)
		p.grpc = grpc && !tells(h, deadline.HeaderGRPC, at)
	}
	if h[concurrency.Header] == nil {
		p.priority = concurrency.PriorityFrom(ctx)
	}
	return p
}

// tells reports whether a header says how long the caller waits, and no more than that
// is until at: when a request is sent again, some of the time is gone.
func tells(h http.Header, name string, at time.Time) bool {
	if h[name] == nil {
		return false
	}
	said, ok := deadline.Caller(func(n string) []string {
		if n == name {
			return h[n]
		}
		return nil
	})
	return ok && said <= time.Until(at)
}

func (p passed) write(ctx context.Context, h http.Header) {
	if p.trace {
		trace, _ := telemetry.TraceFrom(ctx)
		h.Set("Traceparent", trace.Child().String())
		if trace.State != "" {
			h.Set("Tracestate", trace.State)
		}
	}
	if p.id != "" {
		h.Set("X-Request-Id", p.id)
	}
	if p.deadline {
		deadline.Inject(ctx, h.Set)
	}
	if p.grpc {
		deadline.InjectGRPC(ctx, h.Set)
	}
	if p.priority != concurrency.Normal {
		h.Set(concurrency.Header, p.priority.String())
	}
}
