package users_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/keelson-go/keelson/examples/shop/users"
)

func Example() {
	store, err := users.Open(context.Background(), "sqlite::memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	svc, err := users.NewOver(store)
	if err != nil {
		fmt.Println(err)
		return
	}
	// svc.Run(ctx) would serve it; a test needs the handler alone.
	for _, email := range []string{"ann@example.org", "Ann@example.org"} {
		r := httptest.NewRequest(http.MethodPost, "/users", strings.NewReader(`{"name":"Ann","email":"`+email+`"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		svc.Handler().ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Content-Type"))
	}
	// Output:
	// 201 application/json
	// 409 application/problem+json
}
