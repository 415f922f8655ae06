package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/middleware"
)

// told is a request whose caller waits one second.
func told() *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Request-Timeout", "1000")
	return r
}

type wrapped struct{ context.Context }

// The caller's time is for the answer to begin; what has begun may stream on.
func TestTimeoutIsForTheBeginning(t *testing.T) {
	t.Parallel()
	const free = -1
	for _, c := range []struct {
		name  string
		limit time.Duration
		begin func(w http.ResponseWriter)
		want  time.Duration // until the context ends
	}{
		{"nothing begun", 0, func(http.ResponseWriter) {}, time.Second},
		{"a hint is no answer", 0, func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints) }, time.Second},
		{"a header", 0, func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, free},
		{"a body", 0, func(w http.ResponseWriter) { _, _ = io.WriteString(w, "x") }, free},
		{"flushed", 0, func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }, free},
		{"hijacked", 0, func(w http.ResponseWriter) { _, _, _ = http.NewResponseController(w).Hijack() }, free},
		{"begun, with a limit", time.Minute, func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, time.Minute},
		{"not begun, with a limit", time.Minute, func(http.ResponseWriter) {}, time.Second},
		{"begun, the limit is less", time.Millisecond, func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				h := middleware.Chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					ctx := r.Context()
					child, cancel := context.WithCancel(ctx)
					defer cancel()
					far, cancel := context.WithCancel(wrapped{ctx})
					defer cancel()
					c.begin(w)
					at, bounded := ctx.Deadline()
					if bounded != (c.want != free) || bounded && at.Sub(start) != c.want {
						t.Errorf("the deadline is in %v, %t", at.Sub(start), bounded)
					}
					if c.want == free {
						time.Sleep(time.Hour)
						if ctx.Err() != nil || child.Err() != nil || far.Err() != nil {
							t.Errorf("after an hour: %v, %v, %v", ctx.Err(), child.Err(), far.Err())
						}
						return
					}
					<-far.Done()
					<-child.Done()
					<-ctx.Done()
					if took := time.Since(start); took != c.want {
						t.Errorf("it ended after %v", took)
					}
					for _, err := range []error{ctx.Err(), child.Err(), far.Err(), deadline.Check(child)} {
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("it ended with %v", err)
						}
					}
				}), middleware.Timeout(c.limit), middleware.Timeout(0))
				h.ServeHTTP(&hijackable{ResponseRecorder: httptest.NewRecorder()}, told())
			})
		})
	}
}

type hijackable struct{ *httptest.ResponseRecorder }

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

// A caller that leaves ends the context, before its time and after the beginning.
func TestTimeoutCallerLeaves(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				caller, leave := context.WithCancel(t.Context())
				h := middleware.Timeout(0)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if begun {
						w.WriteHeader(http.StatusOK)
					}
					child, cancel := context.WithTimeout(r.Context(), time.Hour)
					defer cancel()
					leave()
					<-child.Done()
					for _, err := range []error{r.Context().Err(), child.Err(), context.Cause(child), deadline.Check(child)} {
						if !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("it ended with %v", err)
						}
					}
				}))
				h.ServeHTTP(httptest.NewRecorder(), told().WithContext(caller))
			})
		})
	}
}

// linked is a child that is not cancelled itself.
func linked(ctx context.Context) context.Context {
	child, cancel := context.WithCancel(ctx)
	context.AfterFunc(child, cancel)
	return child
}

// When the handler has returned all ends at once, so that what it started can end.
func TestTimeoutToldCancelsAtTheEnd(t *testing.T) {
	t.Parallel()
	var ctx, child context.Context
	var stopped func() bool
	ran := make(chan error, 1)
	h := middleware.Timeout(0)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx = r.Context()
		child = linked(ctx)
		stopped = context.AfterFunc(ctx, func() { ran <- ctx.Err() })
	}))
	h.ServeHTTP(httptest.NewRecorder(), told())
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("the context's error is %v", ctx.Err())
	}
	<-child.Done()
	if err := <-ran; !errors.Is(err, context.Canceled) || stopped() {
		t.Errorf("AfterFunc found %v", err)
	}
	if late := linked(ctx); !errors.Is(late.Err(), context.Canceled) {
		t.Errorf("a child made later: %v", late.Err())
	}
}

func BenchmarkTimeoutTold(b *testing.B) {
	h := middleware.Timeout(0)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w := httptest.NewRecorder()
	for name, r := range map[string]*http.Request{"told": told(), "not told": httptest.NewRequest("GET", "/", nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
	b.Run("limit", func(b *testing.B) {
		h := middleware.Timeout(time.Second)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r := httptest.NewRequest("GET", "/", nil)
		b.ReportAllocs()
		for b.Loop() {
			h.ServeHTTP(w, r)
		}
	})
}
