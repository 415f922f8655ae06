package inprocess_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asked is a request as a handler sees it.
type asked struct {
	Method, RequestURI, Host, Proto string
	URL                             url.URL
	Header, Trailer                 http.Header
	ContentLength                   int64
	TransferEncoding                []string
	Close, NoBody                   bool
	Body, BodyError                 string
	Loopback                        bool
	Pattern, Form                   string
	TLS                             bool
}

// answered is an answer as a caller sees it.
type answered struct {
	Error            bool
	Status, Proto    string
	Code             int
	Header, Declared http.Header
	Trailer          http.Header
	ContentLength    int64
	TransferEncoding []string
	Close, NoBody    bool
	Body, BodyError  string
	Own              bool // it names the caller's own request
}

// kindOf says of an error what both ways have in common.
func kindOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected EOF"
	case errors.Is(err, http.ErrContentLength), errors.Is(err, http.ErrBodyNotAllowed):
		return err.Error()
	}
	return "an error"
}

func readAll(r io.Reader) (string, string) {
	b, err := io.ReadAll(r)
	return string(b), kindOf(err)
}

// observe takes down a request.
func observe(r *http.Request) asked {
	a := asked{
		Method: r.Method, RequestURI: r.RequestURI, Host: r.Host, Proto: r.Proto, URL: *r.URL, Header: r.Header.Clone(),
		ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding, Close: r.Close, NoBody: r.Body == http.NoBody, TLS: r.TLS != nil,
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	a.Loopback = err == nil && peer.Addr().IsLoopback()
	a.Body, a.BodyError = readAll(r.Body)
	a.Trailer = r.Trailer.Clone()
	return a
}

// take takes down an answer.
func take(rt http.RoundTripper, req *http.Request) answered {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return answered{Error: true}
	}
	defer resp.Body.Close()
	a := answered{
		Status: resp.Status, Code: resp.StatusCode, Proto: resp.Proto, Header: resp.Header.Clone(), Declared: resp.Trailer.Clone(),
		ContentLength: resp.ContentLength, TransferEncoding: resp.TransferEncoding, Close: resp.Close,
		NoBody: resp.Body == http.NoBody, Own: resp.Request == req,
	}
	if d := a.Header.Get("Date"); d != "" && d != "mine" {
		a.Header.Set("Date", "now")
	}
	a.Body, a.BodyError = readAll(resp.Body)
	a.Trailer = resp.Trailer.Clone()
	return a
}

// What handlers see of requests is the same as over a connection.
func TestRequestsConform(t *testing.T) {
	t.Parallel()
	with := func(change func(r *http.Request)) func(r *http.Request) { return change }
	header := func(h ...string) func(r *http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(h); i += 2 {
				r.Header[h[i]] = append(r.Header[h[i]], h[i+1])
			}
		}
	}
	at := func(target string) func(r *http.Request) {
		return func(r *http.Request) {
			u, err := url.Parse("http://users" + target)
			if err != nil {
				panic(err)
			}
			r.URL = u
		}
	}
	for name, tt := range map[string]struct {
		method string
		body   io.Reader
		change func(r *http.Request)
	}{
		"plain":                     {},
		"no method":                 {change: with(func(r *http.Request) { r.Method = "" })},
		"own method":                {method: "PURGE"},
		"no path":                   {change: at("")},
		"query":                     {change: at("/users?a=b&c=%20d")},
		"query alone":               {change: at("?a=b")},
		"empty query":               {change: at("/users?")},
		"fragment":                  {change: at("/users?a=b#c")},
		"escaped path":              {change: at("/a%2Fb/%C3%A9 c")},
		"path to escape":            {change: with(func(r *http.Request) { r.URL = &url.URL{Scheme: "http", Host: "users", Path: "/a b/é"} })},
		"two slashes":               {change: at("//users//7")},
		"dots":                      {change: at("/users/../x/./y")},
		"raw path that is wrong":    {change: with(func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b", "/c%2Fd" })},
		"opaque":                    {change: with(func(r *http.Request) { r.URL.Opaque = "/x/%2f" })},
		"semicolon":                 {change: at("/a;b=c?d;e")},
		"host":                      {change: with(func(r *http.Request) { r.Host = "example.com:8080" })},
		"host that is none":         {change: with(func(r *http.Request) { r.Host = "a/b c" })},
		"headers":                   {change: header("Accept", "a", "Accept", "b", "X-Empty", "")},
		"header in another case":    {change: header("x-lower", "1", "X-UPPER", "2")},
		"space around values":       {change: header("X-A", "  a b\t")},
		"own user agent":            {change: header("User-Agent", "me", "User-Agent", "you")},
		"no user agent":             {change: header("User-Agent", "")},
		"length by hand":            {change: header("Content-Length", "77", "Transfer-Encoding", "chunked", "Host", "x", "Trailer", "X-T")},
		"close":                     {change: with(func(r *http.Request) { r.Close = true })},
		"connection: close":         {change: header("Connection", "close")},
		"connection":                {change: header("Connection", "X-A", "X-A", "1", "Te", "trailers")},
		"user in the URL":           {change: with(func(r *http.Request) { r.URL.User = url.UserPassword("a", "b") })},
		"HEAD":                      {method: "HEAD"},
		"OPTIONS":                   {method: "OPTIONS"},
		"DELETE":                    {method: "DELETE"},
		"POST without body":         {method: "POST"},
		"PUT without body":          {method: "PUT", body: http.NoBody},
		"POST in memory":            {method: "POST", body: strings.NewReader(`{"a":1}`)},
		"POST that is long":         {method: "POST", body: bytes.NewReader(bytes.Repeat([]byte("0123456789"), 30_000))},
		"POST of unknown length":    {method: "POST", body: stream{strings.NewReader("abc")}},
		"PATCH that can't be again": {method: "PATCH", body: stream{strings.NewReader("abc")}, change: with(func(r *http.Request) { r.ContentLength = 3 })},
		"GET with a body":           {method: "GET", body: strings.NewReader("abc")},
		"DELETE of unknown length":  {method: "DELETE", body: stream{strings.NewReader("abc")}},
		"form":                      {method: "POST", body: strings.NewReader("a=1&b=2"), change: header("Content-Type", "application/x-www-form-urlencoded")},
		"trailers": {method: "POST", body: stream{strings.NewReader("abc")}, change: with(func(r *http.Request) {
			r.Trailer = http.Header{"X-Sum": {"1"}, "X-Other": {"2", "3"}}
		})},
		"trailers beside a length": {method: "POST", body: strings.NewReader("abc"), change: with(func(r *http.Request) {
			r.Trailer = http.Header{"X-Sum": {"1"}}
		})},
		"expect": {method: "POST", body: stream{strings.NewReader("abc")}, change: header("Expect", "100-continue")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen [2]asked
			for i, w := range ways {
				requests := make(chan asked, 1)
				rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) { requests <- observe(r) })
				method := tt.method
				if method == "" {
					method = "GET"
				}
				if s, ok := tt.body.(io.Seeker); ok {
					if _, err := s.Seek(0, io.SeekStart); err != nil {
						t.Fatal(err)
					}
				}
				if s, ok := tt.body.(stream); ok {
					if _, err := s.Reader.(io.Seeker).Seek(0, io.SeekStart); err != nil {
						t.Fatal(err)
					}
				}
				req := request(t, method, "/users/7", tt.body)
				if tt.change != nil {
					tt.change(req)
				}
				resp, err := rt.RoundTrip(req)
				if err != nil {
					t.Fatalf("%s: %v", w.name, err)
				}
				resp.Body.Close()
				seen[i] = wait(t, requests, "a request")
			}
			if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
				t.Errorf("-%s +%s\n%s", ways[0].name, ways[1].name, diff)
			}
		})
	}
}

// What callers see of answers is the same as over a connection.
func TestAnswersConform(t *testing.T) {
	t.Parallel()
	write := func(status int, body string, h ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(h); i += 2 {
				w.Header()[h[i]] = append(w.Header()[h[i]], h[i+1])
			}
			if status != 0 {
				w.WriteHeader(status)
			}
			_, _ = io.WriteString(w, body) // some can't have one
		}
	}
	flushed := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			h(w, r)
			if err := http.NewResponseController(w).Flush(); err != nil {
				panic(err)
			}
		}
	}
	long := strings.Repeat("0123456789", 50_000)
	for name, h := range map[string]http.HandlerFunc{
		"nothing":                func(http.ResponseWriter, *http.Request) {},
		"text":                   write(0, "hello"),
		"created":                write(201, `{"a":1}`, "Content-Type", "application/json"),
		"page":                   write(200, "<html><body>"),
		"status alone":           write(404, ""),
		"status without a name":  write(299, "x"),
		"no content":             write(204, "", "Content-Length", "5", "Content-Type", "a/b"),
		"no content with a body": write(204, "x"),
		"not modified":           write(304, "", "Etag", `"a"`, "Content-Type", "a/b", "Content-Length", "7"),
		"reset content":          write(205, ""),
		"as long as is kept":     write(200, long[:2048]),
		"longer":                 write(200, long[:2049]),
		"much longer":            write(200, long),
		"flushed":                flushed(write(200, "hello")),
		"flushed first":          func(w http.ResponseWriter, r *http.Request) { flushed(write(0, ""))(w, r); write(0, "later")(w, r) },
		"length by hand":         write(200, "hello", "Content-Length", "5"),
		"length flushed":         flushed(write(200, "hello", "Content-Length", "5")),
		"length of nothing":      flushed(write(200, "", "Content-Length", "0")),
		"length that is long":    write(200, long, "Content-Length", fmt.Sprint(len(long))),
		"less than its length":   write(200, "hel", "Content-Length", "5"),
		"less, flushed":          flushed(write(200, "hel", "Content-Length", "5")),
		"more than its length":   write(200, "hello", "Content-Length", "3"),
		"length that is none":    write(200, "hello", "Content-Length", "five"),
		"chunked by hand":        write(200, "hello", "Transfer-Encoding", "chunked"),
		"chunked with a length":  write(200, "hello", "Transfer-Encoding", "chunked", "Content-Length", "5"),
		"until it closes":        write(200, "hello", "Transfer-Encoding", "identity"),
		"close":                  write(200, "hello", "Connection", "close"),
		"keeps the type it has":  write(200, "<html>", "Content-Type", "a/b"),
		"no type": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			write(0, "<html>")(w, r)
		},
		"encoded":                 write(200, "<html>", "Content-Encoding", "gzip"),
		"own date":                write(200, "", "Date", "mine"),
		"several values":          write(200, "", "Set-Cookie", "a=1", "Set-Cookie", "b=2", "x-lower", "3"),
		"line break in a value":   write(200, "", "X-A", "a\r\nX-B: b"),
		"space around values":     write(200, "", "X-A", "  a b\t"),
		"control in a value":      write(200, "hello", "X-A", "a\x00b"),
		"delete in a value":       flushed(write(200, "hello", "X-A", "a\x7fb")),
		"beyond ASCII in a value": write(200, "", "X-A", "é\xff"),
		"header that can't be":    write(200, "", "X A", "1", "X-B", "2", "", "3"),
		"header changed too late": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); w.Header().Set("X-Late", "1") },
		"status given twice":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) },
		"declared trailer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "x-sum, X-Missing")
			fmt.Fprint(w, "hello")
			w.Header().Set("X-Sum", "1")
		},
		"trailer of a long answer": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, long)
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		},
		"trailer with the prefix": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
			fmt.Fprint(w, "hello")
			w.Header().Set(http.TrailerPrefix+"X-Other", "2")
		},
		"trailer too late": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "hello")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		},
		"line break in a trailer": func(w http.ResponseWriter, _ *http.Request) {
			flushed(write(0, "hello", "Trailer", "X-Sum"))(w, nil)
			w.Header().Set("X-Sum", " 1\r\nX-B: 2")
		},
		"control in a trailer": func(w http.ResponseWriter, _ *http.Request) {
			flushed(write(0, "hello", "Trailer", "X-Sum"))(w, nil)
			w.Header().Set("X-Sum", "1\x00")
		},
		"trailer beside a length": write(200, "hello", "Content-Length", "5", "Trailer", "X-Sum"),
		"panic":                   func(http.ResponseWriter, *http.Request) { panic("oh") },
		"panic after some":        func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello"); panic("oh") },
		"abort after a flush": func(w http.ResponseWriter, r *http.Request) {
			flushed(write(0, "hel"))(w, r)
			panic(http.ErrAbortHandler)
		},
		"abort with a length": func(w http.ResponseWriter, r *http.Request) {
			flushed(write(0, "hel", "Content-Length", "5"))(w, r)
			panic(http.ErrAbortHandler)
		},
		"switching without a pipe": write(101, ""),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if name == "length that is none" && method == "HEAD" {
				continue // net/http's server and client disagree about it
			}
			t.Run(name+"/"+method, func(t *testing.T) {
				t.Parallel()
				var got [2]answered
				for i, w := range ways {
					got[i] = take(w.start(t, h), request(t, method, "/", nil))
				}
				if diff := cmp.Diff(got[0], got[1]); diff != "" {
					t.Errorf("-%s +%s\n%s", ways[0].name, ways[1].name, diff)
				}
			})
		}
	}
}
