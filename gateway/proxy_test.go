package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
)

func open(path string) gateway.Route {
	return gateway.Route{Path: path, Service: "up", Public: true}
}

func oneService(t testing.TB, h http.HandlerFunc, routes ...gateway.Route) *edge {
	t.Helper()
	if len(routes) == 0 {
		routes = []gateway.Route{open("/*")}
	}
	return newEdge(t, gateway.Config{Routes: routes}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"up": h})})
}

func TestUpstreamHeaders(t *testing.T) {
	t.Parallel()
	verifier, mint := tokens(t)
	cfg := gateway.Config{Authenticator: verifier, Routes: []gateway.Route{
		{Path: "/api/*", Service: "up", StripPrefix: "/api"},
		{Path: "/public/*", Service: "up", Public: true, PreserveHost: true},
	}}
	e := newEdge(t, cfg, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"up": echo})})
	token := mint(time.Hour, "read", "write")
	forged := []string{
		"Authorization", token, "Host", "shop.example:8080", "X-Request-Id", "mine-1", "Cookie", "a=b",
		"X-Auth-Subject", "root", "X_Auth_Subject", "root", "x-auth_scopes", "all", "X-Auth-Scopes", "all",
		"X-Gateway-Request-Id", "forged", "X-Service-Name", "forged", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil",
		"X-Forwarded-Proto", "https", "Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6", "X-Original-Url", "/admin",
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "a=b", "Baggage", "k=v",
		"X-Http-Method-Override", "DELETE", "X-Forwarded", "for=6.6.6.6", "Proxy", "http://evil",
		"Connection", "X-Hop, X-Auth-Subject, X-Request-Id", "X-Hop", "1", "Proxy-Authorization", "Basic x", "Keep-Alive", "1", "Te", "trailers, gzip", "Upgrade", "h2c", "Http2-Settings", "AAMAAABk",
	}
	res, got := e.echo("GET", "/api/x", "", forged...)
	h := got.Header
	want := map[string]string{
		"X-Auth-Subject": "ann", "X-Auth-Scopes": "read write", "Authorization": token, "Cookie": "a=b", "X-Request-Id": "mine-1",
		"X-Service-Name": "up", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.example:8080", "X-Forwarded-Proto": "http",
		"X-Forwarded-Prefix": "/api", "Forwarded": `for=127.0.0.1;host="shop.example:8080";proto=http`, "Te": "trailers",
	}
	for name, value := range want {
		if v := h.Values(name); len(v) != 1 || v[0] != value {
			t.Errorf("%s: %q, want %q", name, v, value)
		}
	}
	for _, name := range []string{"X-Http-Method-Override", "X-Forwarded", "Proxy", "X_Auth_Subject", "X-Auth_scopes", "X-Real-Ip", "X-Original-Url", "Tracestate", "Baggage", "X-Hop", "Connection",
		"Proxy-Authorization", "Keep-Alive", "Upgrade", "Http2-Settings", "Accept-Encoding"} {
		if v, ok := h[name]; ok {
			t.Errorf("%s: %q reached the service", name, v)
		}
	}
	if id := h.Get("X-Gateway-Request-Id"); len(id) != 32 || id != res.Header.Get("X-Gateway-Request-Id") {
		t.Errorf("gateway's id %q, answered %q", id, res.Header.Get("X-Gateway-Request-Id"))
	}
	if tp := h.Get("Traceparent"); len(tp) != 55 || strings.Contains(tp, "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("a stranger's trace goes on: %s", tp)
	}
	if res.Header.Get("X-Request-Id") != "mine-1" || res.Header.Get("X-Service-Name") != "up" || !strings.HasPrefix(got.Host, "127.0.0.1:") {
		t.Errorf("%v, host %s", res.Header, got.Host)
	}
	_, got = e.echo("GET", "/public/x", "", forged...)
	if got.Header.Get("X-Auth-Subject") != "" || got.Header.Get("X-Auth-Scopes") != "" || got.Host != "shop.example:8080" {
		t.Errorf("on a public route: %v, host %s", got.Header, got.Host)
	}
	_, got = e.echo("GET", "/public/x", "", "X-Request-Id", "bad id\t")
	if id := got.Header.Get("X-Request-Id"); len(id) != 32 || id != got.Header.Get("X-Gateway-Request-Id") {
		t.Errorf("a bad id became %q", id)
	}

	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	_, got = e.echo("GET", "/api/x", "",
		"Authorization", token, "Host", "inner", "X-Forwarded-For", "1.1.1.1, 203.0.113.9", "X-Forwarded-Host", "shop.example", "X-Forwarded-Proto", "https",
		"X-Forwarded-Prefix", "/v1", "Forwarded", "for=203.0.113.9", "X-Real-Ip", "203.0.113.9", "X_Real_Ip", "9.9.9.9", "Baggage", "k=v", "X-Auth-Subject", "root",
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "a=b")
	want = map[string]string{
		"X-Auth-Subject": "ann", "X-Forwarded-For": "1.1.1.1, 203.0.113.9, 127.0.0.1", "X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https",
		"X-Forwarded-Prefix": "/v1/api", "Forwarded": `for=203.0.113.9, for=127.0.0.1;host="inner";proto=http`, "X-Real-Ip": "203.0.113.9", "Baggage": "k=v", "Tracestate": "a=b",
	}
	for name, value := range want {
		if v := got.Header.Values(name); len(v) != 1 || v[0] != value {
			t.Errorf("behind a proxy, %s: %q, want %q", name, v, value)
		}
	}
	if tp := got.Header.Get("Traceparent"); !strings.HasPrefix(tp, "00-0af7651916cd43dd8448eb211c80319c-") || strings.Contains(tp, "b7ad6b7169203331") || !strings.HasSuffix(tp, "-01") {
		t.Errorf("the proxy's trace: %s", tp)
	}
	if got.Header["X_real_ip"] != nil || got.Header["X_Real_Ip"] != nil { //nolint:staticcheck // the odd spelling is the point
		t.Error("X_Real_Ip passed")
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Request-Id", "upstream's")
		h.Set("X-Service-Name", "upstream's")
		h.Set("Connection", "X-Hop, X-Request-Id")
		h.Set("X-Hop", "1")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("Location", "/users/8")
		h.Set("Etag", `"1"`)
		h.Set("Content-Length", "4")
		h.Set("Set-Cookie", "a=b")
		h.Add("Set-Cookie", "c=d")
		w.WriteHeader(http.StatusCreated)
		if r.Method != "HEAD" {
			_, _ = io.WriteString(w, "\x00\xff\r\n")
		}
	}, gateway.Route{Path: "/api/*", Service: "up", StripPrefix: "/api", Public: true})
	for _, method := range []string{"POST", "HEAD"} {
		res, body := e.do(method, "/api/users", "")
		h := res.Header
		if res.StatusCode != 201 || len(h.Values("X-Request-Id")) != 1 || len(h.Get("X-Request-Id")) != 32 || h.Get("X-Service-Name") != "up" ||
			h.Get("X-Hop") != "" || h.Get("Proxy-Authenticate") != "" || h.Get("Location") != "/api/users/8" || h.Get("Etag") != `"1"` ||
			len(h.Values("Set-Cookie")) != 2 || res.ContentLength != 4 {
			t.Errorf("%s: %d %v", method, res.StatusCode, h)
		}
		if want := map[string]string{"POST": "\x00\xff\r\n", "HEAD": ""}[method]; body != want {
			t.Errorf("%s: %q", method, body)
		}
	}
}

func TestBodiesPassUntouched(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", r.Header.Get("Content-Encoding"))
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, r.Body)
	})
	body := make([]byte, 3<<20)
	_, _ = rand.Read(body)
	for _, known := range []bool{true, false} {
		var r io.Reader = bytes.NewReader(body)
		if !known {
			r = struct{ io.Reader }{r} // chunked
		}
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", e.url+"/blob", r)
		req.Header.Set("Content-Encoding", "gzip") // which it is not: nobody may look
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Expect", "100-continue")
		res, err := e.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !bytes.Equal(got, body) || res.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("known length %t: %d of %d bytes, %v", known, len(got), len(body), err)
		}
	}
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/small", Service: "up", Public: true, MaxBody: 10},
		{Path: "/default", Service: "up", Public: true},
		{Path: "/any", Service: "up", Public: true, MaxBody: -1},
	}}, gateway.Deps{Transport: newFleet(t, map[string]http.Handler{"up": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, n)
	})})})
	for _, chunked := range []bool{false, true} {
		send := func(path string, n int) (*http.Response, string) {
			var r io.Reader = strings.NewReader(strings.Repeat("x", n))
			if chunked {
				r = struct{ io.Reader }{r}
			}
			req, _ := http.NewRequestWithContext(t.Context(), "POST", e.url+path, r)
			res, err := e.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			text, _ := io.ReadAll(res.Body)
			return res, string(text)
		}
		for path, n := range map[string]int{"/small": 10, "/default": 1 << 20, "/any": gateway.DefaultMaxBody + 1} {
			if res, text := send(path, n); res.StatusCode != 200 || text != fmt.Sprint(n) {
				t.Errorf("chunked %t: %s %d bytes: %d %s", chunked, path, n, res.StatusCode, text)
			}
		}
		res, text := send("/small", 11)
		wantProblem(t, res, text, 413, problem.CodeTooLarge)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", e.url+"/default", nil)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader("x")), gateway.DefaultMaxBody+1
	req.Header.Set("Expect", "100-continue") // refused before it is sent
	res, err := e.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 413 {
		t.Errorf("default: %d", res.StatusCode)
	}
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	next, gone := make(chan string), make(chan struct{})
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case event := <-next:
				_, _ = io.WriteString(w, "data: "+event+"\n\n")
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				close(gone)
				return
			}
		}
	}, gateway.Route{Path: "/*", Service: "up", Public: true, Timeout: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", e.url+"/events", nil)
	res, err := e.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%d", res.StatusCode)
	}
	lines := bufio.NewReader(res.Body)
	started := time.Now()
	for i := 0; i < 3 || time.Since(started) < 1200*time.Millisecond; i++ { // longer than Timeout
		// Each arrives before the next is made: nothing is held back.
		select {
		case next <- fmt.Sprint(i):
		case <-gone:
			t.Fatal("the stream was cut")
		}
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = lines.ReadString('\n')
	}
	cancel()
	<-gone // it reaches the service
	eventually(t, "the log tells that the client left", func() bool { return strings.Contains(e.logs.String(), `"client_gone":true`) })
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, msg, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, msg); err != nil {
				return
			}
		}
	}, gateway.Route{Path: "/*", Service: "up", Public: true, Timeout: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, res, err := websocket.Dial(ctx, e.url+"/ws", &websocket.DialOptions{HTTPClient: e.http, Subprotocols: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if c.Subprotocol() != "echo" || res.Header.Get("X-Service-Name") != "up" {
		t.Errorf("%q %v", c.Subprotocol(), res.Header)
	}
	started := time.Now()
	for i := 0; i < 3 || time.Since(started) < 1200*time.Millisecond; i++ {
		msg := []byte(fmt.Sprint("message ", i))
		if err := c.Write(ctx, websocket.MessageBinary, msg); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	eventually(t, "the log has it", func() bool { return strings.Contains(e.logs.String(), `"status":101`) })
}

// An upgrade to HTTP/2 would be a tunnel past the gateway.
func TestOnlyWebSocketUpgrades(t *testing.T) {
	t.Parallel()
	switcher := func(w http.ResponseWriter, r *http.Request) {
		if up := r.Header.Get("Upgrade"); up != "" && (up != "websocket" || r.ContentLength != 0) {
			t.Errorf("Upgrade: %s reached the service, body %d", up, r.ContentLength)
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	}
	e := oneService(t, switcher)
	for _, upgrade := range []string{"h2c", "HTTP/2.0", "websocket", "websocket, h2c", ""} {
		answer := raw(t, e.addr, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: "+upgrade+"\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 502 ") {
			t.Errorf("%q: %s", upgrade, answer)
		}
	}
	for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
		answer := raw(t, e.addr, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"+body)
		if !strings.HasPrefix(answer, "HTTP/1.1 502 ") {
			t.Errorf("a WebSocket after a body: %s", answer)
		}
	}
}

func TestInformationalResponses(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "done")
	})
	var hints []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, "GET", e.url+"/", nil)
	res, err := e.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || !slices.Equal(hints, []string{"103 </style.css>; rel=preload"}) || res.Header.Get("X-Request-Id") == "" {
		t.Errorf("%d %q %v", res.StatusCode, hints, res.Header)
	}
}

func TestWeights(t *testing.T) {
	t.Parallel()
	services := map[string]http.Handler{}
	for _, name := range []string{"blue", "green", "off"} {
		services[name] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	}
	e := newEdge(t, gateway.Config{AccessLog: gateway.LogNone, Routes: []gateway.Route{{Path: "/*", Public: true,
		Backends: []gateway.Backend{{Service: "blue", Weight: 3}, {Service: "green", Weight: 1}, {Service: "off"}}}}},
		gateway.Deps{Transport: newFleet(t, services)})
	count := map[string]int{}
	for range 400 {
		res, text := e.do("GET", "/", "")
		if res.Header.Get("X-Service-Name") != text {
			t.Fatalf("%s answered as %s", text, res.Header.Get("X-Service-Name"))
		}
		count[text]++
	}
	// 300 and 100 are expected; 8.7 is the standard deviation.
	if count["off"] != 0 || count["green"] < 50 || count["green"] > 150 {
		t.Errorf("%v", count)
	}
}
