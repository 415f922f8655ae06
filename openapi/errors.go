package openapi

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/keelson-go/keelson/problem"
)

const invalidDetail = "The request has fields that are missing, wrong or unknown."

// setGlobals makes huma's errors problems and its matching of field names exact.
var setGlobals = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return newError(nil, status, message, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		return newError(ctx, status, message, errs)
	}
})

// Invalid is the 422 problem for fields that only the handler can judge. Pointers are as in problem.FieldError.
func Invalid(fields ...problem.FieldError) *problem.Problem {
	p := problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, invalidDetail)
	p.Errors = fields
	return p
}

// bareStatus is an answer that is no error, such as 304, made by huma's error functions.
type bareStatus int

func (s bareStatus) GetStatus() int { return int(s) }
func (s bareStatus) Error() string  { return http.StatusText(int(s)) }

// newError makes a problem of what huma, or a handler through huma's functions, reports. Only the message and details of
// a 4xx are shown; what comes with a 5xx is for the log.
func newError(ctx huma.Context, status int, message string, errs []error) huma.StatusError {
	if status > 0 && status < 400 {
		return bareStatus(status)
	}
	for _, err := range errs {
		if _, ok := errors.AsType[*problem.Problem](err); ok {
			return problem.From(err)
		}
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problem.From(err)
		}
	}
	if status >= 500 && len(errs) > 0 {
		err := errors.Join(errs...)
		if rc := requestOf(ctx); rc != nil && rc.settings.onError != nil {
			rc.settings.onError(ctx.Context(), err)
		}
		p := problem.From(err)
		if status != http.StatusInternalServerError {
			p = problem.New(status, "", http.StatusText(status)+".")
		}
		return p
	}
	if len(errs) == 0 {
		return problem.New(status, "", message)
	}
	p := problem.New(status, "", message)
	if status == http.StatusUnprocessableEntity {
		p.Detail = invalidDetail
	}
	for _, err := range errs {
		if err == nil {
			continue
		}
		field := problem.FieldError{Detail: notValid}
		if d, ok := err.(huma.ErrorDetailer); ok {
			detail := d.ErrorDetail()
			field = problem.FieldError{Pointer: pointer(detail.Location), Detail: plain(detail)}
		}
		p.Errors = append(p.Errors, field)
	}
	return p
}

const notValid = "the value is not valid"

// plain is the text of a detail without anything of the value. huma's texts about parameters and about the decoding of
// the body may quote it; those known not to are kept. Texts about places in the body are a handler's own.
func plain(d *huma.ErrorDetail) string {
	message := unquoted(d.Message)
	if strings.HasPrefix(d.Location, "body.") || strings.HasPrefix(d.Location, "body[") {
		return message
	}
	for _, known := range []string{
		"expected ", "required ", "unknown query parameter", "invalid integer", "invalid float", "invalid boolean",
		"invalid date/time",
	} {
		if strings.HasPrefix(message, known) {
			return message
		}
	}
	return notValid
}

// rxFormat matches huma's texts about formats that end with an error, which may quote the value.
var rxFormat = regexp.MustCompile(`^(expected (?:string to be (?:RFC [0-9]+ [a-z-]+|regex)|duration)): `)

func unquoted(message string) string {
	if m := rxFormat.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return message
}

var rxIndex = regexp.MustCompile(`\[([0-9]+)\]`)

// pointer makes of huma's location, like query.limit or body.items[0].price, a pointer as problem.FieldError has it.
func pointer(location string) string {
	place, rest, _ := strings.Cut(rxIndex.ReplaceAllString(location, ".$1"), ".")
	var tokens []string
	if rest != "" {
		tokens = strings.Split(rest, ".")
	}
	switch place {
	case "body", "":
		return problem.Pointer(tokens...)
	case "path", "query", "header", "cookie":
		return "#" + place + problem.Pointer(tokens...)
	default:
		return problem.Pointer(append([]string{place}, tokens...)...)
	}
}

// completeProblem fills in what only the response knows. A problem that is sent is a copy: the handler's own may be
// shared by requests.
func completeProblem(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*problem.Problem)
	if !ok || p == nil {
		return v, nil
	}
	r, w := humago.Unwrap(ctx)
	p = problem.From(p)
	p.Status = p.GetStatus()
	if p.RequestID == "" {
		p.RequestID = w.Header().Get("X-Request-Id")
	}
	if p.Instance == "" {
		p.Instance = r.URL.EscapedPath()
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return p, nil
}
