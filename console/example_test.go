package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// A service in any language joins with one call, and is found with another.
func Example() {
	ctx := context.Background()
	fleet := registry.Open(ctx, memregistry.New().Connect())
	defer fleet.Close()
	if err := fleet.WaitSynced(ctx); err != nil {
		fmt.Println(err)
		return
	}
	srv := httptest.NewUnstartedServer(nil) // a listener on loopback
	api, err := console.New(console.Config{Listen: srv.Listener.Addr(), Registry: fleet})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Config.Handler = api
	srv.Start()
	defer srv.Close()

	call := func(method, path, body string) {
		req, err := http.NewRequestWithContext(ctx, method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := srv.Client().Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		var answer struct {
			ID, Status string
			TTL        int
			Errors     any
		}
		_ = json.NewDecoder(resp.Body).Decode(&answer) // 204 has no body
		fmt.Println(resp.StatusCode, answer)
	}
	call("POST", "/v1/services", `{"name": "pay", "address": "http://localhost:3001"}`)
	call("PUT", "/v1/services/pay/pay-localhost-3001/heartbeat", "")
	call("POST", "/v1/services/pay/pay-localhost-3001/drain", "")
	call("POST", "/v1/services", `{"name": "Pay", "address": "http://localhost:3001"}`)
	// Output:
	// 201 {pay-localhost-3001 healthy 15 <nil>}
	// 204 {  0 <nil>}
	// 200 {pay-localhost-3001 draining 0 <nil>}
	// 422 {  0 [map[detail:is not a service name: use 1 to 63 lower-case letters, digits and '-', beginning with a letter or digit pointer:/name]]}
}
