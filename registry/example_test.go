package registry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	hub := memregistry.New() // or natsregistry.New with a connection to the engine

	// The service.
	users := registry.Open(ctx, hub.Connect())
	defer users.Close()
	registration, err := users.Register(ctx, registry.Instance{
		Name: "user-service", Address: "http://10.0.0.7:3001", Health: "/health",
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	// Who calls it.
	caller := registry.Open(ctx, hub.Connect())
	defer caller.Close()
	if err := caller.WaitSynced(ctx); err != nil {
		fmt.Println(err)
		return
	}
	picker := balance.P2C()
	if e, err := caller.Pick("user-service", picker); err == nil {
		fmt.Println(e.ID, e.Address)
	}

	if err := registration.Deregister(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for range caller.Watch(ctx, "user-service") {
		if len(caller.Discover("user-service")) == 0 {
			break
		}
	}
	_, err = caller.Pick("user-service", picker)
	fmt.Println(err)
	// Output:
	// user-service-10-0-0-7-3001 http://10.0.0.7:3001
	// registry: no healthy instance of service "user-service"
}

func ExampleRegistry_Watch() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r := registry.Open(ctx, memregistry.New().Connect())
	defer r.Close()
	for e := range r.Watch(ctx) {
		switch e.Type {
		case registry.Snapshot:
			fmt.Println(len(e.Instances), "instances")
			if _, err := r.Register(ctx, registry.Instance{Name: "users", ID: "a", Address: "localhost:3001"}); err != nil {
				fmt.Println(err)
			}
		case registry.Register:
			fmt.Println(e.Instance.Key(), "is", e.Instance.Status)
			return
		}
	}
	// Output:
	// 0 instances
	// users.a is healthy
}
