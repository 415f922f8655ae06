package inprocess_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkCall compares a call in the process with one over loopback, in one run.
func BenchmarkCall(b *testing.B) {
	small := strings.Repeat(`{"id":"7","name":"Ada"},`, 4)
	large := []byte(strings.Repeat("0123456789abcdef", 16<<10)) // 256 KiB
	for _, tt := range []struct {
		name    string
		request string
		handler http.HandlerFunc
	}{
		{"empty", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }},
		{"json", "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, small)
		}},
		{"json-both-ways", small, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, small)
		}},
		{"256KiB", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) }},
	} {
		for _, way := range ways {
			b.Run(tt.name+"/"+way.name, func(b *testing.B) {
				rt := way.start(b, tt.handler)
				b.ReportAllocs()
				req := request(b, "GET", "/users/7", nil)
				if tt.request != "" {
					req = request(b, "POST", "/users/7", strings.NewReader(tt.request))
				}
				for b.Loop() {
					if tt.request != "" {
						req.Body, _ = req.GetBody() // it can't fail
					}
					resp, err := rt.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						b.Fatal(err)
					}
					resp.Body.Close()
				}
			})
		}
	}
}
