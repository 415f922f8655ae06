// Command shop runs the example shop, whichever way it is wanted:
//
//	shop all             gateway, engine and all services in one process
//	shop user-service    one service, which joins a running system
//
// The services are the same, and know nothing of it. `keelson up` starts one
// process for each from keelson.yaml. See package platform for the flags and
// package engine/join for how a service finds the system.
package main

import (
	"time"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/ratelimit"
	"github.com/keelson-go/keelson/service"
)

// config is what keelson.yaml says, for one process.
var config = platform.Config{Gateway: gateway.Config{
	Routes:         []gateway.Route{{Path: "/api/users/*", Service: "user-service", StripPrefix: "/api"}},
	RateLimit:      &ratelimit.Limit{Requests: 1000, Window: time.Minute}, // for each client
	ExposeServices: true,
	AccessLog:      gateway.LogErrors, // services log every request themselves
}}

func main() {
	platform.Main(config,
		platform.Service{Name: "user-service", New: users.New, Options: []service.Option{service.WithPort(3001)}},
	)
}
