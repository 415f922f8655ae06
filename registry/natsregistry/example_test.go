package natsregistry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
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

	driver, err := natsregistry.New(ctx, engine.Conn(), natsregistry.WithSystem(engine.System()))
	if err != nil {
		fmt.Println(err)
		return
	}
	r := registry.Open(ctx, driver)
	defer r.Close()
	registration, err := r.Register(ctx, registry.Instance{Name: "users", Address: "http://10.0.0.7:3001"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(registration.Instance().Key(), registration.Err())
	// Output: users.users-10-0-0-7-3001 <nil>
}
