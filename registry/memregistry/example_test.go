package memregistry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// A connection that is cut takes its leases with it, but not the records.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hub := memregistry.New()
	service, node := hub.Connect(), hub.Connect()
	in := registry.Instance{Name: "users", ID: "a", Address: "http://10.0.0.7:3001"}
	if err := in.Normalize(); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := service.Register(ctx, in, time.Minute); err != nil {
		fmt.Println(err)
		return
	}
	for change := range node.Leases(ctx) {
		switch change.State {
		case registry.LeasesSynced:
			service.Disconnect()
		case registry.LeaseDisconnected:
			fmt.Println(change.Key, "has lost its connection")
			return
		}
	}
	// Output: users.a has lost its connection
}
