// Package keelsontest runs a fleet inside a test: engine, registry, gateway and
// any services, each on a port of its own, within some tens of milliseconds.
//
//	func TestUsers(t *testing.T) {
//		t.Parallel()
//		fleet := keelsontest.Start(t,
//			keelsontest.Service("user-service", users.New, keelsontest.Instances(2)),
//			keelsontest.Route("/api/users/*", "user-service", keelsontest.StripPrefix("/api")))
//		resp, err := fleet.Client().Get(fleet.URL + "/api/users")
//		...
//	}
//
// [Start] returns when every instance is in rotation, and the test's end stops
// everything in order: a service that failed, or did not stop cleanly, fails the
// test. The fleet is the real thing. Each instance has its own connection to the
// engine and its own view of the registry, as a process of its own would, so that
// [Instance.Kill] is to everybody else what kill -9 is, and [Instance.Stop] what
// SIGTERM is.
//
// Nothing is shared between fleets: tests may run in parallel. The engine keeps
// everything in memory; a service's KEELSON_DATABASE_URL is an SQLite file in the
// test's TempDir unless [Env] says otherwise; PORT and KEELSON_… of the shell that
// runs the tests are not seen. Logs go to the test's output: go test shows them
// when the test fails, or with -v.
//
// # Not in a synctest bubble
//
// The engine is a NATS server, whose goroutines wait for the network, which a
// bubble of testing/synctest can't wait for: time would stand still. Start fails
// the test when it is called in one. Tests of code that needs virtual time can use
// registry/memregistry instead.
package keelsontest
