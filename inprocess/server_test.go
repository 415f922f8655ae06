package inprocess_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/inprocess"
)

// A handler that panics breaks its own call off, and no other.
func TestPanics(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("oh no")
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/exit":
			runtime.Goexit()
		case "/late":
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic("oh dear")
		}
	}, inprocess.WithLogger(textLogger(&log)))
	for _, path := range []string{"/panic", "/abort", "/exit"} {
		if _, err := s.RoundTrip(request(t, "GET", path, nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", path, err)
		}
	}
	resp, err := s.RoundTrip(request(t, "GET", "/late", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("/late: %q, %v", b, err)
	}
	do(t, s, request(t, "GET", "/", nil))
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"oh no": 1, "oh dear": 1, "handler panicked": 2, "server_test.go": 2, "abort": 0} {
		if n := strings.Count(log.String(), text); n < want || want == 0 && n > 0 {
			t.Errorf("%q is in the log %d times, want %d:\n%s", text, n, want, &log)
		}
	}
}

// Shutdown refuses new calls, waits for those under way, and what they have answered
// stays readable.
func TestShutdown(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
	})
	got := make(chan *http.Response, 1)
	go func() {
		resp, err := s.RoundTrip(request(t, "GET", "/", nil))
		if err != nil {
			t.Error(err)
		}
		got <- resp
	}()
	<-entered
	impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Shutdown(impatient); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in progress: 1") {
		t.Errorf("Shutdown with a call under way: %v", err)
	}
	if _, err := s.RoundTrip(request(t, "GET", "/", nil)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a call after Shutdown: %v", err)
	}
	close(release)
	for range 2 {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	resp := <-got
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); len(b) != 10_000 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// Close cuts calls off, on both sides, whatever they wait for.
func TestClose(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]http.HandlerFunc{
		"before its answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"reading":           func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"writing": func(w http.ResponseWriter, _ *http.Request) {
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 10_000))
			}
		},
		"in a stream": func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered := make(chan struct{})
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				close(entered)
				f(w, r)
			})
			in, out := io.Pipe()
			defer out.Close()
			failed := make(chan error, 1)
			go func() {
				resp, err := s.RoundTrip(request(t, "POST", "/", in))
				if err == nil {
					<-entered
					defer resp.Body.Close()
					for err == nil { // slowly, so that it goes on
						_, err = resp.Body.Read(make([]byte, 1))
						runtime.Gosched()
					}
				}
				failed <- err
			}()
			<-entered
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := wait(t, failed, "the caller is told"); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the caller got %v", err)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("waiting for the handler: %v", err)
			}
			if _, err := out.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the caller's body: %v", err)
			}
		})
	}
}

// Calls that end in every way, at once and while the server stops, leave nothing
// behind: each one returns, and every body is closed.
func TestManyCalls(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read":
			_, _ = io.Copy(io.Discard, r.Body)
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/long":
			for range 30 {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		case "/wait":
			<-r.Context().Done()
		case "/panic":
			panic(http.ErrAbortHandler)
		}
	})
	paths := []string{"/", "/read", "/echo", "/long", "/wait", "/panic"}
	var wg sync.WaitGroup
	var served atomic.Int64
	bodies := make(chan *closing, 10_000)
	for n := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(n)))
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(2000))*time.Microsecond)
				path := paths[random.IntN(len(paths))]
				body := &closing{Reader: strings.NewReader(strings.Repeat("x", random.IntN(100_000)))}
				req := request(t, "POST", path, body).WithContext(ctx)
				if random.IntN(2) == 0 {
					req.GetBody = func() (io.ReadCloser, error) { return body, nil }
				}
				resp, err := s.RoundTrip(req)
				bodies <- body
				if err == nil {
					served.Add(1)
					_, _ = io.CopyN(io.Discard, resp.Body, int64(random.IntN(100_000)))
					resp.Body.Close()
				}
				cancel()
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
			}
		})
	}
	eventually(t, "1,000 calls were answered", func() bool { return served.Load() > 1000 })
	if err := s.Shutdown(t.Context()); err != nil { // /wait ends with its caller's patience
		t.Error(err)
	}
	wg.Wait()
	close(bodies)
	for body := range bodies {
		eventually(t, "each body is closed", func() bool { return body.closed.Load() > 0 })
	}
}
