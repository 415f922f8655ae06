package idempotencytest

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/idempotency"
)

// around puts the middleware around f.
func around(t *testing.T, s idempotency.Store, f http.HandlerFunc, opts ...idempotency.Option) http.Handler {
	t.Helper()
	opts = append([]idempotency.Option{idempotency.WithLogger(slog.New(slog.DiscardHandler))}, opts...)
	once, err := idempotency.Middleware(s, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return once(f)
}

func post(t *testing.T, h http.Handler, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader(body))
	r.Header.Set(idempotency.Header, key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Requests with the same key at the same time, to several instances: each key is
// carried out once, and everybody gets that answer, at once or in a while.
func testOneExecution(t *testing.T, open Open) {
	const keys, clients = 8, 5
	var mu sync.Mutex
	executions := map[string]int{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(idempotency.Header)
		mu.Lock()
		executions[key]++
		n := executions[key]
		mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %d", key, n)
	}
	instances := []http.Handler{
		around(t, open(t), handler), around(t, open(t), handler, idempotency.WithWait(deadline)), around(t, open(t), handler),
	}
	var fresh atomic.Int64
	race(keys*clients, func(i int) {
		key := fmt.Sprintf("k%d", i%keys)
		late := time.After(deadline)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			w := post(t, instances[i%len(instances)], key, "{}")
			if w.Code != http.StatusConflict {
				if w.Code != http.StatusCreated || w.Body.String() != key+" 1" {
					t.Errorf("%s: %d %q", key, w.Code, w.Body)
				}
				if w.Header().Get(idempotency.ReplayedHeader) == "" {
					fresh.Add(1)
				}
				return
			}
			select {
			case <-tick.C:
			case <-late:
				t.Errorf("%s: %d %s", key, w.Code, w.Body)
				return
			}
		}
	})
	for key, n := range executions {
		if n != 1 {
			t.Errorf("%s was carried out %d times", key, n)
		}
	}
	if len(executions) != keys || fresh.Load() != keys {
		t.Errorf("%d keys, %d answers of which %d first ones", len(executions), keys*clients, fresh.Load())
	}
}

// A handler that takes longer than the lease keeps its claim; a store that lets
// nothing through loses it, and the handler is told.
func testStalled(t *testing.T, open Open) {
	store := &stalling{Store: open(t)}
	began, proceed := make(chan struct{}, 1), make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		select {
		case <-proceed:
			w.WriteHeader(http.StatusCreated)
		case <-r.Context().Done():
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	h, quick := around(t, store, handler, idempotency.WithLease(longLease)), around(t, store, handler, idempotency.WithLease(lease))
	other := around(t, open(t), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })

	long := make(chan int)
	go func() { long <- post(t, h, "long", "{}").Code }()
	<-began
	for range 15 { // 1.5 leases
		<-time.After(longLease / 10)
		if w := post(t, other, "long", "{}"); w.Code != http.StatusConflict {
			t.Fatalf("while the first is on: %d %s", w.Code, w.Body)
		}
	}
	proceed <- struct{}{}
	if code := <-long; code != http.StatusCreated {
		t.Errorf("a long one: %d", code)
	}
	if w := post(t, other, "long", "{}"); w.Code != http.StatusCreated {
		t.Errorf("the long one's answer: %d %s", w.Code, w.Body)
	}

	store.stalled.Store(true)
	go func() { long <- post(t, quick, "stalled", "{}").Code }()
	<-began
	if code := <-long; code != http.StatusServiceUnavailable {
		t.Errorf("a lost one: %d", code)
	}
	late := time.After(deadline)
	for w := post(t, other, "stalled", "{}"); w.Code != http.StatusAccepted; w = post(t, other, "stalled", "{}") {
		select {
		case <-time.After(lease / 10):
		case <-late:
			t.Fatalf("after the lease: %d %s", w.Code, w.Body)
		}
	}
}
