package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
)

func TestGRPC(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("%s, Te: %s", r.Proto, r.Header.Get("Te"))
		}
		w.Header().Set("Content-Type", "application/grpc+proto")
		w.Header().Set("Trailer", "Grpc-Status")
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	}, gateway.Route{Path: "/*", Service: "up", Public: true, Timeout: 500 * time.Millisecond})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", e.url+"/shop.Users/Chat", pr)
	req.Header.Set("Content-Type", "application/grpc+proto")
	req.Header.Set("Te", "trailers")
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	started := time.Now()
	buf := make([]byte, 16)
	for i := 0; i < 3 || time.Since(started) < 600*time.Millisecond; i++ {
		// Both directions at once, for longer than Timeout.
		msg := fmt.Sprint("ping", i%10)
		if _, err := io.WriteString(pw, msg); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(res.Body, buf[:len(msg)]); err != nil || string(buf[:n]) != msg {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	_ = pw.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" || res.Header.Get("Grpc-Status") != "" {
		t.Errorf("trailers %v, headers %v", res.Trailer, res.Header)
	}
}

// Only what can be gRPC gets its freedom: no limit to its time and its body.
func TestWhatIsGRPC(t *testing.T) {
	t.Parallel()
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}, gateway.Route{Path: "/*", Service: "up", Public: true, Timeout: 200 * time.Millisecond})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections) // after the parallel ones
	for _, tt := range []struct {
		proto, method, contentType string
		status                     int // 0: it waits, as gRPC may
	}{
		{"2", "POST", "application/grpc", 0},
		{"2", "POST", "application/grpc+proto", 0},
		{"2", "POST", "application/grpc; x=y", 0},
		{"2", "POST", "application/grpc-web", 504},
		{"2", "POST", "application/grpc-web+proto", 504},
		{"2", "POST", "application/grpcx", 504},
		{"2", "PUT", "application/grpc", 504},
		{"1", "POST", "application/grpc", 505},
		{"1", "POST", "application/grpc+proto", 505},
		{"1", "GET", "application/grpc;x=y", 505},
		{"1", "POST", "application/grpc-web", 504},
		{"1", "POST", "application/grpc-web-text+proto", 504},
	} {
		t.Run(tt.proto+" "+tt.method+" "+tt.contentType, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if tt.status == 0 {
				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			}
			defer cancel()
			client := e.http.Transport
			if tt.proto == "2" {
				client = tr
			}
			req, _ := http.NewRequestWithContext(ctx, tt.method, e.url+"/shop.Users/Get", strings.NewReader("x"))
			req.Header.Set("Content-Type", tt.contentType)
			res, err := client.RoundTrip(req)
			if tt.status == 0 {
				if err == nil {
					_ = res.Body.Close()
					t.Errorf("an answer before the caller's own end: %d", res.StatusCode)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			codes := map[int]string{504: problem.CodeUpstreamTimeout, 505: "http_version_not_supported"}
			wantProblem(t, res, string(body), tt.status, codes[tt.status])
		})
	}
}

func TestRequestTrailers(t *testing.T) {
	t.Parallel()
	e := oneService(t, echo)
	answer := raw(t, e.addr, "POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Auth-Subject\r\n\r\n"+
		"3\r\nabc\r\n0\r\nX-Sum: 42\r\nX-Auth-Subject: root\r\nX-Undeclared: 1\r\n\r\n")
	if !strings.Contains(answer, `"Trailer":{"X-Sum":["42"]}`) {
		t.Error(answer)
	}
}
