package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/keelson-go/keelson/client"
)

// BenchmarkRoundTrip compares a call by name with one through the same kind of
// bare transport to the same server.
func BenchmarkRoundTrip(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	bare := &http.Transport{MaxIdleConnsPerHost: 16}
	defer bare.CloseIdleConnections()
	f, _ := users(s.URL)
	byName := client.New(f)
	defer byName.CloseIdleConnections()
	for _, bb := range []struct {
		name, url string
		rt        http.RoundTripper
	}{{"bare", s.URL, bare}, {"client", "http://users/", byName}} {
		b.Run(bb.name, func(b *testing.B) {
			req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, bb.url, nil)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := bb.rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
