// Package platform is Keelson in one process: engine, registry, gateway and
// admin API, put together, with or without services beside them.
//
//	p, err := platform.Listen(ctx, platform.Config{...}) // takes the ports
//	p.AddService("user-service", users.New)
//	err = p.Run(ctx)
//
// [Main] is the main() of a program that does this, or runs one of its services
// alone.
//
// Parts start in this order and stop in reverse, so that each can rely on those
// before it:
//
//  1. the engine: embedded, unless Config.External names one;
//  2. the registry and its checker;
//  3. the admin API;
//  4. what [Platform.Add] and [Platform.AddService] added;
//  5. the gateway: last to start, and first to stop, so that it finishes its
//     requests while the services are still there.
//
// The ports are taken by [Listen] already: a request that comes early waits for
// milliseconds instead of being refused.
//
// # One process or many
//
// A service does not know which way it runs. In this process it listens and is
// registered as in one of its own: other processes and the registry's checks reach it
// by its address, and another instance of it may run elsewhere, if the engine listens
// (Config.Engine.Listen) and that instance is told where: package engine/join finds
// the engine of a [Main] in the same folder by itself.
//
// The gateway and the services here call one another through the same clients, with
// the same picks, retries and breakers; but a call that goes to an instance of this
// process goes there without a socket (package inprocess). Config.NoInProcess has it
// take the socket all the same.
package platform
