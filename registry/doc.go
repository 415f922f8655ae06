// Package registry knows which instances of which services are up, and says
// so without asking anybody.
//
// A [Registry] is one process's view of the fleet. It follows a store through
// a [Driver], keeps a complete snapshot in memory and answers [Registry.Discover],
// [Registry.Endpoints] and [Registry.Pick] from it: a request never waits for
// the store, and when the store is away the last snapshot stays in force
// (fail-static) until it is back.
//
// [Registry.Register] announces an instance and keeps it announced: its lease
// is renewed, and after any loss (a dropped connection, an emptied store, a
// record somebody deleted) it is registered again, for ever, with jitter.
//
// # Losing an instance
//
// A lease is bound to the connection of the process that holds it, with a time
// to live behind that. A lost lease proves nothing about the instance, so a
// [Checker] (one on each registry node, of which one leads) probes it first. Only
// an instance that refuses connections, or whose address is answered by another
// instance, is removed; one that is slow or failing goes out of rotation after two
// checks; one that answers stays. A removal from the store is therefore always
// confirmed, and every watcher obeys it at once. That a store which lost its
// records does not have an instance confirms nothing: it stays in the snapshot
// for ten seconds, in which whoever lives registers again.
//
// # Checks
//
// The leading checker asks every instance that has a health URL when it
// registers, and then every five seconds, ±10 %, for at most two seconds. Any
// status 2xx is a pass; a redirect is none. An instance without a health URL is
// probed, by opening a connection, only after its lease was lost.
//
//   - Two failed checks in a row take an instance out of rotation: its status
//     becomes unhealthy, and [Instance.Announced] keeps what it said itself. One
//     passed check brings it back.
//   - A refused connection, or the answer of another instance, takes it out at
//     once. Where no process holds its lease it is removed: nobody would miss the
//     record. Where one does, it would only register again.
//   - An instance registered for a process that can't do it itself, with a health
//     URL, is starting until it passes a check, and lives by its checks: each one
//     that it passes renews its lease ([LeaseChecks]). It may register before it
//     listens: until its first pass a refusal counts only when its lease is over.
//   - Without a health URL it lives by its heartbeats alone ([LeaseHeartbeats]):
//     when they stop it is out of rotation until the next one, or removed if its
//     address refuses. Should the node that took them be lost, it has the time of
//     a lease to find another one.
//   - What has neither a lease nor passed a check for ten minutes is removed: the
//     host is gone that could have refused. A change of the leader starts the ten
//     minutes anew.
//   - What is not confirmed, as timeouts, errors and missing heartbeats, takes at
//     most half of a service's instances out (the panic threshold), for then it is
//     rather the network, or the checks. Confirmed losses know no such limit.
//   - No check undoes a drain by hand ([Registry.Drain]), nor what an instance
//     says itself, but that it is starting and passes.
//
// When a check is due follows from the instance's key and the clock. So the checks
// are spread evenly, and when the leader is lost the next one goes on in the same
// rhythm: nobody is checked twice in an interval, as far as the nodes' clocks
// agree, and each of the checks that fell into the vacancy is made up for by the
// next one. Instances that lost their lease meanwhile are probed at once.
//
// The checks go wherever an instance says that it is, so they are kept harmless:
// they are GETs without a body, follow no redirect, use no proxy, carry no
// credentials, read no body, and connect to no address that is not a
// [CheckableAddress], whatever a name resolves to.
//
// # Delivery
//
// [Registry.Watch] is level-triggered: it begins with the whole set and then
// tells each change in order. A watcher that falls behind gets a fresh snapshot
// in place of the changes it missed, so that it ends with the true set and
// never holds anybody else up.
//
// Drivers are in the packages memregistry (in memory, for tests and single
// processes) and natsregistry (NATS JetStream). Package registrytest is the
// suite both pass.
package registry
