package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/idempotencytest"
	"github.com/keelson-go/keelson/problem"
)

// guarded puts the middleware around f, with a store of its own unless one is given.
func guarded(t testing.TB, s idempotency.Store, f http.HandlerFunc, opts ...idempotency.Option) http.Handler {
	t.Helper()
	if s == nil {
		s = new(idempotency.Memory)
	}
	once, err := idempotency.Middleware(s, append([]idempotency.Option{idempotency.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return once(f)
}

// request is a POST with a key, changed by edits.
func request(t testing.TB, edits ...func(*http.Request)) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders?dry=0", strings.NewReader(`{"item":7}`))
	r.Header.Set(idempotency.Header, "key")
	for _, edit := range edits {
		edit(r)
	}
	return r
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func body(s string) func(*http.Request) {
	return func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s)) }
}

func send(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// said is a response in short: status, code or body, and whether it is a replay.
func said(w *httptest.ResponseRecorder) string {
	text := w.Body.String()
	if p, err := problem.Decode(w.Result()); err == nil {
		text = p.Code
	}
	if w.Header().Get(idempotency.ReplayedHeader) == "true" {
		text += " again"
	}
	return strings.TrimSpace(fmt.Sprint(w.Code, " ", text))
}

// counter answers 201 with how often it was called.
func counter() http.HandlerFunc {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		n++
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(err)
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, n)
	}
}

// What counts as the same request, and who may see its answer.
func TestSameRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(*http.Request)
		want string
	}{
		{"the same", func(*http.Request) {}, "201 1 again"},
		{"the key in quotes", header("Idempotency-Key", `"key"`), "201 1 again"},
		{"other headers", header("User-Agent", "another"), "201 1 again"},
		{"another key", header("Idempotency-Key", "key2"), "201 2"},
		{"no key", func(r *http.Request) { r.Header.Del("Idempotency-Key") }, "201 2"},
		{"a safe method", func(r *http.Request) { r.Method = "GET" }, "201 2"},
		{"another method", func(r *http.Request) { r.Method = "PATCH" }, "422 idempotency_key_reused"},
		{"an idempotent method", func(r *http.Request) { r.Method = "PUT" }, "422 idempotency_key_reused"},
		{"another path", func(r *http.Request) { r.URL.Path = "/payments" }, "422 idempotency_key_reused"},
		{"a path written in another way", func(r *http.Request) { r.URL.RawPath = "/%6frders" }, "422 idempotency_key_reused"},
		{"another query", func(r *http.Request) { r.URL.RawQuery = "dry=1" }, "422 idempotency_key_reused"},
		{"another body", body(`{"item":8}`), "422 idempotency_key_reused"},
		{"no body", body(""), "422 idempotency_key_reused"},
		{"another caller", header("X-Auth-Subject", "bob"), "201 2"},
		{"another route", func(r *http.Request) { r.Pattern = "POST /other" }, "201 2"},
		{"an empty key", header("Idempotency-Key", ""), "400 idempotency_key_invalid"},
		{"a key too long", header("Idempotency-Key", strings.Repeat("k", 256)), "400 idempotency_key_invalid"},
		{"a key with a space", header("Idempotency-Key", "a b"), "400 idempotency_key_invalid"},
		{"two keys", func(r *http.Request) { r.Header.Add("Idempotency-Key", "key") }, "400 idempotency_key_invalid"},
		{"too large", body(strings.Repeat("x", 1<<20+1)), "413 payload_too_large"},
		{"too large, of unknown length", func(r *http.Request) {
			body(strings.Repeat("x", 1<<20+1))(r)
			r.ContentLength = -1
		}, "413 payload_too_large"},
		{"cut", func(r *http.Request) { r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), broken{})) }, "400 bad_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := guarded(t, nil, counter())
			if got := said(send(h, request(t, header("X-Auth-Subject", "ann")))); got != "201 1" {
				t.Fatal(got)
			}
			if got := said(send(h, request(t, header("X-Auth-Subject", "ann"), tt.edit))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRequired(t *testing.T) {
	t.Parallel()
	h := guarded(t, nil, counter(), idempotency.WithRequired())
	none := func(method string) *http.Request {
		return request(t, func(r *http.Request) { r.Method = method; r.Header.Del(idempotency.Header) })
	}
	for _, method := range []string{"POST", "PATCH"} {
		if got := said(send(h, none(method))); got != "400 idempotency_key_required" {
			t.Errorf("%s: %s", method, got)
		}
	}
	for i, method := range []string{"GET", "PUT", "DELETE"} {
		if got, want := said(send(h, none(method))), fmt.Sprint("201 ", i+1); got != want {
			t.Errorf("%s: %s", method, got)
		}
	}
}

func TestScopeAndRoute(t *testing.T) {
	t.Parallel()
	h := guarded(t, nil, counter(), idempotency.WithScope(func(r *http.Request) string { return r.Header.Get("X-Tenant") }),
		idempotency.WithRoute(func(r *http.Request) string { return r.URL.Path }))
	for i, edit := range []func(*http.Request){
		header("X-Tenant", "a"), header("X-Tenant", "b"), func(r *http.Request) { r.URL.Path = "/a" },
	} {
		if got, want := said(send(h, request(t, edit))), fmt.Sprint("201 ", i+1); got != want {
			t.Errorf("%d: %s", i, got)
		}
		if got, want := said(send(h, request(t, edit, header("X-Auth-Subject", "x")))), fmt.Sprint("201 ", i+1, " again"); got != want {
			t.Errorf("%d again: %s", i, got)
		}
	}
}

// Which answers are kept: the handler is called again for the others.
func TestKept(t *testing.T) {
	t.Parallel()
	for status, kept := range map[int]bool{
		200: true, 201: true, 202: true, 204: true, 303: true, 304: true, 399: true,
		400: false, 404: false, 409: false, 422: false, 401: false, 403: false, 408: false, 425: false, 429: false, 499: false, 500: false, 503: false, 504: false,
	} {
		n := 0
		h := guarded(t, nil, func(w http.ResponseWriter, _ *http.Request) { n++; w.WriteHeader(status) })
		for range 2 {
			if w := send(h, request(t)); w.Code != status {
				t.Errorf("%d was answered as %d", status, w.Code)
			}
		}
		if n != map[bool]int{true: 1, false: 2}[kept] {
			t.Errorf("%d: carried out %d times", status, n)
		}
	}
	n := 0
	h := guarded(t, nil, func(w http.ResponseWriter, _ *http.Request) { n++; w.WriteHeader(http.StatusTeapot) },
		idempotency.WithKeep(func(status int) bool { return status != http.StatusTeapot }))
	send(h, request(t))
	if send(h, request(t)); n != 2 {
		t.Errorf("WithKeep: %d", n)
	}
}

// A handler that ends in another way has its claim given back at once.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T) func(*http.Request) {
		return func(r *http.Request) {
			ctx, cancel := context.WithCancel(t.Context())
			*r = *r.WithContext(ctx)
			time.AfterFunc(0, cancel)
		}
	}
	for name, tt := range map[string]struct {
		first http.HandlerFunc
		edit  func(*testing.T) func(*http.Request)
		want  any // that it panics with
	}{
		"panic":       {first: func(http.ResponseWriter, *http.Request) { panic("oops") }, want: "oops"},
		"late panic":  {first: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x"); panic("oops") }, want: "oops"},
		"abort":       {first: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: http.ErrAbortHandler},
		"flushed":     {first: func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); panic("oops") }, want: "oops"},
		"client gone": {first: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, edit: gone},
		"short": {first: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7")
			fmt.Fprint(w, "half")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			h := guarded(t, nil, func(w http.ResponseWriter, r *http.Request) {
				if calls++; calls == 1 {
					tt.first(w, r)
					return
				}
				w.WriteHeader(http.StatusAccepted)
			})
			var edits []func(*http.Request)
			if tt.edit != nil {
				edits = append(edits, tt.edit(t))
			}
			func() {
				defer func() {
					if got := recover(); got != tt.want {
						t.Errorf("panic %v, want %v", got, tt.want)
					}
				}()
				send(h, request(t, edits...))
			}()
			if got := said(send(h, request(t))); got != "202" {
				t.Error(got)
			}
		})
	}
}

// A client that leaves does not undo what a handler has done all the same.
func TestClientGoneButDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	h := guarded(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "done")
	})
	send(h, request(t).WithContext(ctx))
	if got := said(send(h, request(t))); got != "201 done again" {
		t.Error(got)
	}
}

// A claim is held for as long as the handler goes on, whether anybody is waiting for
// its answer or not.
func TestClientGoneStillHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := guarded(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			cancel()
			time.Sleep(2 * time.Minute) // several leases
			w.WriteHeader(http.StatusCreated)
		})
		var wg sync.WaitGroup
		wg.Go(func() { send(h, request(t).WithContext(ctx)) })
		time.Sleep(time.Minute)
		if got := said(send(h, request(t))); got != "409 idempotency_in_progress" {
			t.Error(got)
		}
		wg.Wait()
		if got := said(send(h, request(t))); got != "201  again" {
			t.Error(got)
		}
	})
}

// failing is a store of which calls fail while the function says so.
type failing struct {
	idempotency.Memory
	mu   sync.Mutex
	fail func(method string) error
	seen []string
}

func (f *failing) call(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, method)
	return f.fail(method)
}

func (f *failing) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Outcome, error) {
	if err := f.call("Claim"); err != nil {
		return idempotency.Outcome{}, err
	}
	return f.Memory.Claim(ctx, c)
}

func (f *failing) Renew(ctx context.Context, c idempotency.Claim) error {
	return errors.Join(f.call("Renew"), f.Memory.Renew(ctx, c))
}

func (f *failing) Complete(ctx context.Context, c idempotency.Claim, a idempotency.Answer) error {
	if err := f.call("Complete"); err != nil {
		return err
	}
	return f.Memory.Complete(ctx, c, a)
}

func (f *failing) Release(ctx context.Context, c idempotency.Claim) error {
	return errors.Join(f.call("Release"), f.Memory.Release(ctx, c))
}

// A store that can't be asked: nothing is carried out.
func TestClaimFails(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := &failing{fail: func(string) error { return errors.New("down") }}
	h := guarded(t, s, func(http.ResponseWriter, *http.Request) { t.Error("it was carried out") },
		idempotency.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	w := send(h, request(t, header(idempotency.Header, "hunter2")))
	if got := said(w); got != "503 unavailable" || !strings.Contains(w.Body.String(), `"retryable":true`) {
		t.Error(w.Body)
	}
	if diff := cmp.Diff([]string{"Claim", "Release"}, s.seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text := log.String(); !strings.Contains(text, "down") || strings.Contains(text, "hunter2") {
		t.Error(text)
	}
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if got := said(send(h, request(t).WithContext(over))); got != "504 deadline_exceeded" {
		t.Error(got)
	}
}

// A store that is away as the handler ends is waited for; the client gets its answer
// whatever comes of it.
func TestCompleteFails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		away time.Duration
		err  error
		want string // when the request is sent again
	}{
		"for a moment": {time.Second, idempotency.ErrUnavailable, "201 1 again"},
		"for long":     {time.Hour, idempotency.ErrUnavailable, "409 idempotency_in_progress"},
		"lost":         {time.Hour, idempotency.ErrLost, "409 idempotency_in_progress"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				h := guarded(t, &failing{fail: func(method string) error {
					if method == "Complete" && time.Since(began) < tt.away {
						return tt.err
					}
					return nil
				}}, counter())
				if got := said(send(h, request(t))); got != "201 1" {
					t.Error(got)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the client waited for %v", took)
				}
				if got := said(send(h, request(t))); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// While the first is on: 409, or waiting for its answer, with one execution.
func TestInProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		count := counter()
		slow := func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Minute) // several leases
			count(w, r)
		}
		store := new(idempotency.Memory)
		first, second := guarded(t, store, slow), guarded(t, store, slow, idempotency.WithWait(3*time.Minute))
		done := make(chan string)
		go func() { done <- said(send(first, request(t))) }()
		time.Sleep(time.Minute)
		w := send(first, request(t))
		if got := said(w); got != "409 idempotency_in_progress" || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s %v", got, w.Header())
		}
		if got := said(send(first, request(t, body("{}")))); got != "422 idempotency_key_reused" {
			t.Error(got)
		}
		if got := said(send(second, request(t, body("{}")))); got != "422 idempotency_key_reused" {
			t.Error(got)
		}
		if got := said(send(second, request(t))); got != "201 1 again" {
			t.Error(got)
		}
		if got := <-done; got != "201 1" {
			t.Error(got)
		}
		short := guarded(t, store, slow, idempotency.WithWait(time.Second))
		go func() { done <- said(send(first, request(t, header(idempotency.Header, "other")))) }()
		time.Sleep(time.Minute)
		started := time.Now()
		if got := said(send(short, request(t, header(idempotency.Header, "other")))); got != "409 idempotency_in_progress" || time.Since(started) != time.Second {
			t.Errorf("%s after %v", got, time.Since(started))
		}
		<-done
	})
}

// Renewals that fail: the handler goes on while the lease lasts, and is told when
// it may be over.
func TestRenewFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var away time.Duration
		s := &failing{fail: func(method string) error {
			if d := time.Since(began); method == "Renew" && d > 15*time.Second && d < 15*time.Second+away {
				return idempotency.ErrUnavailable
			}
			return nil
		}}
		var cause error
		h := guarded(t, s, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(2 * time.Minute):
				w.WriteHeader(http.StatusCreated)
			case <-r.Context().Done():
				cause = context.Cause(r.Context())
			}
		})
		away = 10 * time.Second
		if got := said(send(h, request(t))); got != "201" {
			t.Error(got)
		}
		began, away = time.Now(), time.Hour
		send(h, request(t, header(idempotency.Header, "other")))
		if took := time.Since(began); !errors.Is(cause, idempotency.ErrLost) || took < 30*time.Second || took > 41*time.Second {
			t.Errorf("after %v: %v", took, cause)
		}
	})
}

func TestClaimFrom(t *testing.T) {
	t.Parallel()
	var got idempotency.Claim
	h := guarded(t, nil, func(_ http.ResponseWriter, r *http.Request) { got, _ = idempotency.ClaimFrom(r.Context()) },
		idempotency.WithLease(2*time.Second), idempotency.WithTTL(time.Minute))
	send(h, request(t))
	if len(got.Key) != 64 || len(got.Owner) < 20 || got.Lease != 2*time.Second || got.TTL != time.Minute {
		t.Errorf("%+v", got)
	}
	if _, ok := idempotency.ClaimFrom(t.Context()); ok {
		t.Error("a claim out of nothing")
	}
}

func TestMiddlewareRefuses(t *testing.T) {
	t.Parallel()
	for want, opt := range map[string]idempotency.Option{
		"WithTTL": idempotency.WithTTL(time.Millisecond), "WithLease": idempotency.WithLease(0), "WithWait": idempotency.WithWait(-1),
		"WithMaxAnswer": idempotency.WithMaxAnswer(-1), "WithMaxRequest": idempotency.WithMaxRequest(-1), "WithScope": idempotency.WithScope(nil),
		"WithRoute": idempotency.WithRoute(nil), "WithKeep": idempotency.WithKeep(nil), "WithLogger": idempotency.WithLogger(nil),
	} {
		if _, err := idempotency.Middleware(new(idempotency.Memory), opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := idempotency.Middleware(nil); err == nil {
		t.Error("no store was taken")
	}
}

func BenchmarkCycle(b *testing.B) { idempotencytest.Benchmark(b, new(idempotency.Memory)) }
