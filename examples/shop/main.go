// Command shop runs the services of the example shop, one in each process:
//
//	shop user-service
//
// It finds the engine as package engine/join says; with --standalone it serves
// without one. Under `keelson up` all of it is started from keelson.yaml.
package main

import (
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/examples/shop/users"
)

func main() {
	join.Main(map[string]join.Constructor{"user-service": users.New})
}
