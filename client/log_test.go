package client_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/client"
)

func TestWithLogger(t *testing.T) {
	t.Parallel()
	failing := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	f, _ := users(failing, named(t, "1"), named(t, "2"))
	var out bytes.Buffer
	tr := newTransport(t, f, client.WithoutHedging(), client.WithBreaker(breaker.ConsecutiveFailures(1)),
		client.WithLogger(slog.New(slog.NewTextHandler(&out, nil))))
	for range 50 { // the first one is asked first, until it is out
		if _, err := do(t, tr, request(t, http.MethodGet, "http://users/", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if log := out.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, `level=WARN msg=outlier upstream=users instance=users-0 state=ejected`) {
		t.Errorf("logged:\n%s", log)
	}
	if b := tr.Breakers()["users"]; b.State != breaker.Closed || b.Metrics.Successes != 50 {
		t.Errorf("%+v", b)
	}

	// A whole service that fails opens the breaker.
	out.Reset()
	f, _ = users(failing)
	tr = newTransport(t, f, client.WithBreaker(breaker.ConsecutiveFailures(1)), client.WithLogger(slog.New(slog.NewTextHandler(&out, nil))))
	resp, err := tr.RoundTrip(request(t, http.MethodPost, "http://users/", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if log := out.String(); !strings.Contains(log, `level=WARN msg="circuit breaker" upstream=users state=open was=closed`) {
		t.Errorf("logged:\n%s", log)
	}
}
