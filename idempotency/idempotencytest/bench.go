package idempotencytest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/idempotency"
)

// Benchmark measures requests through the middleware: a new key, the same one
// again, and no key at all.
func Benchmark(b *testing.B, s idempotency.Store) {
	once, err := idempotency.Middleware(s)
	if err != nil {
		b.Fatal(err)
	}
	h := once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"id":7}`)
	}))
	run := rand.Text() // so that a store may be used again
	for _, bench := range []struct {
		name string
		key  func(i int) string
	}{
		{"new", func(i int) string { return fmt.Sprint(run, i) }},
		{"replay", func(int) string { return run }},
		{"none", func(int) string { return "" }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/orders", strings.NewReader(`{"item":7}`))
				if key := bench.key(i); key != "" {
					r.Header.Set(idempotency.Header, key)
				}
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != http.StatusCreated {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
}
