package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/telemetry"
)

// silent is a ResponseWriter that costs nothing.
type silent struct{ header http.Header }

func (s silent) Header() http.Header         { return s.header }
func (s silent) Write(b []byte) (int, error) { return len(b), nil }
func (s silent) WriteHeader(int)             {}

func measured(tb testing.TB) (http.Handler, http.ResponseWriter, *http.Request) {
	tel, err := telemetry.New(telemetry.Config{Service: "bench"})
	if err != nil {
		tb.Fatal(err)
	}
	h := middleware.Chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Pattern = "GET /users/{id}" // as ServeMux does
		w.WriteHeader(http.StatusOK)
	}), middleware.Metrics(tel), middleware.Trace())
	r := httptest.NewRequest("GET", "/users/7", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	return h, silent{http.Header{}}, r
}

// It is one: the recorder, which has all the rest in it.
func TestAllocations(t *testing.T) {
	h, w, r := measured(t)
	if n := testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) }); n > 1 {
		t.Errorf("metrics and trace make %v allocations, want 1", n)
	}
}

func BenchmarkMetricsAndTrace(b *testing.B) {
	h, w, r := measured(b)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
