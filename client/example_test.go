package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func Example() {
	ctx := context.Background()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you asked for %s", r.URL.Path)
	}))
	defer server.Close()

	reg := registry.Open(ctx, memregistry.New().Connect())
	defer reg.Close()
	if _, err := reg.Register(ctx, registry.Instance{Name: "user-service", Address: server.URL}); err != nil {
		fmt.Println(err)
		return
	}
	for range reg.Watch(ctx, "user-service") { // the first event is a snapshot
		if reg.Endpoints("user-service").Len() > 0 {
			break
		}
	}

	transport, err := client.New(reg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.Client().Get("http://user-service/users/7")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output: you asked for /users/7
}
