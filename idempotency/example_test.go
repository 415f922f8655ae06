package idempotency_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/keelson-go/keelson/idempotency"
)

func Example() {
	once, err := idempotency.Middleware(new(idempotency.Memory)) // in production, a store all instances share
	if err != nil {
		fmt.Println(err)
		return
	}
	orders := 0
	mux := http.NewServeMux()
	mux.Handle("POST /orders", once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		orders++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", orders)
	})))

	for _, body := range []string{"a book", "a book", "a car"} {
		r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
		r.Header.Set(idempotency.Header, "8e03978e-40d5-43dd-bc93-6894a57f9324")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Printf("%d replayed: %t\n", w.Code, w.Header().Get(idempotency.ReplayedHeader) == "true")
	}
	fmt.Println("orders:", orders)
	// Output:
	// 201 replayed: false
	// 201 replayed: true
	// 422 replayed: false
	// orders: 1
}
