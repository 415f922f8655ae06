package join_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/service"
)

// A program's main is one call of join.Main; this is what that does once it has
// found the engine.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := embedded.Start(ctx, embedded.Config{Listen: "127.0.0.1:0"}) // `keelson up` has one
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Stop(context.Background())

	greeter := func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New("greeter", opts...)
		if err != nil {
			return nil, err
		}
		s.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, "hello")
			return err
		})
		s.Add("first caller", func(ctx context.Context, ready func()) error {
			ready()
			<-s.Listening()
			resp, err := http.Get("http://" + s.Addr().String())
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			fmt.Println(string(body), err)
			cancel() // SIGTERM, in a program
			<-ctx.Done()
			return nil
		})
		return s, nil
	}
	err = join.Serve(ctx, engine.Config{URL: server.URL(), Credentials: server.Credentials()}, greeter)
	fmt.Println(err)
	// Output:
	// hello <nil>
	// <nil>
}
