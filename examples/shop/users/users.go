// Package users is the shop's user service: people with a name and a unique
// email address, in an SQLite or PostgreSQL database.
//
//	GET    /users         a page of users: ?limit=50&after=<id>, Link: rel="next"
//	GET    /users/{id}
//	POST   /users         201 with Location; once for each Idempotency-Key
//	PUT    /users/{id}    replaces name and email
//	DELETE /users/{id}    204
//	GET    /openapi.json  OpenAPI 3.1
//
// Errors are problem+json, as package openapi says; a taken email address is 409
// conflict. A database that is away or takes no writes is 503 unavailable, and
// retryable: nothing was written. Without "retryable" the connection broke in the
// middle of a write, which may have been done.
//
// A request with the header Idempotency-Key may be sent again without harm, for a
// day: see package idempotency. The keys are in the same database, and that of a
// POST is decided in one transaction with its user, so that nothing, not even a
// crash, makes a second one.
//
// KEELSON_DATABASE_URL names the database, such as sqlite:///var/lib/shop/users.db
// or postgres://shop:password@db/shop; see [Open]. Several instances may share
// one, on PostgreSQL from several machines. What was answered with 201, 200 or 204
// is on the disk.
package users

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/service"
)

const (
	// requestTimeout bounds a request, waiting for the database included.
	requestTimeout = 10 * time.Second
	closeTimeout   = 5 * time.Second
)

// checkInterval is the time between two checks of the database, which write to it,
// and checkTimeout the longest one may take.
var (
	checkInterval = 10 * time.Second
	checkTimeout  = 5 * time.Second
)

// New returns the service "user-service" over the database KEELSON_DATABASE_URL
// names, which it closes when it stops. It is a service.Constructor: opts are passed
// on to service.New and win over the service's own. It waits for a PostgreSQL
// server that is not there yet, and says so in the service's log.
func New(ctx context.Context, opts ...service.Option) (*service.Service, error) {
	s, err := newService(opts)
	if err != nil {
		return nil, err
	}
	store, err := open(ctx, service.Environment(opts...)("KEELSON_DATABASE_URL"), s.Log())
	if err != nil {
		return nil, fmt.Errorf("user-service: %w", err)
	}
	if err := serve(s, store); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// NewOver returns the service over an open store, which it closes when it stops.
// If it returns an error or the service is never run, the store stays open.
func NewOver(store *Store, opts ...service.Option) (*service.Service, error) {
	s, err := newService(opts)
	if err != nil {
		return nil, err
	}
	return s, serve(s, store)
}

func newService(opts []service.Option) (*service.Service, error) {
	return service.New("user-service", append([]service.Option{service.WithRequestTimeout(requestTimeout)}, opts...)...)
}

// serve adds to s what it does with the store.
func serve(s *service.Service, store *Store) error {
	if err := s.Health().Add("database", store.Check, health.Critical(), health.Interval(checkInterval), health.Timeout(checkTimeout)); err != nil {
		return err
	}
	// The server is stopped before what was added before it, so no request is in
	// progress by then.
	s.OnStop("close the database", closeTimeout, func(context.Context) error { return store.Close() })
	once, err := idempotency.Middleware(store.db.idempotency(), idempotency.WithLogger(s.Log()), idempotency.WithMaxRequest(maxBody), idempotency.WithRoute(func(r *http.Request) string {
		_, pattern := s.Mux().Handler(r)
		return pattern
	}))
	if err != nil {
		return err
	}
	s.Use(once)
	register(s.Mux(), s.Health().Report().Version, store, s.Log())
	return nil
}
