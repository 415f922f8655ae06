package main

import (
	"context"
	"fmt"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/ratelimit"
)

// authenticator accepts whose tokens the manifest says, or else those of the
// project's development key.
func authenticator(ctx context.Context, m *manifest.Manifest, key *auth.DevKey) (*auth.JWT, error) {
	j := m.Gateway.Auth.JWT
	if !j.Enabled() {
		return auth.NewJWT(ctx, key.JWTConfig())
	}
	cfg := auth.JWTConfig{JWKS: j.JWKS, Issuer: j.Issuer, Audience: j.Audience}
	for _, path := range j.Keys {
		keys, err := auth.ReadKeys(m.Resolve(path))
		if err != nil {
			return nil, fmt.Errorf("gateway.auth.jwt.keys: %w", err)
		}
		cfg.Keys = append(cfg.Keys, keys...)
	}
	return auth.NewJWT(ctx, cfg)
}

// gatewayConfig is the manifest's gateway as the gateway wants it.
func gatewayConfig(m *manifest.Manifest, a auth.Authenticator) gateway.Config {
	cfg := gateway.Config{
		Authenticator: a, TrustedProxies: m.Gateway.TrustedProxies, ExposeServices: true,
		CORS: gateway.CORS{Origins: m.Gateway.CORS.Origins},
		// Services log every request themselves.
		AccessLog: gateway.LogErrors,
	}
	if len(cfg.CORS.Origins) == 0 {
		cfg.CORS.Origins = []string{"*"} // development: any page, without credentials
	}
	if l := m.Gateway.RateLimit; l.Limit > 0 {
		cfg.RateLimit = &ratelimit.Limit{Requests: l.Limit, Window: l.Window}
	}
	for _, r := range m.Gateway.Routes {
		priority, _ := concurrency.ParsePriority(string(r.Priority)) // the manifest has no other
		route := gateway.Route{
			Path: r.Path, Host: r.Host, Methods: r.Methods, Headers: r.Headers, Service: r.Service, StripPrefix: r.StripPrefix,
			Public: r.Public, Scopes: r.Scopes, Allow: r.Allow, Deny: r.Deny, Timeout: r.Timeout,
			Priority: priority,
		}
		if r.Service == "" {
			for _, b := range r.Backends {
				route.Backends = append(route.Backends, gateway.Backend{Service: b.Service, Weight: b.Weight})
			}
		}
		if r.RateLimit.Limit > 0 {
			route.RateLimit = &gateway.RouteLimit{
				Limit: ratelimit.Limit{Requests: r.RateLimit.Limit, Window: r.RateLimit.Window}, By: gateway.LimitBy(r.RateLimit.By),
			}
		}
		cfg.Routes = append(cfg.Routes, route)
	}
	return cfg
}
