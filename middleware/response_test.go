package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	dto "github.com/prometheus/client_model/go"

	"github.com/keelson-go/keelson/middleware"
)

type family = dto.MetricFamily

// What goes out, as the client, the access log and the metrics see it.
func TestResponses(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	mux.HandleFunc("GET /silent", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.Write([]byte("ab"))
		io.Copy(w, strings.NewReader("cd"))
	})
	mux.HandleFunc("GET /empty-copy", func(w http.ResponseWriter, _ *http.Request) {
		io.Copy(w, io.LimitReader(failingReader{}, 0))
		w.WriteHeader(http.StatusNotFound)
	})
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("secret reason") })
	mux.HandleFunc("GET /bad-status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(7) })
	mux.HandleFunc("GET /cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("half"))
		http.NewResponseController(w).Flush()
		panic("in the middle")
	})
	mux.HandleFunc("GET /abort", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })

	cases := []struct {
		name, method, path string
		status             int // 0: the connection is cut
		body               string
		log                string // status bytes level aborted
		metric             string
		panics             int // logged
	}{
		{"plain", "GET", "/users/7", 200, "hello", "200 5 INFO <nil>", "GET /users/{id} 200", 0},
		{"HEAD has no body", "HEAD", "/users/7", 200, "", "200 0 INFO <nil>", "HEAD /users/{id} 200", 0},
		{"implicit 200", "GET", "/silent", 200, "", "200 0 INFO <nil>", "GET /silent 200", 0},
		{"all ways to write", "GET", "/late", 202, "abcd", "202 4 INFO <nil>", "GET /late 202", 0},
		{"an empty copy sends no header", "GET", "/empty-copy", 404, "", "404 0 INFO <nil>", "GET /empty-copy 404", 0},
		{"no route", "GET", "/nowhere", 404, "404 page not found\n", "404 19 INFO <nil>", "GET  404", 0},
		{"unknown method", "BREW", "/users/7", 405, "Method Not Allowed\n", "405 19 INFO <nil>", "_OTHER  405", 0},
		{"panic", "GET", "/panic", 500, "", "500 - ERROR <nil>", "GET /panic 500", 1},
		{"impossible status", "GET", "/bad-status", 500, "", "500 - ERROR <nil>", "GET /bad-status 500", 1},
		{"panic after the header", "GET", "/cut", 0, "", "200 4 ERROR true", "GET /cut 200", 1},
		{"the handler's own abort", "GET", "/abort", 0, "", "500 0 ERROR <nil>", "GET /abort 500", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv, log, tel := stack(t, mux)
			resp, body, err := do(t, srv, c.method, c.path+"?token=s3cret", nil)
			switch {
			case c.status == 0:
				if err == nil {
					t.Errorf("the client took %q for the whole", body)
				}
			case err != nil:
				t.Fatal(err)
			case c.status == 500:
				p := wantProblem(t, resp, body, 500, "internal")
				if p.RequestID == "" || p.RequestID != resp.Header.Get("X-Request-Id") || len(p.TraceID) != 32 || p.Instance != c.path {
					t.Errorf("problem %+v", p)
				}
				if strings.Contains(string(body), "secret") || strings.Contains(string(body), ".go") {
					t.Errorf("the client learns too much: %s", body)
				}
			case resp.StatusCode != c.status || string(body) != c.body:
				t.Errorf("%s %q", resp.Status, body)
			}
			srv.Close() // waits for the handler's end

			records := log.records(t, "request")
			if len(records) != 1 {
				t.Fatalf("%d records: %s", len(records), log)
			}
			r := records[0]
			got := fmt.Sprintf("%v %v %v %v", r["status"], r["bytes"], r["level"], r["aborted"])
			if want := strings.Replace(c.log, "-", fmt.Sprint(r["bytes"]), 1); got != want {
				t.Errorf("logged %s, want %s", got, want)
			}
			if r["path"] != c.path || r["method"] != c.method || r["request_id"] == nil || r["trace_id"] == nil || r["remote"] == nil || r["duration_ms"] == nil {
				t.Errorf("record %v", r)
			}
			if strings.Contains(log.String(), "s3cret") {
				t.Errorf("the query string is in the log: %s", log)
			}
			if counts := seen(t, tel); len(counts) != 1 || counts[c.metric] != 1 {
				t.Errorf("metrics %v, want %s", counts, c.metric)
			}
			panics := log.records(t, "handler panicked")
			if len(panics) != c.panics {
				t.Fatalf("%d panics logged: %s", len(panics), log)
			}
			for _, p := range panics {
				if stack, _ := p["stack"].(string); !strings.Contains(stack, "response_test.go") || p["trace_id"] != r["trace_id"] {
					t.Errorf("panic record %v", p)
				}
			}
		})
	}
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	for name, flush := range map[string]func(http.ResponseWriter){
		"http.Flusher":       func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"ResponseController": func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := make(chan string)
			srv, log, _ := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				flush(w)
				for event := range next {
					fmt.Fprintf(w, "data: %s\n\n", event)
					flush(w)
				}
			}))
			resp, err := srv.Client().Get(srv.URL) // returns once the header has come
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			for _, event := range []string{"one", "two"} {
				next <- event
				if !lines.Scan() || lines.Text() != "data: "+event || !lines.Scan() {
					t.Fatalf("got %q, want %s", lines.Text(), event)
				}
			}
			close(next)
			io.Copy(io.Discard, resp.Body)
			srv.Close()
			if r := log.records(t, "request"); len(r) != 1 || r[0]["status"] != 200.0 || r[0]["bytes"] != 22.0 {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	srv, log, tel := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		kind, msg, err := conn.Read(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if err := conn.Write(r.Context(), kind, append([]byte("echo "), msg...)); err != nil {
			t.Error(err)
		}
		conn.Close(websocket.StatusNormalClosure, "")
	}))
	conn, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{HTTPClient: srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := conn.Read(t.Context()); err != nil || string(msg) != "echo hi" {
		t.Fatalf("%q, %v", msg, err)
	}
	conn.Close(websocket.StatusNormalClosure, "")
	eventually(t, "the end is logged", func() bool { return len(log.records(t, "request")) == 1 })
	if r := log.records(t, "request")[0]; r["status"] != 101.0 {
		t.Errorf("record %v", r)
	}
	if counts := seen(t, tel); counts["GET  101"] != 1 {
		t.Errorf("metrics %v", counts)
	}
}

// A raw hijack that never writes a header, and a panic after it.
func TestHijackWithoutHeader(t *testing.T) {
	t.Parallel()
	srv, log, tel := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		rw.Flush()
		panic("after the switch")
	}))
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	all, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 101") || strings.Contains(string(all), "500") {
		t.Errorf("%q, %v", all, err)
	}
	eventually(t, "the end is logged", func() bool { return len(log.records(t, "request")) == 1 })
	if r := log.records(t, "request")[0]; r["status"] != 101.0 || r["aborted"] != true || len(log.records(t, "handler panicked")) != 1 {
		t.Errorf("log: %s", log)
	}
	if counts := seen(t, tel); counts["GET  101"] != 1 {
		t.Errorf("metrics %v", counts)
	}
}

func TestHTTP10(t *testing.T) {
	t.Parallel()
	srv, log, _ := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "old ")
		w.(http.Flusher).Flush()
		io.WriteString(w, "times")
	}), middleware.Timeout(time.Minute), middleware.BodyLimit(0))
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	all, err := io.ReadAll(conn) // HTTP/1.0: the end of the connection is the end of the body
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(string(all), "\r\n\r\nold times") {
		t.Errorf("%q, %v", all, err)
	}
	srv.Close()
	if r := log.records(t, "request"); len(r) != 1 || r[0]["bytes"] != 9.0 {
		t.Errorf("log: %s", log)
	}
}

func TestInformationalHeaders(t *testing.T) {
	t.Parallel()
	srv, log, tel := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		panic("before the final header")
	}))
	var early []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
	})
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	wantProblem(t, resp, body, 500, "internal")
	if fmt.Sprint(early) != "[103 102]" {
		t.Errorf("informational %v", early)
	}
	srv.Close()
	if counts := seen(t, tel); counts["GET  500"] != 1 || log.records(t, "request")[0]["status"] != 500.0 {
		t.Errorf("metrics %v, log %s", counts, log)
	}
}

func TestClientGone(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name          string
		before, after func(http.ResponseWriter)
		log           string
		metric        string
	}{
		{"before any answer", nil, nil, "499 INFO <nil>", "GET  "},
		{"before its error is answered", nil, func(w http.ResponseWriter) { w.WriteHeader(500) }, "499 INFO <nil>", "GET  "},
		{"before it is written to", nil, func(w http.ResponseWriter) { io.WriteString(w, "x") }, "499 INFO <nil>", "GET  "},
		{"before it is copied to", nil, func(w http.ResponseWriter) { io.Copy(w, io.LimitReader(strings.NewReader("x"), 1)) }, "499 INFO <nil>", "GET  "},
		{"while it was sent", func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, nil, "200 INFO <nil>", "GET  200"},
		{"a proxy cuts its copy", func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
			func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "200 INFO true", "GET  200"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			arrived := make(chan bool)
			srv, log, tel := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.before != nil {
					c.before(w)
				}
				close(arrived)
				<-r.Context().Done()
				if c.after != nil {
					c.after(w)
				}
			}), middleware.Timeout(time.Minute))
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			go func() { <-arrived; cancel() }()
			if resp, err := srv.Client().Do(req); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			eventually(t, "the end is logged", func() bool { return len(log.records(t, "request")) == 1 })
			r := log.records(t, "request")[0]
			if got := fmt.Sprintf("%v %v %v", r["status"], r["level"], r["aborted"]); got != c.log {
				t.Errorf("logged %s, want %s", got, c.log)
			}
			eventually(t, "it is counted", func() bool { return seen(t, tel)[c.metric] == 1 })
			if got := tel.Server().Summary().ErrorCount; got != 0 {
				t.Errorf("the client's leaving is %d errors of ours", got)
			}
		})
	}
}

// leaving is a source whose reader loses its client in the middle.
type leaving struct {
	io.Reader
	leave func()
}

func (l leaving) Read(b []byte) (int, error) {
	l.leave()
	return l.Reader.Read(b)
}

// A client that leaves while a body is copied to it has had the header.
func TestClientGoneInACopy(t *testing.T) {
	t.Parallel()
	log := new(logs)
	h := middleware.AccessLog(log.logger(), middleware.AccessLogOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	serve(h(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, leaving{strings.NewReader("half"), cancel})
	})), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	if r := log.records(t, "request"); r[0]["status"] != 200.0 || r[0]["bytes"] != 4.0 {
		t.Errorf("log: %s", log)
	}
}

// copying is a ResponseWriter that says what was handed to ReadFrom.
type copying struct {
	*httptest.ResponseRecorder
	got io.Reader
}

func (c *copying) ReadFrom(src io.Reader) (int64, error) {
	c.got = src
	return io.Copy(c.ResponseRecorder, src)
}

func TestFilesReachTheServersReadFrom(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("contents"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log, tel := new(logs), newTelemetry(t)
	h := middleware.Chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := w.(io.ReaderFrom).ReadFrom(file); n != 8 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}), middleware.AccessLog(log.logger(), middleware.AccessLogOptions{}), middleware.Metrics(tel), middleware.Recover(nil))
	w := &copying{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.got != io.Reader(file) {
		t.Errorf("the server was given a %T: it can't use sendfile", w.got)
	}
	if r := log.records(t, "request"); r[0]["bytes"] != 8.0 || r[0]["status"] != 200.0 {
		t.Errorf("log: %s", log)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { panic("broken source") }

// A source that breaks down in the middle must not get a second response after
// the first one's beginning.
func TestPanickingSource(t *testing.T) {
	t.Parallel()
	srv, log, _ := stack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, io.MultiReader(bytes.NewReader(make([]byte, 1<<16)), failingReader{}))
	}))
	if _, body, err := do(t, srv, "GET", "/", nil); err == nil {
		t.Errorf("%d bytes were taken for the whole", len(body))
	}
	srv.Close()
	if len(log.records(t, "handler panicked")) != 1 {
		t.Errorf("log: %s", log)
	}
}

// plain can do no more than the interface asks.
type plain struct{ http.ResponseWriter }

func TestWhatTheServerCannotDo(t *testing.T) {
	t.Parallel()
	h := middleware.Recover(nil)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Flush: %v", err)
		}
		if _, _, err := c.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		if err := c.SetWriteDeadline(time.Now()); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("SetWriteDeadline: %v", err)
		}
		w.WriteHeader(http.StatusTeapot)
		io.Copy(w, strings.NewReader("short"))
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(plain{w}, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusTeapot || w.Body.String() != "short" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
