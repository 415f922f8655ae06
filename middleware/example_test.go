package middleware_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/telemetry"
)

func ExampleChain() {
	tel, err := telemetry.New(telemetry.Config{Service: "user-service"})
	if err != nil {
		fmt.Println(err)
		return
	}
	cors, err := middleware.CORS(middleware.CORSOptions{Origins: []string{"https://shop.example"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "user %s, request %s", r.PathValue("id"), telemetry.RequestID(r.Context()))
	})
	logger := slog.New(slog.DiscardHandler)
	h := middleware.Chain(mux,
		middleware.RequestID(),
		middleware.Trace(),
		middleware.AccessLog(logger, middleware.AccessLogOptions{}),
		middleware.Metrics(tel),
		middleware.Recover(logger),
		cors,
		middleware.Timeout(30*time.Second),
		middleware.BodyLimit(1<<20),
	)

	r := httptest.NewRequest("GET", "/users/7", nil)
	r.Header.Set("X-Request-Id", "r1")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body, tel.Server().Summary().RequestCount)
	// Output: 200 user 7, request r1 1
}
