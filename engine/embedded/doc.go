// Package embedded runs the engine, a NATS server with JetStream, in this
// process: nothing to install, ready within milliseconds. It is the only
// package that links the server, so that services which reach an engine by URL
// don't carry one.
//
// # What listens
//
// Nothing, by default: [Server.Connect] works within the process. With
// Config.Listen one port for clients opens, with a password for the
// application account; there is no monitoring port, no cluster port, and no
// signal handler. An address other than loopback is refused without TLS unless
// Config.AllowPlaintext says otherwise.
//
// Two accounts keep things apart. Services use the application account, which
// alone has JetStream and can't reach $SYS subjects. The system account tells
// when a client goes, and is open to connections within this process only.
//
// # Durability
//
// What an acknowledged write survives:
//
//	                       fast (default)   always   memory (no Dir)
//	process killed (-9)    yes              yes      no
//	power cut              last 2 min. no   yes      no
//	loss of the disk       no               no       no
//
// Against the loss of a disk or a machine help only replicas: a NATS cluster.
// fast acknowledges when the write is in the page cache, and syncs every two
// minutes; always syncs before it acknowledges, one write after the other
// however many publish. BenchmarkPublish measures both; docs/durability.md has
// figures and how to choose.
//
// # The directory
//
// One process at a time: a lock (flock) on keelson.lock inside, released by
// the kernel whatever ends the process; the file stays and means nothing by
// itself. A second process gets a *[LockedError]. What can't be read at the
// start is never passed over: the server's own way would be to warn and leave
// out a stream whose settings are damaged, until somebody creates it again
// with whatever settings. Start returns a *[CorruptError] instead and leaves
// those streams as they are. What a kill left half-created or half-changed is put right.
//
// # Limits
//
// Config.MaxStore (default: 16 GiB, or three quarters of what the disk has
// left for us if that is less) bounds all streams together, and MaxMemory
// (default: 256 MiB, or 1 GiB without Dir) those kept in memory.
// NATS's own defaults, three quarters of the disk and of the RAM, are made for
// a machine of its own. At a limit new writes are refused; nothing is dropped.
package embedded
