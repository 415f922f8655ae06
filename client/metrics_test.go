package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/telemetry"
)

func TestShow(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(telemetry.Config{Service: "orders", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	failing := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	f, _ := users(failing, named(t, "well"))
	tr := newTransport(t, f, client.WithBreaker(breaker.ConsecutiveFailures(1)), client.WithoutOutlier())
	if err := tr.Show(tel); err != nil {
		t.Fatal(err)
	}
	if err := tr.Show(tel); err == nil {
		t.Error("no error for a second one")
	}
	if body, err := do(t, tr, request(t, http.MethodGet, "http://users/", nil)); err != nil || body != "well" {
		t.Fatal(body, err)
	}
	// A POST is not repeated: the failure stands, and opens the breaker.
	for _, want := range []int{http.StatusBadGateway, 0} {
		resp, err := tr.RoundTrip(request(t, http.MethodPost, "http://users/", nil))
		switch {
		case err != nil && want != 0:
			t.Fatal(err)
		case err == nil && resp.StatusCode != want:
			t.Fatal(resp.Status)
		case err == nil:
			resp.Body.Close()
		}
	}

	rec := httptest.NewRecorder()
	tel.Handler().ServeHTTP(rec, request(t, http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`keelson_client_requests_total{service="users"} 3`,
		`keelson_client_attempts_total{service="users"} 3`,
		`keelson_client_retries_total{reason="failed",service="users"} 1`,
		`keelson_client_hedges_total{service="users"} 0`,
		`keelson_client_retry_budget_left{service="users"} 9`,
		`keelson_client_breaker_state{service="users",state="open"} 1`,
		`keelson_client_breaker_state{service="users",state="closed"} 0`,
		`keelson_client_breaker_rejected_total{service="users"} 1`,
		`keelson_client_endpoints{service="users"} 2`,
		`keelson_client_in_flight{service="users"} 0`,
		`keelson_client_limit{service="users"} 1024`,
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(rec.Body.String()) {
			if strings.HasPrefix(line, "keelson_") {
				t.Log(line)
			}
		}
	}
}
