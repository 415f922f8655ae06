package problem_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/problem"
)

// The shapes of huma.StatusError and huma.ContentTypeFilter.
var _ interface {
	error
	GetStatus() int
	ContentType(string) string
} = (*problem.Problem)(nil)

func TestNew(t *testing.T) {
	t.Parallel()
	got := problem.New(404, problem.CodeNotFound, "No user 7.")
	want := &problem.Problem{
		Type: "urn:keelson:problem:not_found", Title: "Not Found", Status: 404,
		Detail: "No user 7.", Code: "not_found",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("New (-want +got):\n%s", diff)
	}
	if got.Error() != "404 not_found: No user 7." {
		t.Errorf("Error() = %q", got.Error())
	}
	if got := problem.New(403, "", "").Error(); got != "403 forbidden: Forbidden" {
		t.Errorf("Error() without code and detail = %q", got)
	}
	for status, want := range map[int]bool{429: true, 503: true, 500: false, 502: false, 504: false, 404: false} {
		if got := problem.New(status, "", "").Retryable; got != want {
			t.Errorf("New(%d).Retryable = %v, want %v", status, got, want)
		}
	}
}

func TestCodeFor(t *testing.T) {
	t.Parallel()
	want := map[int]string{
		400: "bad_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
		406: "not_acceptable", 408: "request_timeout", 409: "conflict", 412: "precondition_failed",
		413: "payload_too_large", 415: "unsupported_media_type", 418: "bad_request", 422: "invalid",
		429: "rate_limited", 500: "internal", 501: "not_implemented", 502: "upstream_failed",
		503: "unavailable", 504: "upstream_timeout", 599: "internal", 200: "internal", 0: "internal",
	}
	for status, code := range want {
		if got := problem.CodeFor(status); got != code {
			t.Errorf("CodeFor(%d) = %q, want %q", status, got, code)
		}
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	secret := errors.New("dial tcp 10.0.0.7: password hunter2")
	taken := problem.New(409, "email_taken", "The email is taken.")
	tests := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"a problem", taken, 409, "email_taken"},
		{"a wrapped problem", fmt.Errorf("create: %w", taken), 409, "email_taken"},
		{"a problem wins over what is joined to it", errors.Join(context.DeadlineExceeded, taken), 409, "email_taken"},
		{"a deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), 504, "deadline_exceeded"},
		{"a body too large", fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 1024}), 413, "payload_too_large"},
		{"a cancellation", context.Canceled, 500, "internal"},
		{"any other error", secret, 500, "internal"},
		{"a nil problem in an error", (*problem.Problem)(nil), 500, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := problem.From(tt.err)
			if p.Status != tt.status || p.Code != tt.code {
				t.Errorf("From = %d %s, want %d %s", p.Status, p.Code, tt.status, tt.code)
			}
			text, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "hunter2") {
				t.Errorf("the inner error's text got out: %s", text)
			}
		})
	}
	if p := problem.From(nil); p != nil {
		t.Errorf("From(nil) = %v", p)
	}
	if p := problem.From(&http.MaxBytesError{Limit: 1024}); !strings.Contains(p.Detail, "1024 bytes") {
		t.Errorf("the limit is not told: %q", p.Detail)
	}
}

func TestFromCopies(t *testing.T) {
	t.Parallel()
	shared := problem.New(422, "", "")
	shared.Errors = []problem.FieldError{{Pointer: "/email", Detail: "is missing"}}
	p := problem.From(shared)
	p.RequestID, p.Errors[0].Detail = "r1", "changed"
	if shared.RequestID != "" || shared.Errors[0].Detail != "is missing" {
		t.Errorf("From gave the shared problem itself: %+v", shared)
	}
}

func TestGetStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{400: 400, 599: 599, 399: 500, 600: 500, 0: 500, 204: 500, -1: 500} {
		if got := (&problem.Problem{Status: status}).GetStatus(); got != want {
			t.Errorf("GetStatus of %d = %d, want %d", status, got, want)
		}
	}
}

func TestContentType(t *testing.T) {
	t.Parallel()
	p := problem.New(500, "", "")
	for in, want := range map[string]string{
		"": problem.ContentType, "application/json": problem.ContentType, "application/cbor": "application/cbor",
	} {
		if got := p.ContentType(in); got != want {
			t.Errorf("ContentType(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPointer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		tokens []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, "/"},
		{[]string{"email"}, "/email"},
		{[]string{"items", "0", "a/b~c~1"}, "/items/0/a~1b~0c~01"},
	}
	for _, tt := range tests {
		if got := problem.Pointer(tt.tokens...); got != tt.want {
			t.Errorf("Pointer(%q) = %q, want %q", tt.tokens, got, tt.want)
		}
	}
}
