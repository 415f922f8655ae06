package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/problem"
)

// maxAnswer bounds what is read of an answer, and of one event of a stream:
// 64 KiB for each of some thousand instances.
const maxAnswer = 64 << 20

// answerTimeout is how long an answer of the admin API may take.
const answerTimeout = 10 * time.Second

// straight follows no redirect: a token goes where it was meant to go, and a
// login page is no health.
var straight = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// get asks the admin API with GET. See ask.
func (a *app) get(ctx context.Context, path string) (*http.Response, error) {
	return a.ask(ctx, http.MethodGet, path, nil)
}

// ask sends a request to the admin API: body as JSON unless it is nil, and
// header in pairs. An answer of 2xx is the caller's to close; any other one, and
// the absence of one, is a [*failure].
func (a *app) ask(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	base, source, err := a.admin()
	if err != nil {
		return nil, err
	}
	token, err := a.bearer(base, source)
	if err != nil {
		return nil, err
	}
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, sent)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := straight.Do(req)
	if err != nil {
		return nil, noAnswer(ctx, base, source, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refused(base, resp)
}

// noAnswer says why nothing came from the admin API.
func noAnswer(ctx context.Context, base, source string, err error) *failure {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // the address is in the message
	}
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return &failure{code: exitTimeout, message: fmt.Sprintf("%s (from %s) does not answer", base, source), hint: "see what it is doing, or name another one with --url"}
	case ctx.Err() != nil:
		return interrupted()
	}
	return &failure{
		code: exitUnreachable, message: fmt.Sprintf("no Keelson answers at %s (from %s)", base, source),
		hint: "start one with `keelson up`, or name one with --url", detail: "       " + clean(err.Error()),
	}
}

// exitCodes are those for what the admin API answers.
var exitCodes = map[int]int{
	http.StatusBadRequest: exitUsage, http.StatusUnprocessableEntity: exitUsage,
	http.StatusUnauthorized: exitAuth, http.StatusForbidden: exitAuth,
	http.StatusNotFound: exitNotFound, http.StatusConflict: exitConflict,
	http.StatusRequestTimeout: exitTimeout, http.StatusGatewayTimeout: exitTimeout,
}

// refused makes a failure of the admin API's problem.
func refused(base string, resp *http.Response) *failure {
	p, err := problem.Decode(resp)
	if err != nil {
		return strange(base, "answers "+resp.Status+", not as Keelson does")
	}
	f := &failure{code: exitFailed, message: fmt.Sprintf("%s answers: %s", base, clean(p.Detail))}
	if code, ok := exitCodes[resp.StatusCode]; ok {
		f.code = code
	}
	if p.Detail == "" {
		f.message += resp.Status
	}
	for _, e := range p.Errors {
		f.detail += fmt.Sprintf("       %s: %s\n", clean(e.Pointer), clean(e.Detail))
	}
	f.detail = strings.TrimSuffix(f.detail, "\n")
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		f.hint = fmt.Sprintf("give a token that allows %s, by KEELSON_TOKEN or --token", console.ScopeAdmin)
	case http.StatusTooManyRequests:
		if after := resp.Header.Get("Retry-After"); after != "" {
			f.hint = "try again in " + clean(after) + " s"
		}
	}
	return f
}

// mayPass reports whether it may help to ask again later.
func mayPass(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && (f.code == exitUnreachable || f.code == exitTimeout || f.code == exitFailed)
}

// strange says that who answers is no Keelson.
func strange(base, what string) *failure {
	return &failure{code: exitFailed, message: base + " " + clean(what), hint: "something else seems to listen there; name the system with --url"}
}

// fetch asks the admin API and decodes what it answers, within answerTimeout.
func fetch[T any](ctx context.Context, a *app, method, path string, body any) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := a.ask(bounded, method, path, body)
	if err != nil {
		return *new(T), err
	}
	defer resp.Body.Close()
	return decode[T](bounded, a, resp)
}

// nothing is the answer of calls that have none.
type nothing struct{}

// decode reads an answer before ctx ends. A call that went well and told nothing
// of what was asked for went elsewhere.
func decode[T any](ctx context.Context, a *app, resp *http.Response) (T, error) {
	var answer *T                // which null leaves nil
	base, source, _ := a.admin() // it was found before
	_, none := any(answer).(*nothing)
	switch {
	case none != (resp.StatusCode == http.StatusNoContent):
		return *new(T), strange(base, "answers "+resp.Status+", not as Keelson does")
	case none:
		return *new(T), nil
	}
	err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer)
	switch {
	case err != nil && ctx.Err() != nil:
		return *new(T), noAnswer(ctx, base, source, err)
	case err != nil:
		return *new(T), strange(base, "answers what can't be understood: "+err.Error())
	case answer == nil:
		return *new(T), strange(base, "answers null")
	}
	return *answer, nil
}

// clean makes text from outside safe for a terminal: no control character in it
// can move the cursor, or pretend to be a line of ours.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\ufffd'
		}
		return r
	}, s)
}
