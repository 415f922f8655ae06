package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/retry"
)

// hung accepts requests and answers none.
func hung(t *testing.T, entered chan<- struct{}) string {
	t.Helper()
	return serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	})
}

func failing(t *testing.T, status int, body string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// settled waits until no call is in flight at any instance.
func settled(t *testing.T, eps []*balance.Endpoint) {
	t.Helper()
	eventually(t, "all calls to end", func() bool {
		for _, ep := range eps {
			if ep.InFlight() != 0 {
				return false
			}
		}
		return true
	})
}

// Hedges rescue the calls that come to a hung instance, and the hung instance hears
// that it has lost.
func TestHedgeOverHTTP(t *testing.T) {
	t.Parallel()
	var hang atomic.Bool
	entered, left := make(chan struct{}, 8), make(chan struct{}, 8)
	f, eps := users(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			entered <- struct{}{}
			<-r.Context().Done()
			left <- struct{}{}
		}
	}), named(t, "1"))
	tr := newTransport(t, f)
	for range 60 {
		if _, err := do(t, tr, request(t, "GET", "http://users/", nil)); err != nil {
			t.Fatal(err)
		}
	}
	hang.Store(true)
	body, err := do(t, tr, request(t, "GET", "http://users/", nil))
	if err != nil || body != "1" {
		t.Errorf("%q, %v", body, err)
	}
	<-entered
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the hung instance still works on a call that was lost")
	}
	settled(t, eps)
}

// Both tries answer at about the same time, again and again: each caller gets one
// answer whole.
func TestDuplicateAnswers(t *testing.T) {
	t.Parallel()
	const size = 200 << 10 // more than any buffer on the way holds
	var warm atomic.Bool
	answer := func(name string) string {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if warm.Load() {
				<-time.After(2 * time.Millisecond) // about when the hedge comes
			}
			_, _ = io.WriteString(w, strings.Repeat(name, size))
		})
	}
	f, eps := users(answer("0"), answer("1"), answer("2"))
	tr := plainTransport(t, f, client.WithBudget(retry.BudgetOptions{Ratio: 1, Reserve: 1000}), client.WithoutBreaker(), client.WithoutOutlier())
	for range 60 {
		_, _ = do(t, tr, request(t, "GET", "http://users/", nil))
	}
	warm.Store(true)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				resp, err := tr.RoundTrip(request(t, "GET", "http://users/", nil))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				if err != nil || len(b) != size || strings.Trim(string(b), string(b[0])) != "" {
					t.Errorf("%d bytes of %q, %v", len(b), b[:1], err)
				}
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	for _, got := range tr.Services() {
		if got.Hedges == 0 {
			t.Error("no hedge: the test tests nothing")
		}
	}
	settled(t, eps)
}

// An instance whose answers break off is taken out of rotation.
func TestHalfAnswersEject(t *testing.T) {
	t.Parallel()
	f, _ := users(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), named(t, "whole"))
	tr := newTransport(t, f)
	read := func() (string, error) {
		resp, err := tr.RoundTrip(request(t, "GET", "http://users/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	for i := range 5 {
		if body, err := read(); body != "half" || err == nil {
			t.Fatalf("%d: %q, %v: nothing may be repeated once a byte has come", i, body, err)
		}
	}
	if body, err := read(); body != "whole" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// So is one whose bodies do not come in the caller's time.
func TestSlowBodiesEject(t *testing.T) {
	t.Parallel()
	f, _ := users(serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}), named(t, "whole"))
	tr := newTransport(t, f)
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		resp, err := tr.RoundTrip(request(t, "GET", "http://users/", nil).WithContext(ctx))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cancel()
	}
	if body, err := do(t, tr, request(t, "GET", "http://users/", nil)); body != "whole" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// An event stream that its reader leaves says nothing bad, however it leaves.
func TestStreamsAreLeft(t *testing.T) {
	t.Parallel()
	f, eps := users(serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	tr := newTransport(t, f, client.WithoutOutlier())
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		resp, err := tr.RoundTrip(request(t, "GET", "http://users/", nil).WithContext(ctx))
		if err == nil {
			_, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		cancel()
	}
	settled(t, eps)
	if l := eps[0].Latency(); l >= time.Second {
		t.Errorf("latency %v: leaving a stream counts as a failure", l)
	}
}

// The instance answers 503 before it has read the body: the upload goes elsewhere, whole.
func TestEarlyAnswerToAnUpload(t *testing.T) {
	t.Parallel()
	f, eps := users(failing(t, 503, "no"), serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", int(n>>20)))
	}))
	tr := newTransport(t, f)
	for range 5 {
		req := request(t, "POST", "http://users/", bytes.NewReader(make([]byte, 8<<20)))
		req.Header.Set("Idempotency-Key", "k")
		got, err := do(t, tr, req)
		if err != nil || got != "xxxxxxxx" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	settled(t, eps)
}

// Small failures leave their connections to be used again; large ones are not read.
func TestDiscardedAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body string
		conn int32
	}{"small": {"sorry", 1}, "large": {strings.Repeat("sorry", 100_000), 4}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = io.WriteString(w, tt.body)
			}))
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					conns.Add(1)
				}
			}
			s.Start()
			t.Cleanup(s.Close)
			f, _ := users(s.URL, named(t, "1"))
			tr := newTransport(t, f, client.WithoutHedging(), client.WithoutOutlier())
			for range 4 {
				if body, err := do(t, tr, request(t, "GET", "http://users/", nil)); err != nil || body != "1" {
					t.Fatalf("%q, %v", body, err)
				}
			}
			if got := conns.Load(); got != tt.conn {
				t.Errorf("%d connections, want %d", got, tt.conn)
			}
		})
	}
}

// Many callers, some of whom leave, over instances with all faults at once: nothing may
// be left over.
func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	var cuts atomic.Int32
	f, eps := users(named(t, "0"), named(t, "1"), failing(t, 500, "no"), refusing(t), dying(t, &cuts), hung(t, nil))
	tr := plainTransport(t, f, client.WithBudget(retry.BudgetOptions{Ratio: 1, Reserve: 100}))
	var answers, leavers atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 40 {
				patience := time.Second
				if (i+n)%8 == 0 {
					patience = 5 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				resp, err := tr.RoundTrip(request(t, []string{"GET", "PUT"}[n%2], "http://users/", nil).WithContext(ctx))
				switch {
				case err == nil:
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					answers.Add(1)
				case kindOf(err) == 0:
					t.Errorf("no *client.Error: %v", err)
				case patience < 100*time.Millisecond:
					leavers.Add(1)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	settled(t, eps)
	if n := answers.Load(); n < 400 {
		t.Errorf("%d answers of 640", n)
	}
	for _, got := range tr.Services() {
		if got.InFlight != 0 {
			t.Errorf("%d calls in flight", got.InFlight)
		}
	}
}

// Over HTTP/2 a lost try ends its stream, not the connection.
func TestHedgeOverHTTP2(t *testing.T) {
	t.Parallel()
	var hang atomic.Bool
	var conns, resets atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			<-r.Context().Done()
			resets.Add(1)
			return
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") }))
	other.TLS = s.TLS.Clone()
	other.EnableHTTP2 = true
	other.StartTLS()
	t.Cleanup(other.Close)
	f, eps := users(s.URL, other.URL)
	tr := newTransport(t, f, client.WithBase(s.Client().Transport.(*http.Transport).Clone()), client.WithoutOutlier())
	for range 60 { // not hedged, however slow this machine is
		if got, err := do(t, tr, request(t, "POST", "http://users/", nil)); err != nil || got != "HTTP/2.0" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	hang.Store(true)
	for range 3 {
		if got, err := do(t, tr, request(t, "GET", "http://users/", nil)); err != nil || got != "other" {
			t.Errorf("%q, %v", got, err)
		}
	}
	eventually(t, "the streams to be reset", func() bool { return resets.Load() == 3 })
	settled(t, eps)
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
