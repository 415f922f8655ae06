package inprocess

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// remoteAddr is where calls come from: this machine, from no port.
const remoteAddr = "127.0.0.1:0"

// userAgent is what net/http sends for a request that names none.
const userAgent = "Go-http-client/1.1"

// check refuses what could not be sent.
func check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("inprocess: the request has no URL")
	case req.Header == nil:
		return errors.New("inprocess: the request has no Header: make it with http.NewRequest")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("inprocess: the URL's scheme is %q: use http", req.URL.Scheme)
	case req.URL.Host == "":
		return errors.New("inprocess: the URL has no host")
	case req.Method != "" && !validToken(req.Method):
		return fmt.Errorf("inprocess: invalid method %q", req.Method)
	case req.ContentLength != 0 && req.Body == nil:
		return fmt.Errorf("inprocess: ContentLength is %d, but there is no body", req.ContentLength)
	}
	for name, values := range req.Trailer {
		if err := checkField("trailer", name, values); err != nil {
			return err
		}
	}
	return nil // the header is checked as it is copied
}

// needsConnection reports whether a request would make something else of its
// connection, or is for another protocol: gRPC is for HTTP/2.
func needsConnection(req *http.Request) bool {
	return req.Method == http.MethodConnect || req.Header["Upgrade"] != nil || isGRPC(req)
}

// isGRPC reports whether a request is a gRPC call. gRPC-Web is another protocol,
// made for HTTP/1.
func isGRPC(req *http.Request) bool {
	if req.Method != http.MethodPost {
		return false
	}
	rest, ok := strings.CutPrefix(first(req.Header, "Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// receive makes of the caller's request the handler's; the body comes later.
func (c *call) receive(req *http.Request) error {
	r := &c.request
	r.Method = req.Method
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if err := c.target(req.URL); err != nil {
		return err
	}
	if r.Host = req.Host; r.Host == "" {
		r.Host = req.URL.Host
	}
	if !made(r.Host, hostByte) {
		r.Host = "" // as net/http does; the instance was found by another name
	}
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	r.RemoteAddr = remoteAddr
	r.ContentLength = req.ContentLength
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		r.ContentLength = 0
	case r.ContentLength <= 0:
		r.ContentLength = -1 // a body of unknown length
	}
	if r.ContentLength < 0 {
		r.TransferEncoding = []string{"chunked"}
	}
	r.Close = req.Close || strings.EqualFold(first(req.Header, "Connection"), "close")
	return c.receiveHeader(req)
}

// target sets URL and RequestURI, as a server reads them from the request line.
func (c *call) target(u *url.URL) error {
	r := &c.request
	r.URL = &c.url
	r.RequestURI = u.RequestURI()
	for i := range len(r.RequestURI) {
		if b := r.RequestURI[i]; b <= ' ' || b == 0x7f {
			return errors.New("inprocess: a space or control character in the URL can't be sent: escape it")
		}
	}
	if path, _, _ := strings.Cut(r.RequestURI, "?"); u.Opaque == "" && path == u.Path && path[0] == '/' {
		// No character of it is escaped, so it reads as it is.
		c.url = url.URL{Path: u.Path, RawQuery: u.RawQuery, ForceQuery: u.ForceQuery && u.RawQuery == ""}
		return nil
	}
	parsed, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return fmt.Errorf("inprocess: %w", err)
	}
	c.url = *parsed
	return nil
}

// receiveHeader copies the header. What says how the message is sent, net/http
// takes from the request's fields and not from its header; so do we.
func (c *call) receiveHeader(req *http.Request) error {
	values := newCopier(len(req.Header) + 3)
	h := make(http.Header, len(req.Header)+2)
	agent := userAgent
	for name, vv := range req.Header {
		if err := checkField("header", name, vv); err != nil {
			return err
		}
		name = http.CanonicalHeaderKey(name)
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue
		case "User-Agent":
			agent = ""
			if len(vv) > 0 {
				agent = vv[0]
			}
			continue
		}
		values.add(h, name, vv)
	}
	if agent != "" {
		values.add(h, "User-Agent", values.one(agent))
	}
	r := &c.request
	if r.ContentLength > 0 || r.ContentLength == 0 && usuallyHasBody(r.Method) {
		h["Content-Length"] = values.one(strconv.FormatInt(r.ContentLength, 10))
	}
	if req.Close {
		h["Connection"] = values.one("close")
	}
	r.Header = h
	if r.ContentLength < 0 && len(req.Trailer) > 0 {
		r.Trailer = make(http.Header, len(req.Trailer))
		for name := range req.Trailer {
			r.Trailer[http.CanonicalHeaderKey(name)] = nil
		}
	}
	return nil
}

// usuallyHasBody: of these net/http sends the length even if it is 0.
func usuallyHasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}
