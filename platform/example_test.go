package platform_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/service"
)

// A monolith to start with: engine, registry, gateway, admin API and a service in
// one process.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	p, err := platform.Listen(ctx, platform.Config{Gateway: gateway.Config{
		Routes: []gateway.Route{{Path: "/api/hello/*", Service: "hello", StripPrefix: "/api", Public: true}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	p.AddService("hello", func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New("hello", opts...)
		if err != nil {
			return nil, err
		}
		s.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) error {
			_, err := fmt.Fprintf(w, "hello, %s", r.PathValue("name"))
			return err
		})
		return s, nil
	}, service.WithLogOutput(io.Discard))
	p.Add("try it", func(ctx context.Context, ready func()) error {
		ready()
		if err := p.WaitServices(ctx); err != nil {
			return err
		}
		resp, err := http.Get(p.GatewayURL() + "/api/hello/ada")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		fmt.Println(resp.StatusCode, string(body))
		stop()
		<-ctx.Done()
		return err
	})
	if err := p.Run(ctx); err != nil {
		fmt.Println(err)
	}
	http.DefaultClient.CloseIdleConnections()
	// Output: 200 hello, ada
}
