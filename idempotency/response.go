package idempotency

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// notKept are headers that belong to one connection or one request.
var notKept = []string{
	"Connection", "Content-Length", "Date", "Keep-Alive", "Proxy-Connection", "Trailer", "Transfer-Encoding", "Upgrade",
	"X-Request-Id", "Traceparent", "Tracestate", ReplayedHeader,
}

// response keeps an answer back until it is stored. From the moment the handler
// flushes, or has written more than can be kept, it goes out as it is written.
type response struct {
	w       http.ResponseWriter
	max     int
	before  http.Header // what those outside have set
	header  http.Header // what the handler sees and sets
	status  int         // of the final header, 0 before it is written
	sent    http.Header // header, at that moment
	body    []byte
	written int64 // bytes of the body, kept or not
	omitted bool  // the body is too large to keep
	passing bool  // the header and what was written went out
}

func newResponse(w http.ResponseWriter, most int) *response {
	return &response{w: w, max: most, before: w.Header().Clone(), header: cloned(w.Header())}
}

// cloned is never nil.
func cloned(h http.Header) http.Header {
	if h = h.Clone(); h == nil {
		return http.Header{}
	}
	return h
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	switch {
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %d", status)) // as net/http has it
	case r.status != 0:
	case status < 200 && status != http.StatusSwitchingProtocols:
		replace(r.w.Header(), r.header)
		r.w.WriteHeader(status)
	default:
		r.status, r.sent = status, cloned(r.header)
	}
}

func (r *response) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	r.written += int64(len(b))
	if !r.omitted && len(b) > r.max-len(r.body) {
		err := r.pass()
		r.omitted, r.body = true, nil
		if err != nil {
			return 0, err
		}
	}
	if !r.omitted {
		r.body = append(r.body, b...)
	}
	if r.passing {
		return r.w.Write(b)
	}
	return len(b), nil
}

// pass sends what was kept back; what follows goes out at once.
func (r *response) pass() error {
	if r.passing {
		return nil
	}
	r.passing = true
	replace(r.w.Header(), r.sent)
	r.w.WriteHeader(r.status)
	if len(r.body) == 0 {
		return nil
	}
	_, err := r.w.Write(r.body)
	return err
}

// Flush sends what was written so far; see FlushError.
func (r *response) Flush() { _ = r.FlushError() }

// FlushError is Flush for a ResponseController. It sends the header, too.
func (r *response) FlushError() error {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if err := r.pass(); err != nil {
		return err
	}
	return http.NewResponseController(r.w).Flush()
}

// Hijack is refused: what goes over the connection then could not be kept.
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, fmt.Errorf("a request with an idempotency key: %w", http.ErrNotSupported)
}

// Unwrap gives a ResponseController all the rest.
func (r *response) Unwrap() http.ResponseWriter { return r.w }

// cut reports whether the handler, which has returned, gave up in the middle: it
// has written nothing because its context had ended, or less or more than it said
// it would.
func (r *response) cut(ctx context.Context) bool {
	if r.status == 0 {
		return ctx.Err() != nil
	}
	length := r.sent.Get("Content-Length")
	return length != "" && bodyAllowed(r.status) && length != strconv.FormatInt(r.written, 10)
}

// final is the status in the end.
func (r *response) final() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// answer is what is kept of a finished response. Where it went out as it was
// written and the context of the handler has ended, most likely because the client
// left, what the handler wrote may be half of it; that is not to be sent as the whole.
func (r *response) answer(ctx context.Context) Answer {
	if r.omitted || r.passing && ctx.Err() != nil && r.sent.Get("Content-Length") == "" {
		return Answer{Status: r.final(), Omitted: true}
	}
	sent := r.sent
	if r.status == 0 {
		sent = r.header
	}
	kept := http.Header{}
	for name, values := range sent {
		if !slices.Contains(notKept, name) && !strings.HasPrefix(name, http.TrailerPrefix) && !slices.Equal(r.before[name], values) {
			kept[name] = values
		}
	}
	for _, list := range sent["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			delete(kept, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	return Answer{Status: r.final(), Header: kept, Body: r.body}
}

// finish sends what was not sent yet. A failure means that the client has gone.
func (r *response) finish() {
	if r.status == 0 { // nobody has to be told that there is nothing
		replace(r.w.Header(), r.header)
		return
	}
	if !r.passing && bodyAllowed(r.status) && r.sent.Get("Content-Length") == "" && r.sent.Get("Transfer-Encoding") == "" && r.sent.Get("Trailer") == "" {
		r.sent.Set("Content-Length", strconv.FormatInt(r.written, 10))
	}
	_ = r.pass()
	for name, values := range r.header { // trailers, which are set after the body
		if strings.HasPrefix(name, http.TrailerPrefix) || len(r.sent["Trailer"]) > 0 && !slices.Equal(r.sent[name], values) {
			r.w.Header()[name] = values
		}
	}
}

// replay sends a kept answer.
func replay(w http.ResponseWriter, a Answer) {
	maps.Copy(w.Header(), a.Header)
	w.Header().Set(ReplayedHeader, "true")
	if bodyAllowed(a.Status) {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(a.Status)
	if len(a.Body) > 0 && bodyAllowed(a.Status) {
		_, _ = w.Write(a.Body) // it fails if the client has gone
	}
}

// replace makes all of to what from is.
func replace(to, from http.Header) {
	clear(to)
	maps.Copy(to, from)
}

// bodyAllowed is RFC 9110, section 6.4.1.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
