// Package service is the chassis of a microservice: an HTTP server with health,
// metrics, logs, registration and an orderly stop around handlers that stay
// plain net/http.
//
//	svc, err := service.New("user-service")
//	svc.Handle("GET /users/{id}", getUser)
//	err = svc.Run(ctx)
//
// # Start and stop
//
// Run starts components in the order they were added, opens the listener, waits
// for the critical health checks and then registers the service, so that no
// request arrives before it can be answered. It stops the other way round:
//
//  1. /readyz says draining, and the instance is deregistered;
//  2. a moment passes ([WithDrainDelay]) in which callers see that and requests
//     still under way to this instance arrive and are answered;
//  3. the listener closes and requests in progress finish; streams, which have
//     no end of their own, are told to end ([Stream], [Draining]);
//  4. components stop, last added first.
//
// All of it has [WithStopTimeout]. What is not over by then is cut, and Run
// returns an error that names it.
//
// # Endpoints
//
// Every service answers /livez, /readyz, /health and /metrics itself, without
// access log, limits or middleware; those about health name the instance in the
// header X-Instance-Id. Requests that no route matches get 404 or 405 as
// problem+json.
//
// While the registry's store is away the service goes on serving. /health is then
// degraded, by the dependency "registry", until it is registered again.
package service
