package console_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func Example() {
	ctx := context.Background()
	fleet := registry.Open(ctx, memregistry.New().Connect())
	defer fleet.Close()

	srv := httptest.NewUnstartedServer(nil) // a listener on loopback
	api, err := console.New(console.Config{Listen: srv.Listener.Addr(), Registry: fleet})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Config.Handler = api
	srv.Start()
	defer srv.Close()

	for _, path := range []string{"/v1/services", "/v1/services?status=ill"} {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, resp.Header.Get("Content-Type"), len(body) > 3)
	}
	// Output:
	// 200 application/json false
	// 400 application/problem+json true
}
