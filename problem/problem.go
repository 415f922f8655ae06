package problem

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// ContentType is the media type of a problem (RFC 9457, section 3).
const ContentType = "application/problem+json"

// A Problem is an error as the client sees it (RFC 9457, with the extension
// members code, requestId, traceId, retryable and errors). Everything in it is
// public: put no internals in.
//
// A Problem is an error; its methods only read, so it may be shared as long as
// nobody changes its fields.
type Problem struct {
	// Type is a URI that names the kind of problem. [New] derives it from the
	// code. "about:blank" means that the status says it all.
	Type string `json:"type,omitempty"`
	// Title is the same short text for every problem of a type.
	Title string `json:"title,omitempty"`
	// Status is the HTTP status, 400 to 599.
	Status int `json:"status"`
	// Detail says, for a person, what went wrong this time and what to do.
	Detail string `json:"detail,omitempty"`
	// Instance is a URI reference of this occurrence. [Write] fills in the
	// request's path.
	Instance string `json:"instance,omitempty"`
	// Code is the stable name to branch on, like [CodeNotFound].
	Code string `json:"code,omitempty"`
	// RequestID is the X-Request-Id of the request, for finding it in the logs.
	RequestID string `json:"requestId,omitempty"`
	// TraceID is the W3C trace id, 32 hexadecimal digits.
	TraceID string `json:"traceId,omitempty"`
	// Retryable says that the request was not carried out and that the same
	// request, sent again later, may succeed.
	Retryable bool `json:"retryable,omitempty"`
	// Errors lists what is wrong with single fields of the request.
	Errors []FieldError `json:"errors,omitempty"`
}

// A FieldError says what is wrong with one field of a request.
type FieldError struct {
	// Pointer is a JSON pointer (RFC 6901) into the request body, like
	// "/items/0/price"; "" is the whole body. What is not in the body is named
	// by its place: "#query/limit", "#header/X-Tenant", "#path/id".
	Pointer string `json:"pointer"`
	// Detail says what is wrong and how to put it right. It must not repeat
	// the value it got, which may be a secret.
	Detail string `json:"detail"`
}

// New returns a problem of the type "urn:keelson:problem:<code>", titled with
// the status' standard text. An empty code means CodeFor(status). Retryable is
// set for 429 and 503, which are sent before any work was done; a caller who
// knows better changes it.
func New(status int, code, detail string) *Problem {
	if code == "" {
		code = CodeFor(status)
	}
	return &Problem{
		Type:      "urn:keelson:problem:" + code,
		Title:     http.StatusText(status),
		Status:    status,
		Detail:    detail,
		Code:      code,
		Retryable: status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable,
	}
}

// From makes a problem of any error; nil stays nil. It is a fresh copy, so the
// caller may fill in fields without touching an error somebody else holds.
//
//   - A *Problem in err's chain is taken as it is.
//   - [context.DeadlineExceeded] is 504 [CodeDeadline].
//   - [http.MaxBytesError] is 413 [CodeTooLarge].
//   - Everything else is 500 [CodeInternal] with a neutral detail. The error's
//     own text is not in it; who calls From logs the error.
func From(err error) *Problem {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*Problem](err); ok && p != nil {
		c := *p
		c.Errors = slices.Clone(p.Errors)
		return &c
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return New(http.StatusRequestEntityTooLarge, CodeTooLarge,
			fmt.Sprintf("The request body is larger than the limit of %d bytes.", tooLarge.Limit))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return New(http.StatusGatewayTimeout, CodeDeadline, "The request took longer than its deadline allows.")
	}
	return New(http.StatusInternalServerError, CodeInternal, "The request failed because of an error inside the service.")
}

// Error gives the problem in one line for logs: "404 not_found: No user 7."
func (p *Problem) Error() string {
	if p == nil {
		return "<nil problem>"
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	return fmt.Sprintf("%d %s: %s", p.Status, p.Code, text)
}

// GetStatus returns the HTTP status to send: Status, or 500 if that is not an
// error status (400 to 599). With it a *Problem is a huma.StatusError.
func (p *Problem) GetStatus() int {
	if p.Status < 400 || p.Status > 599 {
		return http.StatusInternalServerError
	}
	return p.Status
}

// ContentType returns [ContentType] in place of a JSON media type and leaves
// others alone. With it a *Problem is a huma.ContentTypeFilter.
func (p *Problem) ContentType(negotiated string) string {
	if negotiated == "" || negotiated == "application/json" {
		return ContentType
	}
	return negotiated
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// Pointer joins member names and indexes to a JSON pointer (RFC 6901), with "~"
// and "/" in them escaped: Pointer("items", "0", "a/b") is "/items/0/a~1b".
func Pointer(tokens ...string) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteByte('/')
		b.WriteString(pointerEscaper.Replace(t))
	}
	return b.String()
}
