package health_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/keelson-go/keelson/health"
)

func Example() {
	h := health.New("1.4.0")
	h.OnChange(func(from, to health.Status) { fmt.Println(from, "->", to) })
	database := func(context.Context) error { return nil }
	if err := h.Add("database", database, health.Critical()); err != nil {
		fmt.Println(err)
		return
	}
	mail := func(context.Context) error { return errors.New("connection refused") }
	if err := h.Add("mail", mail); err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	if err := h.WaitReady(ctx); err != nil {
		fmt.Println(err)
	}
	h.Started()

	mux := http.NewServeMux()
	mux.Handle("/livez", h.Live())
	mux.Handle("/readyz", h.Ready())
	mux.Handle("/health", h.Detail())
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/readyz?verbose", nil))
	fmt.Print(w.Code, " ", w.Body)

	h.Drain()
	cancel()
	if err := <-done; err != nil {
		fmt.Println(err)
	}
	// Output:
	// starting -> degraded
	// 200 degraded
	// [+] database (critical)
	// [-] mail: connection refused
	// degraded -> draining
}
