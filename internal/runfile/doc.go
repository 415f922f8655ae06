// Package runfile reads and writes .keelson/run.json, the note a running
// `keelson up` leaves beside its manifest: where its gateway, its admin API and
// its engine are, and which child processes it started. Other commands and
// services started by hand find the system through it, and the next `up` learns
// from it what an earlier one that was killed may have left behind.
//
// The file holds the engine's credentials and decides which processes get
// signalled, so it is written with mode 0600, and [Read] refuses one that
// somebody else owns or may have changed or read.
//
// Errors: [fs.ErrNotExist] if there is no such file, [ErrUnsafe] and
// [ErrInvalid] otherwise; all name the file and what to do.
package runfile
