package registry_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
)

// listen answers each connection with f.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestProber(t *testing.T) {
	t.Parallel()
	answer := func(f http.HandlerFunc) func(*testing.T) string {
		return func(t *testing.T) string {
			s := httptest.NewServer(f)
			t.Cleanup(s.Close)
			return s.URL
		}
	}
	closed := func(t *testing.T) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return l.Addr().String()
	}
	for _, c := range []struct {
		name   string
		serve  func(*testing.T) string
		health string
		want   registry.ProbeResult
	}{
		{"ok", answer(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(registry.InstanceHeader, "a")
			if r.URL.Path != "/health" || r.Method != http.MethodGet {
				w.WriteHeader(http.StatusTeapot)
			}
		}), "/health", registry.ProbeOK},
		{"no content", answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }), "/health", registry.ProbeOK},
		{"endless body", answer(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}), "/health", registry.ProbeOK},
		{"unwell", answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), "/health", registry.ProbeFailed},
		{"not found", answer(http.NotFound), "/health", registry.ProbeFailed},
		{"redirect", answer(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}
		}), "/health", registry.ProbeFailed},
		{"another instance", answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(registry.InstanceHeader, "b")
		}), "/health", registry.ProbeOther},
		{"another instance, unwell", answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(registry.InstanceHeader, "b")
			w.WriteHeader(500)
		}), "/health", registry.ProbeOther},
		{"huge headers", answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Much", strings.Repeat("x", 64<<10))
		}), "/health", registry.ProbeFailed},
		{"not HTTP", func(t *testing.T) string {
			return listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.example.com\r\n\r\n"); c.Close() })
		}, "/health", registry.ProbeFailed},
		{"reset", func(t *testing.T) string {
			return listen(t, func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() })
		}, "/health", registry.ProbeBroken},
		{"closed without an answer", func(t *testing.T) string {
			return listen(t, func(c net.Conn) {
				buf := make([]byte, 4096)
				_, _ = c.Read(buf)
				c.Close()
			})
		}, "/health", registry.ProbeBroken},
		{"refused", closed, "/health", registry.ProbeRefused},
		{"refused on every address", func(t *testing.T) string {
			_, port, _ := net.SplitHostPort(closed(t))
			return "localhost:" + port
		}, "/health", registry.ProbeRefused},
		{"no such host", func(*testing.T) string { return "no-such-host.invalid:80" }, "/health", registry.ProbeFailed},
		{"connect", answer(http.NotFound), "", registry.ProbeOK},
		{"connect refused", closed, "", registry.ProbeRefused},
		{"connect by name", func(t *testing.T) string {
			_, port, _ := net.SplitHostPort(listen(t, func(c net.Conn) { c.Close() }))
			return "localhost:" + port
		}, "", registry.ProbeOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := registry.Instance{Name: "users", ID: "a", Address: c.serve(t), Health: c.health}
			if err := in.Normalize(); err != nil {
				t.Fatal(err)
			}
			if got := registry.NewProber().Probe(t.Context(), in); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestProberTime(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	t.Cleanup(hang.Close)
	t.Cleanup(func() { close(free) })
	in := registry.Instance{Name: "users", Address: hang.URL, Health: "/health"}
	if err := in.Normalize(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := registry.NewProber().Probe(t.Context(), in); got != registry.ProbeFailed {
		t.Errorf("a server that hangs: %v", got)
	}
	if took := time.Since(began); took < registry.ProbeTimeout || took > registry.ProbeTimeout+10*time.Second {
		t.Errorf("it took %v, want %v", took, registry.ProbeTimeout)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := registry.NewProber().Probe(ctx, in); got != registry.ProbeFailed {
		t.Errorf("without time: %v", got)
	}
}

func TestProbeResultString(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for r := registry.ProbeResult(0); r <= registry.ProbeForbidden+1; r++ {
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("%d is %q", int(r), s)
		} else {
			seen[s] = true
		}
	}
}
