package auth

import (
	"errors"
	"net/http"
	"strings"
)

// MaxTokenBytes is the longest bearer token that is looked at; a longer one is refused unparsed.
const MaxTokenBytes = 8 << 10

const (
	maxSubjectBytes = 255 // as OpenID Connect Core 1.0, section 2, limits "sub"
	authorization   = "Authorization"
)

// Credentials is what an [Authenticator] sees of a request. Header returns the first value of a header, or "".
//
// If the value also has a method HeaderValues(name string) []string, that is asked instead, and a header that was sent
// twice is refused rather than read in part; [FromHeader] has it.
type Credentials interface {
	Header(name string) string
}

// HeaderFunc is a function such as http.Header.Get as [Credentials].
type HeaderFunc func(name string) string

// Header calls f.
func (f HeaderFunc) Header(name string) string { return f(name) }

// FromHeader makes [Credentials] of a request's header.
func FromHeader(h http.Header) Credentials { return headerCredentials(h) }

type headerCredentials http.Header

func (h headerCredentials) Header(name string) string         { return http.Header(h).Get(name) }
func (h headerCredentials) HeaderValues(name string) []string { return http.Header(h).Values(name) }

// single returns the one value of a header, without the spaces around it.
func single(c Credentials, name string) (string, error) {
	var v string
	if m, ok := c.(interface{ HeaderValues(string) []string }); ok {
		switch values := m.HeaderValues(name); len(values) {
		case 0:
		case 1:
			v = values[0]
		default:
			return "", invalid("the " + name + " header was sent more than once")
		}
	} else {
		v = c.Header(name)
	}
	v = strings.Trim(v, " \t")
	if v == "" {
		return "", ErrNoCredentials
	}
	return v, nil
}

// bearer returns the bearer token (RFC 6750, section 2.1). Another scheme is no credentials of ours. Of which characters
// the token is, the caller must check with isToken68: for one that was verified before, that is half of the work.
func bearer(c Credentials) (string, error) {
	v, err := single(c, authorization)
	if err != nil {
		return "", err
	}
	scheme, token, _ := strings.Cut(v, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", ErrNoCredentials
	}
	token = strings.TrimLeft(token, " ")
	switch {
	case token == "":
		return "", invalid("the bearer token is empty")
	case len(token) > MaxTokenBytes:
		return "", invalid("the token is too long")
	}
	return token, nil
}

// isToken68 reports whether s is one RFC 6750 b64token, without its padding, which no JWT has.
func isToken68(s string) bool {
	for i := range len(s) {
		if !token68[s[i]] {
			return false
		}
	}
	return true
}

// token68 is a table because this runs over every byte of every request's token.
var token68 = func() (is [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		is[c] = true
	}
	return is
}()

// validSubject reports whether s can be an [Identity]'s subject: it travels on as a header, so nothing that could end
// one may be in it, nor a space at an end that the way would strip.
func validSubject(s string) bool {
	if s == "" || len(s) > maxSubjectBytes || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// validScope reports whether s is an RFC 6749 scope-token (section 3.3): printable ASCII but space, quote, backslash.
func validScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// Challenge returns the WWW-Authenticate value (RFC 6750, section 3) for an error of an [Authenticator] or of
// [Identity.Require]. For an error it does not know, and for nil, it is a plain "Bearer".
func Challenge(err error) string {
	if te, ok := errors.AsType[*tokenError](err); ok {
		return `Bearer error="invalid_token", error_description="` + te.reason + `"`
	}
	if se, ok := errors.AsType[*ScopeError](err); ok {
		value := `Bearer error="insufficient_scope", error_description="the token lacks a scope"`
		valid := make([]string, 0, len(se.Required))
		for _, s := range se.Required {
			if validScope(s) {
				valid = append(valid, s)
			}
		}
		if len(valid) > 0 {
			value += `, scope="` + strings.Join(valid, " ") + `"`
		}
		return value
	}
	if errors.Is(err, ErrInvalidToken) {
		return `Bearer error="invalid_token"`
	}
	return "Bearer"
}
