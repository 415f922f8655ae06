package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/idempotency"
)

// exchange sends the same request twice over a real connection, and returns what
// the client got each time: status, headers (without Date), body and trailers.
func exchange(t *testing.T, outer http.HandlerFunc, f http.HandlerFunc, opts ...idempotency.Option) (first, second string) {
	t.Helper()
	inner := guarded(t, nil, f, opts...)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer(w, r)
		inner.ServeHTTP(w, r)
	}))
	defer s.Close()
	got := []string{}
	for range 2 {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/orders", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(idempotency.Header, "key")
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		resp.Body.Close()
		resp.Header.Del("Date")
		text := fmt.Sprintln(resp.StatusCode, resp.ContentLength)
		for _, h := range []http.Header{resp.Header, resp.Trailer} {
			for _, name := range slices.Sorted(maps.Keys(h)) {
				text += fmt.Sprintln(name, h[name])
			}
		}
		if len(b) > 1000 {
			b = fmt.Append(nil, len(b), " bytes")
		}
		got = append(got, text+string(b))
	}
	return got[0], got[1]
}

func nothing(http.ResponseWriter, *http.Request) {}

// What the client gets, and gets again.
func TestReplay(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 5000)
	requests := 0
	tagged := func(w http.ResponseWriter, _ *http.Request) { // as middleware outside does
		requests++
		w.Header().Set("X-Request-Id", fmt.Sprint("r", requests))
		w.Header().Set("X-Outer", fmt.Sprint(requests))
	}
	for _, tt := range []struct {
		name          string
		outer         http.HandlerFunc
		f             http.HandlerFunc
		opts          []idempotency.Option
		first, second string
	}{
		{name: "nothing", f: nothing, first: "200 0\nContent-Length [0]\n", second: "200 0\nContent-Length [0]\nIdempotency-Replayed [true]\n"},
		{name: "headers alone", f: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-A", "1") },
			first: "200 0\nContent-Length [0]\nX-A [1]\n", second: "200 0\nContent-Length [0]\nIdempotency-Replayed [true]\nX-A [1]\n"},
		{name: "no content", f: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("Write = %v", err)
			}
		}, first: "204 0\n", second: "204 0\nIdempotency-Replayed [true]\n"},
		{name: "json", f: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
			w.WriteHeader(http.StatusCreated)
			w.WriteHeader(http.StatusOK) // too late
			w.Header().Set("X-Late", "1")
			io.WriteString(w, `{"id":7}`)
		}, first: "201 8\nContent-Length [8]\nContent-Type [application/json]\nSet-Cookie [a=1 b=2]\n" + `{"id":7}`,
			second: "201 8\nContent-Length [8]\nContent-Type [application/json]\nIdempotency-Replayed [true]\nSet-Cookie [a=1 b=2]\n" + `{"id":7}`},
		{name: "sniffed and large", f: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, large); io.WriteString(w, large) },
			first:  "200 10000\nContent-Length [10000]\nContent-Type [text/plain; charset=utf-8]\n10000 bytes",
			second: "200 10000\nContent-Length [10000]\nContent-Type [text/plain; charset=utf-8]\nIdempotency-Replayed [true]\n10000 bytes"},
		{name: "headers from outside", outer: tagged, f: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Inner", w.Header().Get("X-Outer")+w.Header().Get("X-Request-Id"))
			w.Header().Del("X-Request-Id")
			w.WriteHeader(http.StatusOK)
		}, first: "200 0\nContent-Length [0]\nX-Inner [1r1]\nX-Outer [1]\n",
			second: "200 0\nContent-Length [0]\nIdempotency-Replayed [true]\nX-Inner [1r1]\nX-Outer [2]\nX-Request-Id [r2]\n"},
		{name: "flushed", f: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "one ")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Errorf("Flush = %v", err)
			}
			io.WriteString(w, "two")
		}, first: "200 -1\nContent-Type [text/plain; charset=utf-8]\none two",
			second: "200 7\nContent-Length [7]\nContent-Type [text/plain; charset=utf-8]\nIdempotency-Replayed [true]\none two"},
		{name: "early hints", f: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusAccepted)
		}, first: "202 0\nContent-Length [0]\nLink [</a>]\n", second: "202 0\nContent-Length [0]\nIdempotency-Replayed [true]\nLink [</a>]\n"},
		{name: "trailers", f: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "1")
			w.Header().Set(http.TrailerPrefix+"X-More", "2")
		}, first: "200 -1\nContent-Type [text/plain; charset=utf-8]\nX-More [2]\nX-Sum [1]\nbody",
			second: "200 4\nContent-Length [4]\nContent-Type [text/plain; charset=utf-8]\nIdempotency-Replayed [true]\nbody"},
		{name: "just not too large", f: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "12345678") },
			opts:   []idempotency.Option{idempotency.WithMaxAnswer(8)},
			first:  "200 8\nContent-Length [8]\nContent-Type [text/plain; charset=utf-8]\n12345678",
			second: "200 8\nContent-Length [8]\nContent-Type [text/plain; charset=utf-8]\nIdempotency-Replayed [true]\n12345678"},
		{name: "too large", f: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "12345"); io.WriteString(w, "6789") },
			opts:   []idempotency.Option{idempotency.WithMaxAnswer(8)},
			first:  "200 9\nContent-Length [9]\nContent-Type [text/plain; charset=utf-8]\n123456789",
			second: "409"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.outer == nil {
				tt.outer = nothing
			}
			first, second := exchange(t, tt.outer, tt.f, tt.opts...)
			if diff := cmp.Diff(tt.first, first); diff != "" {
				t.Errorf("first (-want +got):\n%s", diff)
			}
			if tt.second == "409" && strings.HasPrefix(second, "409") && strings.Contains(second, "idempotency_answer_not_kept") {
				return
			}
			if diff := cmp.Diff(tt.second, second); diff != "" {
				t.Errorf("second (-want +got):\n%s", diff)
			}
		})
	}
}

// What went out as it was written, to a client that left in the middle, is never sent
// again as the whole, unless its length says that it is; nor is it done again.
func TestClientLeavesInTheMiddle(t *testing.T) {
	t.Parallel()
	for length, want := range map[string]string{"": "409 idempotency_answer_not_kept", "4": "200 half again", "8": "200 half"} {
		h := guarded(t, nil, func(w http.ResponseWriter, r *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			if leave, ok := r.Context().Value(leaving{}).(context.CancelFunc); ok {
				leave() // and the handler writes no more
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		send(h, request(t).WithContext(context.WithValue(ctx, leaving{}, cancel)))
		if got := said(send(h, request(t))); got != want {
			t.Errorf("Content-Length %q: %s, want %s", length, got, want)
		}
	}
	// The same where the connection breaks as the answer becomes too large.
	h := guarded(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		io.WriteString(w, "the rest")
	}, idempotency.WithMaxAnswer(8))
	h.ServeHTTP(gone{httptest.NewRecorder()}, request(t))
	if got := said(send(h, request(t))); got != "409 idempotency_answer_not_kept" {
		t.Error(got)
	}
}

type leaving struct{}

// gone is a connection on which nothing arrives.
type gone struct{ http.ResponseWriter }

func (gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// The answer is on its way only when it is kept, unless it is flushed or too large.
func TestStoredBeforeSent(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	s := &failing{fail: func(method string) error {
		if method == "Complete" && w.Body.Len() > 0 {
			t.Error("the answer went out before it was kept")
		}
		return nil
	}}
	guarded(t, s, counter()).ServeHTTP(w, request(t))
	if w.Body.String() != "1" || !slices.Contains(s.seen, "Complete") {
		t.Errorf("%q, %v", w.Body, s.seen)
	}
}

// A length that a client only claims takes no memory.
func TestClaimedLength(t *testing.T) {
	t.Parallel()
	var m0, m1 runtime.MemStats
	h := guarded(t, nil, func(http.ResponseWriter, *http.Request) { t.Error("it was carried out") }, idempotency.WithMaxRequest(1<<40))
	r := request(t, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(broken{}), 1<<30 })
	runtime.ReadMemStats(&m0)
	w := send(h, r)
	runtime.ReadMemStats(&m1)
	if grown := m1.TotalAlloc - m0.TotalAlloc; w.Code != http.StatusBadRequest || grown > 1<<29 {
		t.Errorf("%d after taking %d bytes", w.Code, grown)
	}
}

// The handler's ResponseWriter: deadlines work, hijacking does not, and it panics
// like net/http's.
func TestResponseWriter(t *testing.T) {
	t.Parallel()
	_, second := exchange(t, nothing, func(w http.ResponseWriter, _ *http.Request) {
		control := http.NewResponseController(w)
		if _, _, err := control.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack = %v", err)
		}
		if err := control.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Errorf("SetWriteDeadline = %v", err)
		}
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
			w.WriteHeader(http.StatusAccepted)
		}()
		w.WriteHeader(99)
	})
	if !strings.HasPrefix(second, "202") {
		t.Error(second)
	}
}

// A mux inside tells its route to those outside, and parsed forms are theirs to
// clean up.
func TestHandsBack(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Error(err)
		}
	})
	r := request(t, header("Content-Type", "multipart/form-data; boundary=b"), body("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n"))
	send(guarded(t, nil, mux.ServeHTTP), r)
	if r.Pattern != "POST /orders" || r.MultipartForm == nil {
		t.Errorf("%q, %v", r.Pattern, r.MultipartForm)
	}
}

// Every handler that returns a kept answer gives the same bytes again.
func FuzzReplay(f *testing.F) {
	f.Add(200, "X-A", "1", []byte("body"), 2)
	f.Add(404, "Content-Type", "text/html; charset=latin1", []byte("caf\xe9"), 0)
	f.Fuzz(func(t *testing.T, status int, name, value string, body []byte, flushAt int) {
		if status < 200 || status > 499 || status == 204 || status == 304 {
			return
		}
		h := guarded(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("X-"+name, value)
			w.WriteHeader(status)
			for i, b := range body {
				if i == flushAt {
					w.(http.Flusher).Flush()
				}
				w.Write([]byte{b})
			}
		}, idempotency.WithKeep(func(int) bool { return true }))
		first, second := send(h, request(t)), send(h, request(t))
		if first.Code != status || second.Code != status || !bytes.Equal(first.Body.Bytes(), body) || !bytes.Equal(second.Body.Bytes(), body) {
			t.Errorf("%d %q and %d %q", first.Code, first.Body, second.Code, second.Body)
		}
		if got := second.Header()["X-"+name]; len(got) > 0 && got[0] != value {
			t.Errorf("%q again is %q", value, got)
		}
	})
}
