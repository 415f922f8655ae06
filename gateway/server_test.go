package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
)

// net/http refuses what two servers could split in two ways; were that to
// change, this tells.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "smuggled") {
			t.Errorf("%s got through", r.URL.Path)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, head := range map[string]string{
		"two lengths":               "Content-Length: 0\r\nContent-Length: 36\r\n\r\n",
		"length list":               "Content-Length: 0, 36\r\n\r\n",
		"signed length":             "Content-Length: +0\r\n\r\n",
		"unknown encoding":          "Transfer-Encoding: xchunked\r\n\r\n",
		"two encodings":             "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
		"space before colon":        "Transfer-Encoding : chunked\r\n\r\n",
		"bare CR":                   "X-A: b\rTransfer-Encoding: chunked\r\n\r\n",
		"NUL":                       "X-A: b\x00\r\n\r\n",
		"two hosts":                 "Host: y\r\n\r\n",
		"bad chunk size":            "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
		"chunk without end of line": "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
	} {
		answer := raw(t, e.addr, "POST /first HTTP/1.1\r\nHost: x\r\n"+head+smuggled)
		if first, _, _ := strings.Cut(answer, "\r\n"); !strings.HasPrefix(first, "HTTP/1.1 400 ") && !strings.HasPrefix(first, "HTTP/1.1 501 ") {
			t.Errorf("%s: %q", name, answer)
		}
		if strings.Count(answer, "HTTP/1.1 ") > 1 {
			t.Errorf("%s: more than one answer: %q", name, answer)
		}
	}
	// With both, the length does not count (RFC 9112, section 6.3) and the
	// connection ends, so nothing can follow.
	answer := raw(t, e.addr, "POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+smuggled)
	if strings.Count(answer, "HTTP/1.1 ") != 1 || !strings.Contains(answer, "Connection: close") {
		t.Errorf("both: %q", answer)
	}
	// A folded header is one header (RFC 9112, section 5.2), here as well as upstream.
	answer = raw(t, e.addr, "POST /first HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: b\r\n Transfer-Encoding: chunked\r\n\r\n"+smuggled)
	if strings.Count(answer, "HTTP/1.1 ") != 1 {
		t.Errorf("folded: %q", answer)
	}
}

// The upstream's request line must have one target, and one request must come of one.
func TestRequestLine(t *testing.T) {
	t.Parallel()
	e := oneService(t, echo)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true) // HTTP/1 has no room for a space
	defer tr.CloseIdleConnections()
	for query, want := range map[string]int{"a HTTP/1.0": 400, "a%20HTTP/1.0": 200} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.RawQuery = query
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != want || want == 400 && !strings.Contains(string(text), "query has a space") {
			t.Errorf("%q: %d %s, %v", query, res.StatusCode, text, err)
		}
	}
	// net/http does not tell of a Transfer-Encoding in HTTP/1.0, so none is kept open.
	second := "GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for _, header := range []string{"", "Transfer-Encoding: chunked\r\n"} {
		answer := raw(t, e.addr, "GET /first HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n"+header+"\r\n"+second)
		if strings.Count(answer, "HTTP/1.") != 1 || !strings.Contains(answer, "/first") {
			t.Errorf("%q: %s", header, answer)
		}
	}
}

// What a client can write into the log is bounded.
func TestLogBounds(t *testing.T) {
	t.Parallel()
	e := oneService(t, echo)
	raw(t, e.addr, strings.Repeat("M", 20<<10)+" /"+strings.Repeat("p", 20<<10)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	eventually(t, "the log has it", func() bool { return strings.Contains(e.logs.String(), `"status":400`) })
	if n := len(e.logs.String()); n > 9<<10 {
		t.Errorf("%d bytes", n)
	}
}

func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	e := oneService(t, echo)
	answer := raw(t, e.addr, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: "+strings.Repeat("a", 80<<10)+"\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
		t.Errorf("%.60q", answer)
	}
}

func TestServerDefaultsKeepWhatIsSet(t *testing.T) {
	t.Parallel()
	srv := &http.Server{IdleTimeout: time.Second}
	gateway.ServerDefaults(srv)
	if srv.IdleTimeout != time.Second || srv.ReadHeaderTimeout == 0 || srv.MaxHeaderBytes == 0 || !srv.Protocols.UnencryptedHTTP2() || srv.WriteTimeout != 0 {
		t.Errorf("%+v", srv)
	}
}
