package inprocess_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/inprocess"
)

// When the caller gives up, it gets its cause back at once, and the handler's context
// ends.
func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		entered, ended, release := make(chan struct{}), make(chan error, 1), make(chan struct{})
		rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			ended <- r.Context().Err()
			<-release // it takes its time
		})
		defer close(release)
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-entered
			cancel(enough)
		}()
		_, err := rt.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx))
		if !errors.Is(err, enough) {
			t.Errorf("the caller got %v, want its own cause", err)
		}
		if err := wait(t, ended, "the handler's context ends"); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
	})
}

// A caller that has gone before is not served.
func TestCallerHasGone(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		rt := w.start(t, func(http.ResponseWriter, *http.Request) { t.Error("served") })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		body := &closing{Reader: strings.NewReader("x")}
		if _, err := rt.RoundTrip(request(t, "POST", "/", body).WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if body.closed.Load() != 1 {
			t.Error("the request's body is not closed")
		}
	})
}

// closing counts how often a body is closed.
type closing struct {
	io.Reader
	closed atomic.Int32
}

func (c *closing) Close() error { c.closed.Add(1); return nil }

// When the caller closes an answer early, or its context ends, the handler learns it
// by its context and by what it writes.
func TestCallerHasEnough(t *testing.T) {
	t.Parallel()
	for name, enough := range map[string]func(resp *http.Response, cancel func()){
		"closes":  func(resp *http.Response, _ func()) { resp.Body.Close() },
		"cancels": func(_ *http.Response, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, w way) {
				ended, failed := make(chan error, 1), make(chan error, 1)
				rt := w.start(t, func(w http.ResponseWriter, r *http.Request) {
					for {
						if _, err := w.Write(make([]byte, 8<<10)); err != nil {
							failed <- err
							break
						}
					}
					<-r.Context().Done()
					ended <- r.Context().Err()
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				resp, err := rt.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if _, err := io.ReadFull(resp.Body, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
				enough(resp, cancel)
				wait(t, failed, "writing fails")
				wait(t, ended, "the handler's context ends")
				if _, err := io.Copy(io.Discard, resp.Body); err == nil || name == "cancels" && !errors.Is(err, context.Canceled) {
					t.Errorf("reading on: %v", err)
				}
			})
		})
	}
}

// The handler's context ends with the handler, and has nothing of the caller's.
func TestContext(t *testing.T) {
	t.Parallel()
	type key string
	contexts := make(chan context.Context, 1)
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3001}
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { contexts <- r.Context() },
		inprocess.WithBaseContext(context.WithValue(t.Context(), key("base"), 1)), inprocess.WithAddr(addr))
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key("caller"), 2), patience)
	defer cancel()
	do(t, s, request(t, "GET", "/", nil).WithContext(ctx))
	got := <-contexts
	if got.Value(key("caller")) != nil {
		t.Error("the handler sees a value of the caller's")
	}
	if _, ok := got.Deadline(); ok {
		t.Error("the handler sees the caller's deadline, which only a header may tell")
	}
	if got.Value(key("base")) != 1 || got.Value(http.LocalAddrContextKey) != net.Addr(addr) {
		t.Error("the handler does not see the values of the base context")
	}
	wait(t, got.Done(), "the context ends with the handler")
}

func TestBaseContextEndsCalls(t *testing.T) {
	t.Parallel()
	base, cancel := context.WithCancel(context.Background())
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}, inprocess.WithBaseContext(base))
	do(t, s, request(t, "GET", "/", nil))
}

// Neither side can change what the other one has, nor what both were made from.
func TestNothingIsShared(t *testing.T) {
	t.Parallel()
	shared := append(make([]string, 0, 8), "application/json")
	changed := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header["X-A"][0] = "changed"
		r.Header["X-A"] = append(r.Header["X-A"], "added")
		r.Header.Set("X-B", "added")
		r.URL.Path = "/changed"
		w.Header()["Content-Type"] = shared
		w.WriteHeader(http.StatusOK)
		<-changed
	})
	req := request(t, "GET", "/users", nil)
	req.Header["X-A"] = append(make([]string, 0, 8), "1")
	req.Header["X-C"] = []string{"1", "2"}
	before, spare := req.Header.Clone(), req.Header["X-A"][:2]
	close(changed)
	resp, _ := do(t, s, req)
	resp.Header["Content-Type"][0] = "changed"
	_ = append(resp.Header["Content-Type"], "added")
	if diff := cmp.Diff(before, req.Header); diff != "" || spare[1] != "" || req.URL.Path != "/users" {
		t.Errorf("the handler has changed the caller's request:\n%s", diff)
	}
	if shared[0] != "application/json" || shared[:2][1] != "" {
		t.Errorf("the caller has changed what the handler has: %q", shared[:2])
	}
}

// Informational answers reach a caller that asks for them.
func TestInformational(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		rt := w.start(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "hello")
		})
		type hint struct {
			code   int
			header textproto.MIMEHeader
		}
		var hints []hint
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, hint{code, h})
				return nil
			},
		})
		resp, body := do(t, rt, request(t, "POST", "/", strings.NewReader("abc")).WithContext(ctx))
		want := []hint{{103, textproto.MIMEHeader{"Link": {"</style.css>; rel=preload"}}}}
		if diff := cmp.Diff(want, hints, cmp.AllowUnexported(hint{})); diff != "" || resp.StatusCode != 200 || body != "hello" {
			t.Errorf("%s %q\n%s", resp.Status, body, diff)
		}
		refuse := errors.New("no hints, please")
		ctx = httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { return refuse },
		})
		if _, err := rt.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx)); !errors.Is(err, refuse) {
			t.Errorf("an error of the caller's own: %v", err)
		}
	})
}

// What could not be sent is refused, and the body closed.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *http.Request){
		"method":                 func(r *http.Request) { r.Method = "GE T" },
		"scheme":                 func(r *http.Request) { r.URL.Scheme = "ftp" },
		"no host":                func(r *http.Request) { r.URL.Host = "" },
		"no URL":                 func(r *http.Request) { r.URL = nil },
		"no header":              func(r *http.Request) { r.Header = nil },
		"header name":            func(r *http.Request) { r.Header["X A"] = []string{"1"} },
		"header without a name":  func(r *http.Request) { r.Header[""] = []string{"1"} },
		"header value":           func(r *http.Request) { r.Header["X-A"] = []string{"a\r\nX-B: b"} },
		"header value with a 0":  func(r *http.Request) { r.Header["X-A"] = []string{"a\x00"} },
		"trailer name":           func(r *http.Request) { r.Trailer = http.Header{"X:A": {"1"}} },
		"trailer value":          func(r *http.Request) { r.Trailer = http.Header{"X-A": {"1\n"}} },
		"line break in the URL":  func(r *http.Request) { r.URL.Opaque = "/a\nb" },
		"control in the query":   func(r *http.Request) { r.URL.RawQuery = "a=\x01" },
		"body without a length":  func(r *http.Request) { r.ContentLength = 4 },
		"body beyond its length": func(r *http.Request) { r.ContentLength = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, w way) {
				rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
				body := &closing{Reader: strings.NewReader("abc")}
				req := request(t, "POST", "/", body)
				req.ContentLength = 3
				change(req)
				if resp, err := rt.RoundTrip(req); err == nil {
					resp.Body.Close()
					t.Errorf("it was sent: %s", resp.Status)
				}
				eventually(t, "the body is closed", func() bool { return body.closed.Load() > 0 })
			})
		})
	}
}

// Trailers that are set only as the body ends are taken as over a connection, too.
func TestLateTrailers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ value, want string }{
		"space":      {" 1 ", "1"},
		"line break": {"1\r\nX-B: 2", "1  X-B: 2"},
		"control":    {"1\x00", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, w way) {
				got, failed := make(chan http.Header, 1), make(chan error, 1)
				rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) {
					_, err := io.ReadAll(r.Body)
					failed <- err
					got <- r.Trailer.Clone()
				})
				req := request(t, "POST", "/", nil)
				req.Trailer = http.Header{"X-Sum": nil}
				req.Body, req.ContentLength = io.NopCloser(&atEnd{strings.NewReader("abc"), func() { req.Trailer["X-Sum"] = []string{tt.value} }}), -1
				if resp, err := rt.RoundTrip(req); err == nil {
					resp.Body.Close()
				}
				if err := wait(t, failed, "the body ends"); (err == nil) != (tt.want != "") {
					t.Errorf("the handler read %v", err)
				}
				if trailer := <-got; trailer.Get("X-Sum") != tt.want {
					t.Errorf("trailer: %q", trailer)
				}
			})
		})
	}
}

// atEnd does something before it ends.
type atEnd struct {
	io.Reader
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err == io.EOF {
		a.do()
	}
	return n, err
}

// Files of a form that was parsed are gone when the handler is.
func TestFormFiles(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		files := make(chan *multipart.FileHeader, 1)
		rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) {
			if err := r.ParseMultipartForm(1); err != nil {
				t.Error(err)
			}
			file := r.MultipartForm.File["f"][0]
			open, err := file.Open()
			if err != nil {
				t.Error(err)
			} else if _, ok := open.(*os.File); !ok {
				t.Errorf("it is kept as a %T", open)
			}
			open.Close()
			files <- file
		})
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, _ := form.CreateFormFile("f", "name")
		_, _ = part.Write(make([]byte, 100<<10))
		form.Close()
		req := request(t, "POST", "/", &body)
		req.Header.Set("Content-Type", form.FormDataContentType())
		do(t, rt, req)
		file := <-files
		eventually(t, "the file is gone", func() bool {
			open, err := file.Open()
			if err == nil {
				open.Close()
			}
			return errors.Is(err, os.ErrNotExist)
		})
	})
}

// What needs a connection is left to one, untouched.
func TestWhatNeedsAConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("served") })
	for name, change := range map[string]func(r *http.Request){
		"WebSocket": func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"CONNECT":   func(r *http.Request) { r.Method = "CONNECT" },
		"gRPC":      func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc+proto") },
	} {
		body := &closing{Reader: strings.NewReader("abc")}
		req := request(t, "POST", "/", body)
		change(req)
		if _, err := s.RoundTrip(req); !errors.Is(err, http.ErrSkipAltProtocol) {
			t.Errorf("%s: %v", name, err)
		}
		if rest, _ := io.ReadAll(body); string(rest) != "abc" || body.closed.Load() != 0 {
			t.Errorf("%s: its body was touched", name)
		}
	}
	web := request(t, "POST", "/", nil)
	web.Header.Set("Content-Type", "application/grpc-web")
	ok := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
	})
	do(t, ok, web)
}

// An instance that is not there any more looks like a port that is closed.
func TestRefusedLooksLikeAPort(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("served") })
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := &closing{Reader: strings.NewReader("abc")}
	_, err := s.RoundTrip(request(t, "POST", "/", body))
	op, ok := errors.AsType[*net.OpError](err)
	if !errors.Is(err, syscall.ECONNREFUSED) || !ok || op.Op != "dial" {
		t.Errorf("error %#v", err)
	}
	if body.closed.Load() != 1 {
		t.Error("the request's body is not closed")
	}
}

func TestWriterMistakes(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	wrote := make(chan error, 1)
	var late http.ResponseWriter
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		w.WriteHeader(http.StatusOK)
		late = w
	}, inprocess.WithLogger(textLogger(&log)))
	resp, _ := do(t, s, request(t, "GET", "/tea", nil))
	if resp.StatusCode != http.StatusTeapot || !strings.Contains(log.String(), "superfluous") || !strings.Contains(log.String(), "/tea") {
		t.Errorf("%s; log: %s", resp.Status, &log)
	}
	go func() {
		_, err := fmt.Fprint(late, "too late")
		wrote <- err
	}()
	if err := wait(t, wrote, "a late write returns"); err == nil {
		t.Error("a write after the handler has returned succeeds")
	}
	bad := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		defer func() { wrote <- fmt.Errorf("%v", recover()) }()
		w.WriteHeader(42)
	})
	do(t, bad, request(t, "GET", "/", nil))
	if err := <-wrote; !strings.Contains(err.Error(), "42") {
		t.Errorf("an impossible status: %v", err)
	}
}
