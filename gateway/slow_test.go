package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
)

// A client that does not read its answer must not hold anything for ever.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		proto int
		type_ string
	}{
		{"download", 1, "application/octet-stream"},
		{"events", 1, "text/event-stream"},
		{"download over HTTP/2", 2, "application/octet-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				w.Header().Set("Content-Type", tt.type_)
				block := make([]byte, 64<<10)
				for { // more than any buffer on the way holds
					if _, err := w.Write(block); err != nil {
						return
					}
				}
			})
			e.SetPatience(300 * time.Millisecond)
			var conn net.Conn
			if tt.proto == 1 {
				conn = dial(t, e.addr)
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			} else {
				conn = dialHTTP2(t, e.addr)
			}
			defer conn.Close()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatal("the upstream still sends")
			}
			eventually(t, "the log has it", func() bool { return strings.Contains(e.logs.String(), `"client_gone":true`) })
		})
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// dialHTTP2 asks for / and reads the connection, but never opens the stream's window.
func dialHTTP2(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn := dial(t, addr)
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00"+"\x00\x04\x00\x00\x00\x00"+ // SETTINGS: INITIAL_WINDOW_SIZE is 0
		// HEADERS that end stream 1 and are all: GET, http, /, :authority x
		"\x00\x00\x06\x01\x05\x00\x00\x00\x01"+"\x82\x86\x84\x01\x01x"); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
	return conn
}

// Silence is no fault of the client's, and what was watched leaves no deadline on
// the connection.
func TestQuietStreamLives(t *testing.T) {
	t.Parallel()
	const patience = 300 * time.Millisecond // less, and a busy machine looks like a client that does not read
	next := map[string]chan string{"/HTTP/1.1": make(chan string), "/HTTP/2.0": make(chan string)}
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/blob" {
			_, _ = w.Write(make([]byte, 1<<20))
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case event := <-next[r.URL.Path]:
				_, _ = io.WriteString(w, event+"\n")
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	e.SetPatience(patience)
	var dials atomic.Int32
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}
		tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
		tr.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
		t.Cleanup(tr.CloseIdleConnections)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		get := func(path string) *http.Response {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, e.url+path, nil)
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if res.Proto != proto {
				t.Fatalf("%s, want %s", res.Proto, proto)
			}
			return res
		}
		events := get("/" + proto)
		lines := bufio.NewReader(events.Body)
		for i := range 3 {
			select {
			case next["/"+proto] <- fmt.Sprint(i):
			case <-ctx.Done():
				t.Fatalf("%s: the stream was cut", proto)
			}
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprint(i, "\n") {
				t.Fatalf("%s: %q, %v", proto, line, err)
			}
			<-time.After(3 * patience)
		}
		_ = events.Body.Close()
		dials.Store(0)
		for range 3 {
			res := get("/blob")
			if n, err := io.Copy(io.Discard, res.Body); n != 1<<20 || err != nil {
				t.Fatalf("%s: %d bytes, %v", proto, n, err)
			}
			_ = res.Body.Close()
			<-time.After(2 * patience)
		}
		if n := dials.Load(); n > 1 {
			t.Errorf("%s: %d connections for 3 requests one after another", proto, n)
		}
	}
}

// The answer to a body that is too large, or that the upstream does not want,
// must get to a client that is still sending.
func TestEarlyAnswerToChunkedBody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/small", Service: "up", Public: true, MaxBody: 1 << 20},
		{Path: "/early", Service: "up", Public: true},
	}}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"up": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})})})
	for path, times := range map[string]int{"/small": 10, "/early": 40} {
		for i := range times {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+path, io.MultiReader(strings.NewReader(strings.Repeat("x", 10<<20))))
			res, err := e.http.Do(req)
			if err != nil {
				t.Fatalf("%s, request %d: %v", path, i, err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatalf("%s, request %d: %d, %v", path, i, res.StatusCode, err)
			}
		}
	}
}

// One that sends all before it looks for the answer gets it, too, if the route
// would have taken as much.
func TestEarlyAnswerToDeafClient(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusForbidden)
	})
	conn := dial(t, e.addr)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk := "10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n"
	for i := range 16 << 4 { // 16 MiB
		if _, err := io.WriteString(conn, chunk); err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusForbidden {
		t.Fatalf("%+v, %v", res, err)
	}
}

// A client that breaks off in the middle is no reason to call it a success.
func TestNoAnswerIsInvented(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	conn := dial(t, e.addr)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
	_ = conn.(*net.TCPConn).CloseWrite()
	if answer, _ := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		t.Errorf("%s", answer)
	}
}
