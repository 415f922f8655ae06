package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/problem"
)

// defaultAdmin is where the admin API is unless something says otherwise.
const defaultAdmin = "http://127.0.0.1:3100"

// admin finds the running system: --url, KEELSON_URL, the run file here or
// above, port 3100, in that order. source says which it was, for messages.
func (a *app) admin() (base, source string, err error) {
	check := func(s, source string) (string, string, error) {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return "", "", &failure{code: exitUsage, message: fmt.Sprintf("%s is %q, which is no URL", source, s), hint: "give one such as " + defaultAdmin}
		}
		return strings.TrimSuffix(s, "/"), source, nil
	}
	if a.url != "" {
		return check(a.url, "--url")
	}
	if s := a.env("KEELSON_URL"); s != "" {
		return check(s, "KEELSON_URL")
	}
	path, err := runfile.Find(".")
	if errors.Is(err, fs.ErrNotExist) {
		return defaultAdmin, "the default", nil
	}
	if err != nil {
		return "", "", err
	}
	f, err := runfile.Read(path)
	if err != nil {
		return "", "", err
	}
	if !f.Alive() || f.Admin == "" {
		return defaultAdmin, "the default", nil
	}
	return f.Admin, path, nil
}

// get asks the admin API. Its problems and its absence become failures.
func (a *app) get(ctx context.Context, path string) (*http.Response, error) {
	base, source, err := a.admin()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return nil, &failure{code: exitTimeout, message: fmt.Sprintf("%s (from %s) does not answer", base, source), hint: "see what it is doing, or name another one with --url"}
		}
		if ctx.Err() != nil {
			return nil, &failure{code: exitInterrupted, message: "interrupted"}
		}
		return nil, &failure{
			code: exitUnreachable, message: fmt.Sprintf("no Keelson answers at %s (from %s)", base, source),
			hint: "start one with `keelson up`, or name one with --url", detail: "       " + err.Error(),
		}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	code := exitFailed
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		code = exitAuth
	case http.StatusNotFound:
		code = exitNotFound
	}
	if p, err := problem.Decode(resp); err == nil {
		f := &failure{code: code, message: fmt.Sprintf("%s answers: %s", base, p.Detail)}
		for _, e := range p.Errors {
			f.detail += fmt.Sprintf("       %s: %s\n", e.Pointer, e.Detail)
		}
		f.detail = strings.TrimSuffix(f.detail, "\n")
		return nil, f
	}
	return nil, &failure{code: exitFailed, message: fmt.Sprintf("%s answers %s, not as Keelson does", base, resp.Status), hint: "check --url"}
}
