// Package process names operating-system processes so that a recycled
// process id is never mistaken for the process that had it before, and signals
// process groups.
//
// A bare process id says little: the kernel gives it to somebody else once its
// process is gone. An [ID] therefore carries the moment the kernel started the
// process as well. It can be written to a file and asked about later, by
// another process, after a reboot too.
//
// Linux reads /proc and Darwin asks sysctl. Other systems tell nothing that
// could be relied on: there [Identify] fails with [errors.ErrUnsupported] and
// no ID counts as alive.
package process
