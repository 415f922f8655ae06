// Package engine connects a process to Keelson's engine: NATS JetStream, run
// in this process by engine/embedded, or one server or a cluster reached by
// URL. All state that services share is kept there.
//
// [Connect] dials, tells at once what is wrong ([ErrUnreachable],
// [ErrCredentials], [ErrTLS], [ErrNoJetStream]) and provisions the buckets
// every Keelson process needs. From then on the connection is kept for ever:
// after a loss it is tried again with jittered waits from 50 ms to 2 s until
// [Engine.Close], whatever the reason, refused credentials included, because a
// password that is being rotated must not need a restart of every service.
// [Engine.OnState] tells about losses and returns, [Engine.Check] asks now. A
// server that comes back without the buckets, its disk lost, gets them again.
//
// While the connection is away nothing is buffered: a publish fails at once,
// so that no heartbeat or command is sent minutes after it was meant. Who
// publishes, retries.
//
// # What is kept where
//
// New buckets and streams are kept on disk, except on a server that has no
// store ([Engine.Storage]), and in as many copies as [Engine.Replicas] says: 1
// on a lone server, 3 in a cluster. See engine/embedded and docs/durability.md
// for what an acknowledged write survives.
package engine
