package natsidempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/idempotency"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	server, err := embedded.Start(ctx, embedded.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Stop(ctx)
	engine, err := server.Connect(ctx, "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()

	keys, err := engine.Idempotency(ctx, "order-service") // makes the bucket, and calls New
	if err != nil {
		fmt.Println(err)
		return
	}
	once, err := idempotency.Middleware(keys, idempotency.WithRequired())
	if err != nil {
		fmt.Println(err)
		return
	}
	h := once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	for _, key := range []string{"", "k1", "k1"} {
		r := httptest.NewRequest(http.MethodPost, "/orders", nil)
		if key != "" {
			r.Header.Set(idempotency.Header, key)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get(idempotency.ReplayedHeader) == "true")
	}
	// Output:
	// 400 false
	// 201 false
	// 201 true
}
