package resilience

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/keelson-go/keelson/client"
)

// layers put each peer's client on a base: what it costs beyond that is its own.
var layers = []struct {
	name string
	over func(tb testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper
}{
	{"bare", func(_ testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
		return spreading(addresses, base)
	}},
	{"keelson", func(tb testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
		return keelsonWith(tb, addresses, client.WithBase(base))
	}},
	{"keelson-attempt-timeout", func(tb testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
		return keelsonWith(tb, addresses, client.WithBase(base), client.WithAttemptTimeout(attemptTimeout))
	}},
	{"kratos", kratosOver},
	{"failsafe-go", func(_ testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
		return failsafehttp.NewRoundTripper(spreading(addresses, base), failsafePolicies()...)
	}},
	{"retryablehttp", func(_ testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
		return retryable(spreading(addresses, base))
	}},
	{"gobreaker+backoff", func(_ testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
		return handMade(addresses, base)
	}},
}

// canned is a base without a network.
type canned struct{}

func (canned) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(`{"id":"7","name":"Ada"}`)), Request: req,
	}, nil
}

// BenchmarkCall is a GET of a small answer from one of three healthy instances, over
// loopback and over a base in memory, by callers without a deadline and with one.
func BenchmarkCall(b *testing.B) {
	ok := func(w http.ResponseWriter, _ *http.Request) { answer(w) }
	ups := addresses(fleet(b, ok, ok, ok))
	for _, base := range []struct {
		name string
		make func(tb testing.TB) http.RoundTripper
	}{
		{"memory", func(testing.TB) http.RoundTripper { return canned{} }},
		{"loopback", func(tb testing.TB) http.RoundTripper { return transport(tb) }},
	} {
		for _, l := range layers {
			for _, deadline := range []time.Duration{0, patience} {
				name := base.name + "/" + l.name
				if deadline > 0 {
					name += "/deadline"
				}
				b.Run(name, func(b *testing.B) {
					rt := l.over(b, ups, base.make(b))
					b.ReportAllocs()
					before := cpu()
					for b.Loop() {
						get(b, rt, deadline)
					}
					b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}

func get(b *testing.B, rt http.RoundTripper, deadline time.Duration) {
	ctx := context.Background()
	if deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/users/7", nil)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status)
	}
}
