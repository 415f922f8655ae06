package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

// MaxDecode is the number of body bytes [Decode] reads at most.
const MaxDecode = 64 << 10

// ErrNotProblem is returned by [Decode] for a response that holds no problem
// details: another media type, malformed JSON, or a body over [MaxDecode].
var ErrNotProblem = errors.New("not problem details")

// Write answers r with err as application/problem+json. err goes through
// [From] first, so any error is safe to give; a nil one is answered as an
// internal error. It is sent with Cache-Control: no-store, and it fills in, if
// empty, requestId from the response's X-Request-Id header and instance from
// the request's path. A HEAD request gets the headers alone.
//
// Headers already set on w go out too (Allow, Retry-After, WWW-Authenticate),
// except those that described the body the handler meant to send. Write must be
// the only one to write to w; it does not log.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	p := From(err)
	if p == nil {
		p = New(http.StatusInternalServerError, CodeInternal, "The request failed because of an error inside the service.")
	}
	h := w.Header()
	p.Status = p.GetStatus()
	if p.RequestID == "" {
		p.RequestID = h.Get("X-Request-Id")
	}
	if p.Instance == "" {
		p.Instance = r.URL.EscapedPath()
	}
	// A struct of strings, numbers and booleans always marshals.
	body, _ := json.Marshal(p)
	body = append(body, '\n')

	for _, stale := range []string{"Content-Encoding", "Content-Disposition", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified", "Expires"} {
		h.Del(stale)
	}
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		// It fails only when the client has gone, and then nobody can be told.
		_, _ = w.Write(body)
	}
}

// Decode reads the problem in resp, at most [MaxDecode] bytes of it. It does not
// close the body. If resp holds none, the error is an [ErrNotProblem]; an error
// of reading the body comes wrapped.
//
// As RFC 9457 (section 3.1) asks, members that are unknown or of the wrong type
// are ignored and a missing type is "about:blank". Status is always the
// response's own: the member is advice, the status line is the fact. A missing
// code is CodeFor(status), so that callers can always branch on it. All else is
// as the sender wrote it: treat it as text from outside.
func Decode(resp *http.Response) (*Problem, error) {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != ContentType {
		return nil, fmt.Errorf("%w: the media type is %q", ErrNotProblem, resp.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxDecode+1))
	if err != nil {
		return nil, fmt.Errorf("read problem details: %w", err)
	}
	if len(body) > MaxDecode {
		return nil, fmt.Errorf("%w: the body is over %d bytes", ErrNotProblem, MaxDecode)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotProblem, err)
	}
	if members == nil {
		return nil, fmt.Errorf("%w: the body is null", ErrNotProblem)
	}
	p := &Problem{
		Type:      member[string](members, "type"),
		Title:     member[string](members, "title"),
		Status:    resp.StatusCode,
		Detail:    member[string](members, "detail"),
		Instance:  member[string](members, "instance"),
		Code:      member[string](members, "code"),
		RequestID: member[string](members, "requestId"),
		TraceID:   member[string](members, "traceId"),
		Retryable: member[bool](members, "retryable"),
		Errors:    member[[]FieldError](members, "errors"),
	}
	if p.Type == "" {
		p.Type = "about:blank"
	}
	if p.Code == "" {
		p.Code = CodeFor(p.Status)
	}
	return p, nil
}

// member reads one member; one that is missing or of another type is T's zero.
func member[T any](members map[string]json.RawMessage, name string) T {
	var v, zero T
	if raw, ok := members[name]; !ok || json.Unmarshal(raw, &v) != nil {
		return zero
	}
	return v
}
