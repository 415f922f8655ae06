package health_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/health"
)

func TestHTTP(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	mux := http.NewServeMux()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	mux.HandleFunc("GET /ok", status(200))
	mux.HandleFunc("GET /empty", status(204))
	mux.HandleFunc("GET /gone", status(503))
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/target", 302) })
	mux.HandleFunc("GET /target", func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	mux.HandleFunc("GET /endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	closed := httptest.NewServer(mux)
	closed.Close()

	tests := []struct{ name, url, says string }{
		{"200", srv.URL + "/ok", ""},
		{"204", srv.URL + "/empty", ""},
		{"503", srv.URL + "/gone", "answered 503 Service Unavailable"},
		{"a redirect", srv.URL + "/moved", "redirects are not followed"},
		{"a body without end", srv.URL + "/endless", ""},
		{"no answer", srv.URL + "/hang", "deadline exceeded"},
		{"nobody there", closed.URL + "/ok?key=secret", "refused"},
		{"another scheme", "file:///etc/passwd", "not absolute"},
		{"no host", "/health", "not absolute"},
		{"no URL", "http://[::1?key=secret", "missing ']'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := 30 * time.Second
			if tt.name == "no answer" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := health.HTTP(tt.url)(ctx)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("err = %v, want %q", err, tt.says)
			}
			if tt.says == "" && ctx.Err() != nil {
				t.Error("the check read on until its time was over")
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the URL is in the error: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if followed.Load() {
			t.Error("the redirect was followed")
		}
	})
}

func TestTCP(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	check := health.TCP(l.Addr().String())
	if err := check(t.Context()); err != nil {
		t.Errorf("open port: %v", err)
	}
	l.Close()
	if err := check(t.Context()); err == nil {
		t.Error("closed port: passed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("context over: %v", err)
	}
}

type pinger struct{ err error }

func (p pinger) PingContext(ctx context.Context) error { return errors.Join(p.err, ctx.Err()) }

func TestSQL(t *testing.T) {
	t.Parallel()
	if err := health.SQL(pinger{})(t.Context()); err != nil {
		t.Errorf("up: %v", err)
	}
	if err := health.SQL(pinger{errDown})(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("down: %v", err)
	}
	if err := health.SQL(nil)(t.Context()); err == nil {
		t.Error("no database: passed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := health.SQL(pinger{})(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the context is not passed on: %v", err)
	}
}
