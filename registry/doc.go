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
// [Reaper] (one on each registry node) probes it first. Only an instance that
// refuses connections, or whose address is answered by another instance, is
// removed; one that is slow or failing goes out of rotation after two checks;
// one that answers stays. A removal from the store is therefore always
// confirmed, and every watcher obeys it at once. That a store which lost its
// records does not have an instance confirms nothing: it stays in the snapshot
// for ten seconds, in which whoever lives registers again.
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
