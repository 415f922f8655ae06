package inprocess

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"time"
)

// short is the longest answer that is kept until the handler has returned, and then
// gets a Content-Length by itself. It is what net/http has, for answers shall look
// the same.
const short = 2048

var errReturned = errors.New("inprocess: write after the handler has returned")

// writer is the handler's http.ResponseWriter. As with net/http's, one goroutine
// may use it at a time.
type writer struct {
	call     *call
	header   http.Header // the handler's
	sent     http.Header // what of it counts: as it was when WriteHeader was called
	values   copier
	status   int    // 0 before WriteHeader
	length   int64  // that the handler has announced, -1 if none
	written  int64  // or tried to
	taken    int64  // of that
	buf      []byte // not delivered yet
	begun    bool   // the response is delivered, or can't be
	done     bool   // the handler has returned
	timed    bool   // it has set a deadline for writing
	blank    bool   // there are names without values
	trailers bool   // there may be some, so the body's end must be waited for
	declared []string
}

// Header returns the header that goes out with WriteHeader, and after that the one
// trailers are taken from.
func (w *writer) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header, 4)
	}
	return w.header
}

// WriteHeader sets the status, or sends an informational answer.
func (w *writer) WriteHeader(status int) {
	switch {
	case status < 100 || status > 999:
		panic(fmt.Sprintf("inprocess: invalid WriteHeader code %d", status)) // a mistake in the program; net/http does so, too
	case w.done || w.status != 0:
		w.call.server.log.Warn("inprocess: superfluous WriteHeader", "status", status, "method", w.call.request.Method, "path", w.call.url.Path)
		return
	case status < 200 && status != http.StatusSwitchingProtocols:
		w.inform(status)
		return
	}
	w.status, w.length = status, -1
	w.sent, w.values, w.trailers = copyHeader(w.header, 4)
	w.blank = w.values.blank
	if w.values.bad != "" {
		w.call.abort(badAnswer(w.values.bad))
	}
	if v := first(w.sent, "Content-Length"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil && n >= 0 {
			w.length = n
		} else {
			w.call.server.log.Warn("inprocess: invalid Content-Length", "value", v)
			w.sent["Content-Length"], w.blank = nil, true
		}
	}
}

// inform passes a 1xx answer to a caller that asked for it.
func (w *writer) inform(status int) {
	trace := httptrace.ContextClientTrace(w.call.caller.Context())
	if trace == nil {
		return
	}
	if status == http.StatusContinue && trace.Got100Continue != nil {
		trace.Got100Continue()
	}
	if trace.Got1xxResponse != nil {
		h, values, _ := copyHeader(w.header, 0)
		if values.bad != "" {
			w.call.abort(badAnswer(values.bad))
			return
		}
		delete(h, "Content-Length")
		delete(h, "Transfer-Encoding")
		if err := trace.Got1xxResponse(status, map[string][]string(h)); err != nil {
			w.call.abort(err)
		}
	}
}

// Write buffers the beginning of an answer, and waits for the caller to read once
// there is too much. It fails when the caller has gone.
func (w *writer) Write(b []byte) (int, error) {
	if err := w.admit(len(b)); err != nil || len(b) == 0 {
		return 0, err
	}
	room := 0
	if !w.begun {
		if room = short - len(w.buf); len(b) <= room {
			w.buf = append(w.buf, b...)
			return len(b), nil
		}
		w.buf = append(w.buf, b[:room]...)
		if err := w.begin(); err != nil {
			return 0, err
		}
	}
	if w.call.request.Method == http.MethodHead {
		return len(b), nil
	}
	n, err := w.call.out.write(b[room:])
	return room + n, err
}

// WriteString is Write for a string.
func (w *writer) WriteString(s string) (int, error) {
	if w.begun || len(s) > short-len(w.buf) {
		return w.Write([]byte(s))
	}
	if err := w.admit(len(s)); err != nil {
		return 0, err
	}
	w.buf = append(w.buf, s...)
	return len(s), nil
}

// admit makes ready for n more bytes of body.
func (w *writer) admit(n int) error {
	if w.done {
		return errReturned
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if n == 0 {
		return nil
	}
	if !allowsBody(w.status) {
		return http.ErrBodyNotAllowed
	}
	if w.written += int64(n); w.length >= 0 && w.written > w.length {
		return http.ErrContentLength
	}
	w.taken += int64(n)
	return nil
}

// Flush delivers what was written so far; see FlushError.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is Flush for an http.ResponseController. It delivers the header, too.
func (w *writer) FlushError() error {
	if err := w.admit(0); err != nil {
		return err
	}
	if !w.begun {
		return w.begin()
	}
	return w.call.out.state()
}

// EnableFullDuplex does nothing: it is always so.
func (*writer) EnableFullDuplex() error { return nil }

// SetReadDeadline ends waiting for the request's body at t.
func (w *writer) SetReadDeadline(t time.Time) error {
	if w.call.body != nil {
		w.call.body.setDeadline(t)
	}
	return nil
}

// SetWriteDeadline ends waiting for the caller to read at t.
func (w *writer) SetWriteDeadline(t time.Time) error {
	w.timed = true
	w.call.out.setDeadline(&w.call.out.writing, t)
	return nil
}

// begin delivers the response, whose body comes in pieces.
func (w *writer) begin() error {
	w.begun = true
	c := w.call
	w.describe(false)
	if c.response.Body == nil {
		c.pieces.left = w.length
		c.response.Body = &c.pieces
		if err := c.out.seed(w.buf); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.abort(errBroken)
			}
			return err
		}
	}
	w.buf = nil
	return c.deliver()
}

// finish delivers what there is when the handler has returned.
func (w *writer) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.done = true
	c := w.call
	end := io.EOF
	if w.length > w.taken && c.request.Method != http.MethodHead && allowsBody(w.status) {
		end = errBroken // it has written less than it announced
	}
	if w.timed && c.out.state() != nil { // the deadline has passed, if the caller is there at all
		if end = errBroken; !w.begun {
			c.abort(errBroken)
			return
		}
	}
	if !w.begun {
		w.begun = true
		w.describe(true)
		switch {
		case c.response.Body != nil:
		case w.trailers:
			c.pieces.left = -1
			c.response.Body = &c.pieces
			_ = c.out.seed(w.buf) // if not, the caller knows why
		default:
			c.whole.rest, c.whole.end = w.buf, end
			c.response.Body = &c.whole
			_ = c.deliver() // if not, the caller knows why
			return
		}
		_ = c.deliver() // likewise
	}
	if w.trailers {
		var bad string
		if c.pieces.trailer, bad = w.finalTrailer(); bad != "" {
			end = badAnswer(bad)
		}
	}
	c.out.finish(end)
}

// describe fills in the response, with a body only if it has none.
func (w *writer) describe(final bool) {
	c, h := w.call, w.sent
	head := c.request.Method == http.MethodHead
	encoding := first(h, "Transfer-Encoding")
	if _, ok := h["Trailer"]; ok {
		w.trailers = true
	}
	if final && !w.trailers && encoding == "" && allowsBody(w.status) && (!head || len(w.buf) > 0) {
		if _, ok := h["Content-Length"]; !ok {
			w.length = int64(len(w.buf))
			h["Content-Length"] = w.values.one(strconv.Itoa(len(w.buf)))
		}
	}
	if allowsBody(w.status) {
		if _, ok := h["Content-Type"]; !ok && len(w.buf) > 0 && encoding == "" && first(h, "Content-Encoding") == "" {
			h["Content-Type"] = w.values.one(http.DetectContentType(w.buf))
		}
	} else {
		delete(h, "Content-Length")
		if w.status == http.StatusNotModified {
			delete(h, "Content-Type")
		}
	}
	if encoding != "" && encoding != "identity" && w.length >= 0 {
		delete(h, "Content-Length")
		w.length = -1
	}
	delete(h, "Transfer-Encoding")
	if _, ok := h["Date"]; !ok {
		h["Date"] = w.values.one(date())
	}
	if w.blank { // names without values keep us from setting them, and are not sent
		maps.DeleteFunc(h, func(_ string, values []string) bool { return len(values) == 0 })
	}
	r := &c.response
	r.Status, r.StatusCode = statusLine(w.status), w.status
	r.Proto, r.ProtoMajor, r.ProtoMinor = c.request.Proto, c.request.ProtoMajor, c.request.ProtoMinor
	r.Header, r.Request = h, c.caller
	r.ContentLength = w.length
	if r.Close = c.request.Close || strings.EqualFold(first(h, "Connection"), "close"); r.Close {
		delete(h, "Connection") // it is about the connection, and the field says it
	}
	switch {
	case head && !allowsBody(w.status):
		r.ContentLength, r.Body = -1, http.NoBody
	case head:
		r.Body = http.NoBody
	case !allowsBody(w.status):
		r.ContentLength, r.Body = 0, http.NoBody
	case w.length == 0:
		r.Body = http.NoBody
	case w.length < 0 && encoding == "identity":
		r.Close = true
	case w.length < 0:
		r.TransferEncoding = []string{"chunked"}
	}
	if w.trailers = r.TransferEncoding != nil; w.trailers {
		w.declare()
	}
}

// declare moves the names of trailers to where the caller looks for them.
func (w *writer) declare() {
	eachElement(w.sent["Trailer"], func(name string) {
		if !notInTrailers(name) {
			w.declared = append(w.declared, name)
		}
	})
	delete(w.sent, "Trailer")
	if len(w.declared) > 0 {
		t := make(http.Header, len(w.declared))
		for _, name := range w.declared {
			t[name] = nil
		}
		w.call.response.Trailer = t
	}
}

// finalTrailer takes the trailers from the handler's header. bad is the name of one
// that can't be sent.
func (w *writer) finalTrailer() (trailer http.Header, bad string) {
	var found http.Header
	add := func(name string, values []string) {
		if found == nil {
			found = http.Header{}
		}
		found[name] = values
	}
	for name, values := range w.header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(rest, values)
		}
	}
	for _, name := range w.declared {
		if values := w.header[name]; len(values) > 0 {
			add(name, values)
		}
	}
	if found == nil {
		return nil, ""
	}
	trailer, values, _ := copyHeader(found, 0)
	return trailer, values.bad
}

// badAnswer is what the caller gets, as over a connection, where it could not read
// the header.
func badAnswer(name string) error {
	return fmt.Errorf("inprocess: the answer has a value for %q that can't be sent", name)
}

// allowsBody reports whether answers of a status have a body (RFC 9110, section
// 6.4.1).
func allowsBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
