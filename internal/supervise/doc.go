// Package supervise runs the child processes of `keelson up`: it starts them
// in the order of their dependencies, watches them, starts crashed ones again
// and stops them all, so that none is left however it ends.
//
// # A child's life
//
// A child is [Building] while its Build function runs, waits for those it
// depends on to become healthy, and is [Starting] until its Healthy function
// says yes: then it is [Healthy]. If it ends or takes too long before that,
// everything is stopped and Run fails with a [StartError]. Once it was healthy,
// an end nobody asked for makes it [Restarting]: it is started again after a
// delay that doubles from 0.5 s to 30 s, and is 0.5 s again after it ran well
// for a minute. It is [Stopping] while its process is to end, and in the end
// [Stopped].
//
// [Supervisor.Restart] replaces a process at once. That is no crash; but a new
// one that does not become healthy is treated as one, so that a mistake in one
// service leaves the others alone.
//
// # No process left behind
//
// Each child leads a process group of its own, so that a Ctrl-C in the terminal
// does not reach it. A stop is SIGTERM to the group, and SIGKILL to what is
// left of it after the grace period; when a child ends by itself the rest of
// its group is killed. If the supervising process is killed, a small guard, a
// shell that waits on a pipe whose other end closes with it, kills the groups.
// On Linux the children ask the kernel for a parent-death signal besides, which
// does not depend on any other process. What even so survives can be found by
// the next run and ended with [Reap].
//
// A process that leaves its group (setsid) is out of reach of all that.
package supervise
