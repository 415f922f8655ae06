// Package users is the shop's user service: people with a name and a unique
// email address, in an SQLite database.
//
//	GET    /users         a page of users: ?limit=50&after=<id>, Link: rel="next"
//	GET    /users/{id}
//	POST   /users         201 with Location
//	PUT    /users/{id}    replaces name and email
//	DELETE /users/{id}    204
//	GET    /openapi.json  OpenAPI 3.1
//
// Errors are problem+json, as package openapi says; a taken email address is 409
// conflict, and a database that takes no writes 503 unavailable.
//
// KEELSON_DATABASE_URL names the database; see [Open]. Several instances may
// share one. What was answered with 201, 200 or 204 is on the disk.
package users

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/service"
)

const (
	// requestTimeout bounds a request, waiting for the database included.
	requestTimeout = 10 * time.Second
	closeTimeout   = 5 * time.Second
)

// checkInterval is the time between two checks of the database, which write to it.
var checkInterval = 10 * time.Second

// New returns the service "user-service" over the database KEELSON_DATABASE_URL
// names, which it closes when it stops. It is a join.Constructor: opts are passed
// on to service.New and win over the service's own.
func New(ctx context.Context, opts ...service.Option) (*service.Service, error) {
	store, err := Open(ctx, os.Getenv("KEELSON_DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("user-service: %w", err)
	}
	s, err := NewOver(store, opts...)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// NewOver returns the service over an open store, which it closes when it stops.
// If it returns an error or the service is never run, the store stays open.
func NewOver(store *Store, opts ...service.Option) (*service.Service, error) {
	s, err := service.New("user-service", append([]service.Option{service.WithRequestTimeout(requestTimeout)}, opts...)...)
	if err != nil {
		return nil, err
	}
	if err := s.Health().Add("database", store.Check, health.Critical(), health.Interval(checkInterval)); err != nil {
		return nil, err
	}
	// The server is stopped before what was added before it, so no request is in
	// progress by then.
	s.OnStop("close the database", closeTimeout, func(context.Context) error { return store.Close() })
	register(s.Mux(), s.Health().Report().Version, store, s.Log())
	return s, nil
}
