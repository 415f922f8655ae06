package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/ratelimit"
)

func Example() {
	// In a real program this is a client.Transport over the registry.
	users := roundTripper(func(r *http.Request) (*http.Response, error) {
		text := fmt.Sprintf("%s asks %s for %s", r.Header.Get("X-Forwarded-For"), r.URL.Host, r.URL.RequestURI())
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}, nil
	})
	g, err := gateway.New(gateway.Config{
		RateLimit: &ratelimit.Limit{Requests: 100, Window: time.Minute},
		Routes:    []gateway.Route{{Path: "/api/users/*", Service: "user-service", StripPrefix: "/api", Public: true}},
	}, gateway.Deps{Transport: users})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{"/api/users/7?full=1", "/api/usersX"} {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		text, _, _ := strings.Cut(w.Body.String(), `","status"`)
		fmt.Println(w.Code, text)
	}
	// Output:
	// 200 192.0.2.1 asks user-service for /users/7?full=1
	// 404 {"type":"urn:keelson:problem:not_found","title":"Not Found
}
