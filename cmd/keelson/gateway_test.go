package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/ratelimit"
)

// What the manifest says of a route gets to the gateway.
func TestGatewayConfig(t *testing.T) {
	t.Parallel()
	m := project(t, `version: 1
services: {users: {command: [x]}, new: {command: [y]}}
gateway:
  routes:
    - {path: /users/*, service: users, stripPrefix: /users, scopes: [users:read], timeout: 3s, priority: critical}
    - path: /crawl
      host: shop.example
      headers: {x-version: "2"}
      methods: [GET]
      backends: [{service: users, weight: 9}, {service: new}]
      public: true
      priority: low
      rateLimit: {limit: 5, by: route}
      allow: [10.0.0.0/8]
      deny: [10.6.6.6]
    - {path: /rest, service: users}
`)
	methods := gateway.DefaultMethods()
	want := []gateway.Route{
		{
			Path: "/users/*", Methods: methods, Service: "users", StripPrefix: "/users", Scopes: []string{"users:read"},
			Timeout: 3 * time.Second, Priority: concurrency.Critical,
		},
		{
			Path: "/crawl", Host: "shop.example", Headers: map[string]string{"X-Version": "2"}, Methods: []string{"GET"},
			Backends: []gateway.Backend{{Service: "users", Weight: 9}, {Service: "new", Weight: 1}}, Public: true, Priority: concurrency.Low,
			RateLimit: &gateway.RouteLimit{Limit: ratelimit.Limit{Requests: 5, Window: time.Minute}, By: gateway.ByRoute},
			Allow:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Deny: []netip.Prefix{netip.MustParsePrefix("10.6.6.6/32")},
		},
		{Path: "/rest", Methods: methods, Service: "users"},
	}
	if diff := cmp.Diff(want, gatewayConfig(m, nil).Routes, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}
