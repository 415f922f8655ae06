// Package platform is Keelson in one process: engine, registry, gateway and
// admin API, put together.
//
//	p, err := platform.Listen(ctx, platform.Config{...}) // takes the ports
//	p.Add("my service", svc.Run)
//	err = p.Run(ctx)
//
// Parts start in this order and stop in reverse, so that each can rely on those
// before it:
//
//  1. the engine: embedded, unless Config.External names one;
//  2. the registry and its reaper;
//  3. the admin API;
//  4. what [Platform.Add] added;
//  5. the gateway: last to start, and first to stop, so that it finishes its
//     requests while the services are still there.
//
// The ports are taken by [Listen] already: a request that comes early waits for
// milliseconds instead of being refused.
package platform
